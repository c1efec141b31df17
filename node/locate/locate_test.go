package locate

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// id makes a peer ID of the usual length from a name.
func id(name string) peer.ID {
	sum := sha256.Sum256([]byte(name))
	return peer.ID("\x00\x24\x08\x01\x12\x20" + string(sum[:]))
}

func taskNamed(n int) content.TaskID { return sha256.Sum256(fmt.Appendf(nil, "task %d", n)) }

// publisher numbers the updates of a supernode, as the true one does.
type publisher struct {
	id    peer.ID
	epoch uint64
	seq   uint64
	at    time.Time
}

var start = time.UnixMilli(1_800_000_000_000)

func newPublisher(name string) *publisher {
	return &publisher{id: id(name), epoch: 1000, at: start}
}

func (p *publisher) update(u assignment.Update) assignment.Update {
	p.seq++
	u.Cursor = assignment.Cursor{Supernode: p.id, Epoch: p.epoch, Seq: p.seq}
	u.Issued = p.at
	return u
}

func (p *publisher) assign(as ...assignment.Assign) assignment.Update {
	return p.update(assignment.Update{Assigns: as})
}

func (p *publisher) pool(pages ...[]assignment.Member) []assignment.Update {
	var us []assignment.Update
	for i, members := range pages {
		us = append(us, p.update(assignment.Update{Pool: &assignment.PoolPage{Page: i, Pages: len(pages), Members: members}}))
	}
	return us
}

// signed stands for the signature; Apply is given what was verified before.
func signed(u assignment.Update) assignment.Signed {
	return assignment.Signed{Raw: fmt.Appendf(nil, "%d/%d", u.Epoch, u.Seq), Supernode: u.Supernode, Sig: make([]byte, 64)}
}

func apply(m *Map, us ...assignment.Update) {
	for _, u := range us {
		m.Apply(signed(u), u)
	}
}

func members(weight float64, names ...string) []assignment.Member {
	var ms []assignment.Member
	for _, n := range names {
		ms = append(ms, assignment.Member{ID: id(n), Weight: weight})
	}
	return ms
}

func peers(n int) []assignment.Member {
	var ms []assignment.Member
	for i := range n {
		ms = append(ms, assignment.Member{ID: id(fmt.Sprint("peer ", i)), Weight: float64(1 + i%4)})
	}
	return ms
}

func ids(names ...string) []peer.ID {
	var all []peer.ID
	for _, n := range names {
		all = append(all, id(n))
	}
	return all
}

func assignTo(task content.TaskID, seeds ...peer.ID) assignment.Assign {
	return assignment.Assign{Task: task, URL: "http://origin/" + task.String(), Size: -1, Seeds: seeds, Lease: time.Hour}
}

// clock is a Config.Now that tests set.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func newMap(self string, supernodes ...string) (*Map, *clock) {
	c := &clock{start}
	return New(Config{Self: id(self), SelfSeed: true, Supernodes: ids(supernodes...), Now: c.Now}), c
}

func seedIDs(m *Map, task content.TaskID) []peer.ID {
	var all []peer.ID
	for _, s := range m.Seeds(nil, task) {
		all = append(all, s.ID)
	}
	return all
}

func wantSeeds(t *testing.T, m *Map, task content.TaskID, want ...peer.ID) {
	t.Helper()
	got := seedIDs(m, task)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("seeds of %s: got %q, want %q", task, got, want)
	}
}
