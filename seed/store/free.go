package store

import "fmt"

// Room returns an error that wraps ErrFull where the disk of dir cannot take n
// bytes more and keep what record databases on it need. It is for who writes
// beside a Disk. Nil where it cannot be known.
func Room(dir string, n int64) error {
	if free, ok := freeSpace(dir); ok && free < minFree+n {
		return fmt.Errorf("%d bytes free on the disk of %s, %d are kept: %w", free, dir, int64(minFree), ErrFull)
	}
	return nil
}
