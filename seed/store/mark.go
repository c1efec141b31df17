package store

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// allChecked reports whether no block is left that an unclean stop, of this or
// an earlier process, may have damaged unseen.
func (d *Disk) allChecked() bool {
	if d.clean {
		return true
	}
	checked := true
	for _, f := range d.index.all() {
		f.heldBlocks(func(i int64) { checked = checked && f.checked(i).Load() != 0 })
	}
	return checked
}

// takeMark reports whether the last user of dir closed it in this boot of the
// machine, and removes the mark. After another boot, which may have come before
// the data were on the disk, the mark means nothing.
func takeMark(dir, boot string) (clean bool, err error) {
	path := filepath.Join(dir, "clean")
	mark, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return boot != "" && bytes.Equal(mark, []byte(boot)), os.Remove(path)
}

func putMark(dir, boot string) error {
	return os.WriteFile(filepath.Join(dir, "clean"), []byte(boot), 0o600)
}

// bootID names this boot of the machine; it is empty where the system has no
// such name, and every stop then counts as unclean.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return string(id)
}
