package seed

import (
	"errors"
	"fmt"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed/store"
)

// Pin keeps the stripes that r touches from being evicted, those that are held
// and those that come, until Unpin and across restarts. It brings nothing in.
// It ends by itself when the origin has another generation. ErrNoRoom where the
// store has not so much room for pins.
func (f *File) Pin(r content.Range) error { return f.f.pin(r) }

// ErrNoRoom: the store cannot hold all that would be pinned.
var ErrNoRoom = errors.New("no room for more pins: unpin something, pin a part, or give the store more room (--cache-size)")

func (f *file) pin(r content.Range) error {
	err := f.disk.Pin(r)
	if errors.Is(err, store.ErrFull) {
		return fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	return err
}

// Unpin ends the pins of a task, of all its generations, in the stripes that
// the range touches that part returns of a file of size bytes. It returns how
// many bytes, held or not, were pinned and are not any more. ErrNotFound where
// the store knows no file of the task.
func (m *Manager) Unpin(task content.TaskID, part func(size int64) (content.Range, error)) (int64, error) {
	var bytes int64
	known := false
	for disk := range m.cfg.Store.Files() {
		if disk.Key().Task != task {
			continue
		}
		known = true
		before := disk.Pinned()
		r, err := part(disk.Info().Size)
		if err == nil {
			err = disk.Unpin(r)
		}
		if err != nil {
			return bytes, err
		}
		bytes += before - disk.Pinned()
	}
	if !known {
		return 0, ErrNotFound
	}
	return bytes, nil
}
