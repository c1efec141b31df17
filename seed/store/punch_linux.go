package store

import (
	"os"
	"syscall"
)

// From linux/falloc.h.
const (
	fallocKeepSize  = 0x1
	fallocPunchHole = 0x2
)

// punch gives the bytes [off, off+n) of a file back to the file system, which
// reads them as zeros from then on. Best effort: not all file systems can.
func punch(f dataFile, off, n int64) {
	if file, ok := f.(*os.File); ok {
		_ = syscall.Fallocate(int(file.Fd()), fallocPunchHole|fallocKeepSize, off, n)
	}
}

// allocated returns the bytes that a file takes on the disk; false where that
// cannot be known.
func allocated(path string) (int64, bool) {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return 0, false
	}
	return st.Blocks * 512, true
}
