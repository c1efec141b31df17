package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// DirLock keeps other processes from a data directory. It ends with Close, or
// with the process.
type DirLock struct{ file *os.File }

// LockDir takes the lock of a data directory, which it makes where there is
// none. An error wraps ErrLocked where another process has it, and says what to
// do.
func LockDir(dir string) (*DirLock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w: choose another with --data-dir", err)
	}
	f, err := lockFile(filepath.Join(dir, "lock"))
	if errors.Is(err, ErrLocked) {
		return nil, fmt.Errorf("data directory %s is %w: stop that process, or choose another with --data-dir", dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("lock data directory %s: %w", dir, err)
	}
	return &DirLock{f}, nil
}

// Close lets the directory go.
func (l *DirLock) Close() error { return l.file.Close() }
