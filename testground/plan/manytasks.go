package plan

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// manyTasks has a catalogue of tasks files of which each is wanted by Zipf's
// law with exponent zipf, more than all caches hold. Each reader makes reads
// reads of whole files, parallel of them at once. No read may fail, no cache may
// hold more than its quota, and the origin sends less than the clients get.
func manyTasks(ctx context.Context, w *World) error {
	tasks, reads, parallel, exponent := w.P.Int("tasks"), w.P.Int("reads"), w.P.Int("parallel"), w.P.Float("zipf")
	if err := w.P.Err(); err != nil {
		return err
	}
	s, err := w.swarm(ctx, w.files(tasks))
	if err != nil {
		return err
	}
	if w.Origin != nil {
		return w.manyAtOrigin(ctx)
	}
	var got atomic.Int64
	if w.reads() {
		begun := time.Now()
		g, ctx := errgroup.WithContext(ctx)
		for range parallel {
			popular := rand.NewZipf(rand.New(rand.NewPCG(w.Rand.Uint64(), 0)), exponent, 1, uint64(tasks-1))
			g.Go(func() error {
				for range reads / parallel {
					rec, err := s.Read(ctx, Reading{Phase: "zipf", File: w.file(int(popular.Uint64()), w.Size), Began: begun})
					if err != nil {
						return err
					}
					got.Add(rec.Len)
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	st, err := s.Status(ctx)
	if err != nil {
		return err
	}
	w.Metric("client_bytes", float64(got.Load()), "bytes")
	if err := w.Check("cache", float64(st.Store.Used), float64(st.Store.Capacity), "bytes"); err != nil {
		return err
	}
	return tell(ctx, w, "got", gotBytes{got.Load()})
}

// gotBytes are the bytes that the clients of a node got.
type gotBytes struct {
	Bytes int64 `json:"bytes"`
}

// manyAtOrigin is the origin's part of manyTasks.
func (w *World) manyAtOrigin(ctx context.Context) error {
	all, err := hear[gotBytes](ctx, w, "got", w.Nodes)
	if err != nil {
		return err
	}
	var bytes int64
	for _, g := range all {
		bytes += g.Bytes
	}
	t := w.Origin.Tally()
	w.Metric("origin_bytes", float64(t.Bytes), "bytes")
	w.Metric("origin_unique_bytes", float64(t.Unique), "bytes")
	w.Metric("origin_requests", float64(t.Requests), "requests")
	w.Metric("clients_bytes", float64(bytes), "bytes")
	return w.Check("origin bytes", float64(t.Bytes), float64(bytes), "bytes")
}
