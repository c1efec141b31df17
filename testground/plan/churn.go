package plan

import (
	"context"
	"time"
)

// churn has nodes, the last churners of them, come and go while the others
// read: each is up for about the parameter up, dies as death says, is down for
// about down, and returns with its data. The others read files at random, every
// time another part, one each pause, for duration. No read may fail, and the
// origin may send two copies of each byte on average: one more than in peace.
func churn(ctx context.Context, w *World) error {
	c := churnParams{
		churners: w.P.Int("churners"), death: w.P.OneOf("death", Deaths...), files: w.P.Int("files"),
		up: w.P.Duration("up"), down: w.P.Duration("down"), pause: w.P.Duration("pause"),
	}
	duration := w.P.Duration("duration")
	if err := w.P.Err(); err != nil {
		return err
	}
	s, err := w.swarm(ctx, w.files(c.files))
	if err != nil {
		return err
	}
	end := time.Now().Add(duration)
	switch {
	case w.Index >= w.Nodes-c.churners:
		deaths, err := w.comeAndGo(ctx, s, c, end)
		if err != nil {
			return err
		}
		w.Metric("deaths", float64(deaths), "deaths")
	case w.reads():
		if err := w.readOn(ctx, s, c, end); err != nil {
			return err
		}
	}
	if err := w.Barrier(ctx, "read"); err != nil {
		return err
	}
	return w.finish(ctx, 2, s)
}

// churnParams are the parameters of churn.
type churnParams struct {
	churners, files int
	death           string
	up, down, pause time.Duration
}

// comeAndGo dies and returns until end; then the node is up.
func (w *World) comeAndGo(ctx context.Context, s *Station, c churnParams, end time.Time) (deaths int, err error) {
	about := func(d time.Duration) time.Duration { return time.Duration(float64(d) * (0.5 + w.Rand.Float64())) }
	for {
		if err := pause(ctx, about(c.up)); err != nil {
			return deaths, err
		}
		if time.Now().After(end) {
			return deaths, nil
		}
		s.Die(c.death)
		deaths++
		if err := pause(ctx, about(c.down)); err != nil {
			return deaths, err
		}
		if err := s.Revive(ctx); err != nil {
			return deaths, err
		}
	}
}

// readOn reads parts of files until end.
func (w *World) readOn(ctx context.Context, s *Station, c churnParams, end time.Time) error {
	begun := time.Now()
	for time.Now().Before(end) {
		f := w.file(w.Rand.IntN(c.files), w.Size)
		off := w.Rand.Int64N(f.Size)
		n := 1 + w.Rand.Int64N(f.Size-off)
		if _, err := s.Read(ctx, Reading{Phase: "churn", File: f, Off: off, Len: n, Began: begun}); err != nil {
			return err
		}
		if err := pause(ctx, c.pause); err != nil {
			return err
		}
	}
	return nil
}
