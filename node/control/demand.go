package control

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/report"
)

const (
	// maxRead bounds the tasks whose demand is counted in one period; others
	// are not counted until the next.
	maxRead = 4096
	// maxReaders bounds the readers told apart of one task in one period.
	maxReaders = 256
)

// demand counts what other peers read here between two reports of it.
type demand struct {
	mu sync.Mutex
	// mu guards the following.
	tasks map[content.TaskID]*readers
}

type readers struct {
	bytes int64
	ids   map[uint64]struct{}
}

func (d *demand) add(task content.TaskID, reader peer.ID, bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.tasks[task]
	if r == nil {
		if len(d.tasks) >= maxRead {
			return
		}
		if d.tasks == nil {
			d.tasks = make(map[content.TaskID]*readers)
		}
		r = &readers{ids: make(map[uint64]struct{})}
		d.tasks[task] = r
	}
	r.bytes += bytes
	if len(r.ids) < maxReaders {
		r.ids[report.Fingerprint(reader)] = struct{}{}
	}
}

// take returns what was counted since the last call.
func (d *demand) take() []report.Demand {
	d.mu.Lock()
	tasks := d.tasks
	d.tasks = nil
	d.mu.Unlock()
	out := make([]report.Demand, 0, len(tasks))
	for task, r := range tasks {
		out = append(out, report.Demand{Task: task, Bytes: r.bytes, Readers: slices.Sorted(maps.Keys(r.ids))})
	}
	return out
}

// Served counts bytes of a task that this node sent to another peer. Once in a
// heartbeat period the sum is reported to the task's supernode.
func (c *Control) Served(task content.TaskID, reader peer.ID, bytes int64) {
	c.demand.add(task, reader, bytes)
}

// reportDemand reports what was counted, once a period.
func (c *Control) reportDemand(ctx context.Context) error {
	for sleep(ctx, c.cfg.Interval) {
		for _, d := range c.demand.take() {
			if l := c.linkOf(d.Task); l != nil {
				l.reports.Read(d)
			}
		}
	}
	return nil
}
