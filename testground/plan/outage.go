package plan

import (
	"context"
	"fmt"
	"time"
)

// supernodeOutage ends all supernodes, for the time outage, and starts them
// again on their data. All nodes read a file before, one that nobody has heard
// of at once and another one at the end of the outage, and a last one when
// everybody is back. No read may fail, and each byte leaves the origin once.
func supernodeOutage(ctx context.Context, w *World) error {
	outage := w.P.Duration("outage")
	if err := w.P.Err(); err != nil {
		return err
	}
	s, err := w.swarm(ctx, w.files(4))
	if err != nil {
		return err
	}
	if err := w.readAll(ctx, s, "before", 0); err != nil {
		return err
	}
	for _, super := range w.Supers {
		if err := super.stop(); err != nil {
			return fmt.Errorf("stop a supernode: %w", err)
		}
	}
	if err := w.Barrier(ctx, "outage"); err != nil {
		return err
	}
	begun := time.Now()
	if err := w.readAll(ctx, s, "outage", 1); err != nil {
		return err
	}
	if err := pause(ctx, outage-time.Since(begun)); err != nil {
		return err
	}
	if err := w.readAll(ctx, s, "late in the outage", 2); err != nil {
		return err
	}
	if err := w.restartSupers(ctx); err != nil {
		return err
	}
	if err := w.Barrier(ctx, "back"); err != nil {
		return err
	}
	if err := w.readAll(ctx, s, "back", 3); err != nil {
		return err
	}
	return w.finish(ctx, 1, s)
}

// readAll has all readers read a whole file, and waits for them.
func (w *World) readAll(ctx context.Context, s *Station, phase string, index int) error {
	if w.reads() {
		if _, err := s.Read(ctx, Reading{Phase: phase, File: w.file(index, w.Size)}); err != nil {
			return err
		}
	}
	return w.Barrier(ctx, "read "+phase)
}

// restartSupers starts the supernodes again and waits until they know all
// nodes.
func (w *World) restartSupers(ctx context.Context) error {
	begun := time.Now()
	for _, super := range w.Supers {
		if err := super.start(ctx); err != nil {
			return err
		}
	}
	for _, super := range w.Supers {
		err := until(ctx, w.PoolLimit, func() (string, bool) {
			var st struct {
				Members []struct{} `json:"members"`
			}
			if err := getJSON(ctx, super.admin+"/v1/status", &st); err != nil {
				return err.Error(), false
			}
			return fmt.Sprintf("a supernode that came back knows %d of %d nodes", len(st.Members), w.Nodes), len(st.Members) == w.Nodes
		})
		if err != nil {
			return err
		}
	}
	if len(w.Supers) > 0 {
		w.Metric("supernodes_back", ms(time.Since(begun)), "ms")
	}
	return nil
}
