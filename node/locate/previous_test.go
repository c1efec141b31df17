package locate

import (
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// previously asks for a stripe that the new owner owns and the old one did.
func previously(m *Map, n int, stripe int64) []peer.ID {
	return m.Previous(nil, taskNamed(n), stripe, false, nil)
}

func TestPreviousOwnerOfAnAssignment(t *testing.T) {
	task := taskNamed(1)
	m, clk := newMap("c", "super")
	pub := newPublisher("super")
	apply(m, pub.pool(members(1, "a", "b", "c"))...)
	clk.now = clk.now.Add(time.Hour) // the pool is old
	m.Confirm(id("super"))
	pub.at = clk.now
	apply(m, pub.assign(assignTo(task, ids("a", "b")...)))
	clk.now = clk.now.Add(2 * time.Hour) // and so is the assignment
	pub.at = clk.now
	if got := previously(m, 1, 1); got != nil {
		t.Fatalf("nothing has changed, and %q owned the stripe before", got)
	}
	apply(m, pub.assign(assignTo(task, ids("b", "c")...)))
	for stripe := range int64(32) {
		was, is := rankOf(task, stripe, "a", "b")[0], rankOf(task, stripe, "b", "c")[0]
		want := []peer.ID{was}
		if was == is || was == id("c") {
			want = nil
		}
		if got := previously(m, 1, stripe); !slices.Equal(got, want) {
			t.Errorf("stripe %d: previous owners %q, want %q", stripe, got, want)
		}
		// Where the owner was dead, who stood for it is asked.
		want = nil
		if stood := rankOf(task, stripe, "a", "b")[1]; stood != is {
			want = []peer.ID{stood}
		}
		if got := m.Previous(nil, task, stripe, false, []peer.ID{was}); !slices.Equal(got, want) {
			t.Errorf("stripe %d: without %q the previous owners are %q, want %q", stripe, was, got, want)
		}
	}
	// Renewing the lease, as is done when half of it is over, changes nothing.
	clk.now = clk.now.Add(30 * time.Minute)
	pub.at = clk.now
	apply(m, pub.assign(assignTo(task, ids("b", "c")...)))
	remembered := 0
	for stripe := range int64(32) {
		remembered += len(previously(m, 1, stripe))
	}
	if remembered == 0 {
		t.Error("forgotten when the lease was renewed")
	}
	clk.now = clk.now.Add(30 * time.Minute)
	for stripe := range int64(32) {
		if got := previously(m, 1, stripe); got != nil {
			t.Errorf("stripe %d: %q is remembered beyond the lease", stripe, got)
		}
	}
}

func TestPreviousOwnerInThePool(t *testing.T) {
	m, clk := newMap("e", "super")
	pub := newPublisher("super")
	apply(m, pub.pool(members(1, "a", "b", "c", "d"))...)
	clk.now = clk.now.Add(time.Hour)
	apply(m, pub.pool(members(1, "a", "b", "c", "d", "e"))...) // this node joins
	apply(m, pub.pool(members(1, "a", "b", "c", "e"))...)      // another leaves
	moved := 0
	for n := range 200 {
		owner, _ := m.Owner(taskNamed(n), 0, false, nil)
		was := rankOf(taskNamed(n), 0, "a", "b", "c", "d")[0]
		got := previously(m, n, 0)
		if owner == id("e") {
			moved++
			if !slices.Contains(got, was) || len(got) > 2 {
				t.Errorf("task %d: previous owners %q, want %q among them", n, got, was)
			}
		} else if was == owner && got != nil {
			t.Errorf("task %d: owner %q as ever, previous owners %q", n, owner, got)
		}
	}
	if moved == 0 {
		t.Fatal("the node that joined owns nothing")
	}
	clk.now = clk.now.Add(poolLease)
	for n := range 200 {
		if got := previously(m, n, 0); got != nil {
			t.Fatalf("task %d: %q is remembered beyond the lease", n, got)
		}
	}
}

// A node that has just joined knows no older pool: the next owner was the one.
func TestPreviousOwnerForANewcomer(t *testing.T) {
	m, _ := newMap("e", "super")
	apply(m, newPublisher("super").pool(members(1, "a", "b", "c", "e"))...)
	for n := range 100 {
		owner, _ := m.Owner(taskNamed(n), 0, false, nil)
		if owner != id("e") {
			continue
		}
		if got, want := previously(m, n, 0), rankOf(taskNamed(n), 0, "a", "b", "c")[:1]; !slices.Equal(got, want) {
			t.Errorf("task %d: previous owners %q, want %q", n, got, want)
		}
	}
}
