//go:build linux || darwin

package store

import "syscall"

// freeSpace returns the bytes that this user may still write to the file system
// of dir; false where it cannot be known.
func freeSpace(dir string) (int64, bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, false
	}
	return int64(st.Bavail) * int64(st.Bsize), true
}
