//go:build !windows

package main

import (
	"errors"
	"os"
	"syscall"
)

// lockFile makes a file and locks it; unlock removes it. The lock ends with the
// process too. errLocked where somebody else has it.
func lockFile(path string) (unlock func(), err error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			_ = f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, errLocked
			}
			return nil, &os.PathError{Op: "flock", Path: path, Err: err}
		}
		// The one before may have removed it between the two calls above.
		mine, err1 := f.Stat()
		there, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(mine, there) {
			return func() {
				_ = os.Remove(path) // one that stays is taken by the next
				_ = f.Close()
			}, nil
		}
		_ = f.Close()
	}
}
