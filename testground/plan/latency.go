package plan

import (
	"context"
	"fmt"
	"time"
)

// latency measures small reads of a file that its seeds have: reads of a range
// each, one after another at each reader. What the supernodes got meanwhile
// besides heartbeats must be at most the parameter messages a read, for no read
// waits for them.
func latency(ctx context.Context, w *World) error {
	reads, length, bound := w.P.Int("reads"), min(w.P.Size("range"), w.Size), w.P.Float("messages")
	f := w.file(0, w.Size)
	s, err := w.swarm(ctx, w.files(1))
	if err != nil {
		return err
	}
	if w.Index == 0 { // brings the file to its seeds
		if _, err := s.Read(ctx, Reading{Phase: "warm", File: f}); err != nil {
			return err
		}
	}
	if err := w.calm(ctx, "warm"); err != nil {
		return err
	}
	before, err := w.controlMessages(ctx, s)
	if err != nil {
		return err
	}
	if err := w.Barrier(ctx, "begin"); err != nil {
		return err
	}
	begun := time.Now()
	// The node that has the whole file reads nothing but its own.
	if w.reads() && w.Index > 0 {
		for range reads {
			off := w.Rand.Int64N(f.Size - length + 1)
			if _, err := s.Read(ctx, Reading{Phase: "small", File: f, Off: off, Len: length, Began: begun}); err != nil {
				return err
			}
		}
	}
	if err := w.calm(ctx, "read"); err != nil {
		return err
	}
	after, err := w.controlMessages(ctx, s)
	if err != nil {
		return err
	}
	if err := w.messagesARead(ctx, after-before, reads, bound); err != nil {
		return err
	}
	return w.finish(ctx, 1, s)
}

// calm waits until all are there, and then until what they queued for the
// supernodes has gone out.
func (w *World) calm(ctx context.Context, name string) error {
	if err := w.Barrier(ctx, name); err != nil {
		return err
	}
	return pause(ctx, 2*w.Beat)
}

// pause waits for d.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// controlMessages counts what this instance had to do with supernodes, but for
// heartbeats: at the origin's the reports that they got, at a node the fetches
// that it made.
func (w *World) controlMessages(ctx context.Context, s *Station) (float64, error) {
	if s != nil {
		return metric(ctx, s.admin, "p2pnode_control_fetches_total")
	}
	sum := 0.0
	for _, super := range w.Supers {
		n, err := metric(ctx, super.admin, "p2pnode_supernode_reports_total")
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// messagesARead adds up the messages of all instances and checks them.
func (w *World) messagesARead(ctx context.Context, own float64, reads int, bound float64) error {
	type count struct {
		Messages float64 `json:"messages"`
	}
	if w.Origin == nil {
		w.Metric("fetches", own, "messages")
		return tell(ctx, w, "messages", count{own})
	}
	all, err := hear[count](ctx, w, "messages", w.Nodes)
	if err != nil {
		return err
	}
	w.Metric("reports", own, "messages")
	for _, c := range all {
		own += c.Messages
	}
	readers := w.readers() - 1
	if readers*reads == 0 {
		return fmt.Errorf("nobody reads: %d readers besides node 0, %d reads", readers, reads)
	}
	a := own / float64(readers*reads)
	w.Metric("supernode_messages_a_read", a, "messages")
	return w.Check("supernode messages a read", a, bound, "messages")
}
