package control_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node/locate"
	"github.com/p2pnode/p2pnode/protocols/report"
)

// newCourt makes three supernodes and nodes that follow all of them.
func newCourt(t *testing.T, count int) ([]*boss, []*node) {
	t.Helper()
	var bosses []*boss
	var infos []peer.AddrInfo
	for range 3 {
		b := newBoss(t, newKey(t), "/ip4/127.0.0.1/tcp/0")
		bosses, infos = append(bosses, b), append(infos, b.info)
	}
	var nodes []*node
	for i := range count {
		nodes = append(nodes, newNodeOf(t, infos, nodes[max(0, i-1):i]...))
	}
	return bosses, nodes
}

// ofBoss returns a task whose own supernode is the i-th.
func ofBoss(bosses []*boss, i int) report.Held {
	var members []content.Member
	for _, b := range bosses {
		members = append(members, content.Member{ID: b.info.ID, Weight: 1})
	}
	for n := byte(0); ; n++ {
		h := heldTask(n)
		if first, _ := content.First(h.Task[:], members); first.ID == bosses[i].info.ID {
			return h
		}
	}
}

// knows waits until a supernode has a task, or has it no more.
func (b *boss) knows(t *testing.T, within time.Duration, task content.TaskID) {
	t.Helper()
	p2ptest.Eventually(t, within, func() bool {
		for _, known := range b.Status().Tasks {
			if known.Task == task {
				return true
			}
		}
		return false
	}, "the supernode does not know the task")
}

// A task is reported to its own supernode alone; when that one dies, to the next
// in order, which assigns it; and to its own again when it is back.
func TestAnotherSupernodeStandsIn(t *testing.T) {
	bosses, nodes := newCourt(t, 3)
	poolIs(t, 5*time.Second, nodes, hostIDs(nodes))
	own := bosses[0]
	h := ofBoss(bosses, 0)
	nodes[0].hold(h)
	own.knows(t, 5*time.Second, h.Task)
	seeds := assigned(t, nodes, h.Task)
	for _, b := range bosses[1:] {
		if n := b.Status().TaskCount; n != 0 {
			t.Fatalf("another's task was reported to a supernode: it has %d", n)
		}
	}

	listen := addr(t, own.host)
	own.stop(t)
	if err := own.host.Close(); err != nil {
		t.Fatal(err)
	}
	next := bosses[1]
	if score(h.Task, bosses[2]) > score(h.Task, bosses[1]) {
		next = bosses[2]
	}
	next.knows(t, 10*period, h.Task)
	for _, n := range nodes {
		if got := seedsOf(n.m, h.Task); !slices.Equal(got, seeds) {
			t.Errorf("seeds %v while the own supernode is dead, were %v", got, seeds)
		}
	}

	back := newBoss(t, own.key, listen)
	back.knows(t, 10*period, h.Task)
	p2ptest.Eventually(t, 10*period, func() bool {
		for _, task := range back.Status().Tasks {
			if task.Task == h.Task && len(task.Seeds) == 2 {
				return true
			}
		}
		return false
	}, "the supernode that is back has not assigned its task again")
}

func score(task content.TaskID, b *boss) float64 {
	return content.Score(task[:], content.Member{ID: b.info.ID, Weight: 1})
}

func seedsOf(m *locate.Map, task content.TaskID) []peer.ID {
	var out []peer.ID
	for _, s := range m.Seeds(nil, task) {
		out = append(out, s.ID)
	}
	return out
}

// Supernodes restart one after another while readers look up all the time, tasks
// that are assigned and tasks that nobody knows: no look-up fails.
func TestRollingRestart(t *testing.T) {
	bosses, nodes := newCourt(t, 4)
	poolIs(t, 5*time.Second, nodes, hostIDs(nodes))
	var tasks []content.TaskID
	for i := range bosses {
		h := ofBoss(bosses, i)
		nodes[i].hold(h)
		assigned(t, nodes, h.Task)
		tasks = append(tasks, h.Task, content.TaskID{200, byte(i)})
	}
	lookups := 0
	reader := start(t, func(ctx context.Context) error {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			for _, n := range nodes {
				for _, task := range tasks {
					lookups++
					if owner, ok := n.m.Owner(task, 1, false, nil); !ok || !slices.Contains(hostIDs(nodes), owner) {
						t.Errorf("look-up %d: owner %q, %t", lookups, owner, ok)
						return nil
					}
				}
			}
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
	})
	for i, b := range bosses {
		listen := addr(t, b.host)
		b.stop(t)
		if err := b.host.Close(); err != nil {
			t.Fatal(err)
		}
		bosses[i] = newBoss(t, b.key, listen)
		p2ptest.Eventually(t, 20*period, func() bool {
			s := bosses[i].Status()
			return len(s.Members) == len(nodes) && len(s.Pool) == len(nodes) && s.TaskCount == 1
		}, "supernode ", i, " has not everything again")
	}
	reader.stop(t)
	if lookups < 1000 {
		t.Errorf("only %d look-ups were made", lookups)
	}
}

// A node that is cut off from two of three supernodes goes on with the third.
func TestOneSupernodeIsEnough(t *testing.T) {
	bosses, nodes := newCourt(t, 2)
	for _, b := range bosses[:2] {
		b.stop(t)
		if err := b.host.Close(); err != nil {
			t.Fatal(err)
		}
	}
	infos := []peer.AddrInfo{bosses[0].info, bosses[1].info, bosses[2].info}
	late := newNodeOf(t, infos, nodes[0])
	all := append(nodes, late)
	poolIs(t, 10*time.Second, []*node{late}, hostIDs(all))
	h := ofBoss(bosses, 0)
	late.hold(h)
	bosses[2].knows(t, 10*period, h.Task)
}
