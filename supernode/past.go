package supernode

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// past is what peers remember of this supernode's last life: they hold what it
// signed, and give it back over fetch. With it a supernode that starts again
// keeps the seeds it had elected, and waits for the peers of its last pool
// instead of publishing one of the first few who are back. Not safe for
// concurrent use.
type past struct {
	asked    int           // peers whose memory was asked for
	patience time.Duration // how long to wait for the last pool
	met      time.Time     // when the first peer came back; zero before
	answered bool          // a peer has told, or has nothing to tell
	settled  bool          // all are back, or it took too long
	pool     map[peer.ID]bool
	assigns  map[content.TaskID]assignment.Assign
	// entries are the updates that these are from, version that of the pool, and
	// order that of the last word on each task.
	entries []opened
	version assignment.Cursor
	order   map[content.TaskID]assignment.Cursor
}

// opened is an update whose signature was found to be this supernode's.
type opened struct {
	assignment.Update
	signed assignment.Signed
}

// open returns those of the updates that a supernode signed.
func open(self peer.ID, signed []assignment.Signed) []opened {
	var out []opened
	for _, s := range signed {
		if u, err := s.Open(func(id peer.ID) bool { return id == self }); err == nil {
			out = append(out, opened{u, s})
		}
	}
	return out
}

// meet notes that a peer came that had beaten to this supernode's last life.
func (p *past) meet(now time.Time) {
	if p.met.IsZero() {
		p.met = now
	}
}

// settling reports whether pool and elections have to wait: from the first peer
// that came back until its memory is known, or for a short while; and then
// until all of the last pool are back, or for the patience. Meanwhile readers
// go on with what they have. A supernode without a past never waits.
func (p *past) settling(now time.Time, all *members) bool {
	if !p.settled && !p.met.IsZero() {
		p.settled = p.settles(now, all)
		return !p.settled
	}
	return false
}

func (p *past) settles(now time.Time, all *members) bool {
	switch {
	case !p.answered:
		return now.Sub(p.met) >= restoreWait
	case now.Sub(p.met) >= p.patience:
		return true
	}
	for id := range p.pool {
		if m := all.byID[id]; m == nil || !m.beat.Seed {
			return false
		}
	}
	return true
}

// restore takes in updates that this supernode signed before the given epoch.
// No updates say that the peer who was asked remembers nothing.
func (p *past) restore(entries []opened, epoch uint64) {
	p.answered = true
	if p.order == nil {
		p.order, p.assigns = make(map[content.TaskID]assignment.Cursor), make(map[content.TaskID]assignment.Assign)
	}
	for _, u := range entries {
		if u.Epoch >= epoch {
			continue
		}
		p.entries = append(p.entries, u)
		for _, a := range u.Assigns {
			if u.Cursor.Compare(p.order[a.Task]) < 0 {
				continue
			}
			p.order[a.Task] = u.Cursor
			p.assigns[a.Task] = a
			if a.Lease == 0 {
				delete(p.assigns, a.Task)
			}
		}
		if u.Pool == nil {
			continue
		}
		version := poolVersion(u)
		if c := version.Compare(p.version); c > 0 {
			p.version, p.pool = version, make(map[peer.ID]bool)
		} else if c < 0 {
			continue
		}
		for _, m := range u.Pool.Members {
			p.pool[m.ID] = true
		}
	}
	seen := make(map[assignment.Cursor]bool, len(p.entries))
	p.entries = slices.DeleteFunc(p.entries, func(u opened) bool {
		again := seen[u.Cursor]
		seen[u.Cursor] = true
		return again || !p.counts(u, func(content.TaskID) bool { return true })
	})
}

// poolVersion places the pool of which an update is a page.
func poolVersion(u opened) assignment.Cursor {
	return assignment.Cursor{Supernode: u.Supernode, Epoch: u.Epoch, Seq: u.PoolVersion()}
}

// counts reports whether an update is a page of the last pool, or the last word
// on a task that is asked for.
func (p *past) counts(u opened, asked func(content.TaskID) bool) bool {
	if u.Pool != nil {
		return poolVersion(u) == p.version
	}
	return slices.ContainsFunc(u.Assigns, func(a assignment.Assign) bool {
		return a.Lease > 0 && p.order[a.Task] == u.Cursor && asked(a.Task)
	})
}

// unsaid returns the updates of which l does not speak yet: what this life has
// not taken over so far is to be kept for the next.
func (p *past) unsaid(l *log) []assignment.Signed {
	var out []assignment.Signed
	for _, u := range p.entries {
		if u.Pool != nil && len(l.pages) > 0 {
			continue
		}
		if p.counts(u, func(task content.TaskID) bool { _, said := l.byTask[task]; return !said }) {
			out = append(out, u.signed)
		}
	}
	return out
}

// forget drops what was restored: every task that counts was reported by now.
func (p *past) forget() { p.pool, p.assigns, p.order, p.entries = nil, nil, nil, nil }
