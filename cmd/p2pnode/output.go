package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// maxLinks bounds a chain of links, as the operating system does.
const maxLinks = 40

// errLocked: another process has the lock.
var errLocked = errors.New("locked")

// resolve follows the links of an output, so that it is their target that is
// replaced and not they; the target need not exist.
func resolve(name string) string {
	for range maxLinks {
		target, err := os.Readlink(name)
		if err != nil {
			break
		}
		dir, err := filepath.EvalSymlinks(filepath.Dir(name))
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(dir, target)
		}
		name = target
	}
	return name
}

// direct opens an output that is there and is no regular file, such as a
// device or a pipe; nil where the output is a file or is to become one. It
// blocks on a named pipe until somebody reads that.
func (d *download) direct() (io.WriteCloser, error) {
	info, err := os.Stat(d.out)
	switch {
	case err != nil || info.Mode().IsRegular():
		return nil, nil
	case info.IsDir():
		return nil, fmt.Errorf("output %s is a directory: name a file in it", d.out)
	}
	return os.OpenFile(d.out, os.O_WRONLY, 0)
}

// lock keeps other processes away from the part file until unlock is called.
func (d *download) lock() (unlock func(), err error) {
	unlock, err = lockFile(d.partName() + ".lock")
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("another get is writing %s: wait for it, or name another --output", d.partName())
	}
	if err != nil {
		return nil, fmt.Errorf("lock the part file: %w", err)
	}
	return unlock, nil
}
