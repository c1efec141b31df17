package plan

import (
	"context"
	"time"
)

// coldStart has everybody ask at once for a range of a file that nobody has
// heard of. Parameter range is the length of what one asks for. The origin must
// send each byte once.
func coldStart(ctx context.Context, w *World) error {
	length := min(w.P.Size("range"), w.Size)
	return w.together(ctx, func(f File) (off, n int64) {
		return w.Rand.Int64N(f.Size - length + 1), length
	})
}

// fanout is coldStart with whole files.
func fanout(ctx context.Context, w *World) error {
	return w.together(ctx, func(File) (off, n int64) { return 0, 0 })
}

// together has all readers begin at one moment, each with a range of its own.
func (w *World) together(ctx context.Context, part func(File) (off, n int64)) error {
	f := w.file(0, w.Size)
	s, err := w.swarm(ctx, w.files(1))
	if err != nil {
		return err
	}
	if w.reads() {
		off, n := part(f)
		began := time.Now()
		rec, err := s.Read(ctx, Reading{Phase: "cold", File: f, Off: off, Len: n, Began: began})
		if err != nil {
			return err
		}
		w.Metric("first_byte", rec.FirstMs, "ms")
		w.Metric("completion", rec.WholeMs, "ms")
	}
	return w.finish(ctx, 1, s)
}
