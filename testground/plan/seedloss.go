package plan

import (
	"context"
	"fmt"
	"slices"
)

// victims are nodes that are to die, by peer ID.
type victims struct {
	Peers []string `json:"peers"`
}

// seedLoss ends seeds of a file, the parameter kill of them, while all other
// nodes read it for the first time and the origin has sent half of it. No read
// may fail, and no byte leaves the origin more than twice.
func seedLoss(ctx context.Context, w *World) error {
	kill, death := w.P.Int("kill"), w.P.OneOf("death", Deaths...)
	if err := w.P.Err(); err != nil {
		return err
	}
	f := w.file(0, w.Size)
	s, err := w.swarm(ctx, w.files(1))
	if err != nil {
		return err
	}
	if w.Origin != nil {
		return w.awaitHalf(ctx)
	}
	dies, err := w.choose(ctx, s, f, kill)
	if err != nil {
		return err
	}
	if err := w.Barrier(ctx, "chosen"); err != nil {
		return err
	}
	if dies {
		if err := w.Await(ctx, "half", 1); err != nil {
			return err
		}
		s.Die(death)
		w.Metric("deaths", 1, "deaths")
		return w.finish(ctx, 2)
	}
	if w.reads() {
		rec, err := s.Read(ctx, Reading{Phase: "loss", File: f})
		if err != nil {
			return err
		}
		w.Metric("completion", rec.WholeMs, "ms")
		w.Metric("longest_pause", rec.PauseMs, "ms")
	}
	return w.finish(ctx, 2, s)
}

// awaitHalf is the origin's part of seedLoss.
func (w *World) awaitHalf(ctx context.Context) error {
	if err := w.Barrier(ctx, "chosen"); err != nil {
		return err
	}
	if err := until(ctx, w.Timeout, func() (string, bool) {
		return fmt.Sprintf("the origin has sent %d bytes", w.Origin.Live()), w.Origin.Live() >= w.Size/2
	}); err != nil {
		return err
	}
	if err := w.Signal(ctx, "half"); err != nil {
		return err
	}
	if err := w.finish(ctx, 2); err != nil {
		return err
	}
	return w.Check("copies of one byte", float64(w.Origin.Tally().MaxCopies), 2, "copies")
}

// choose has node 0 find the seeds of the file, by reading its last byte, and
// reports whether this node is one of those that are to die.
func (w *World) choose(ctx context.Context, s *Station, f File, kill int) (dies bool, err error) {
	if w.Index == 0 {
		if _, err := s.Read(ctx, Reading{Phase: "probe", File: f, Off: f.Size - 1, Len: 1}); err != nil {
			return false, err
		}
		tasks, err := s.Tasks(ctx)
		if err != nil {
			return false, err
		}
		if len(tasks) != 1 || len(tasks[0].Seeds) < kill || kill < 1 {
			return false, fmt.Errorf("cannot kill %d seeds: node 0 knows %+v", kill, tasks)
		}
		if err := tell(ctx, w, "victims", victims{tasks[0].Seeds[:kill]}); err != nil {
			return false, err
		}
	}
	said, err := hear[victims](ctx, w, "victims", 1)
	if err != nil {
		return false, err
	}
	st, err := s.Status(ctx)
	return slices.Contains(said[0].Peers, st.Peer), err
}
