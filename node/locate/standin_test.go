package locate

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

// TestStandIn: with all seeds of a task dead all nodes agree on one more of the
// pool; with one alive nobody stands in.
func TestStandIn(t *testing.T) {
	names := []string{"a", "b", "c", "d"}
	task := taskNamed(1)
	for _, tc := range []struct {
		stripe     int64
		sequential bool
	}{{0, false}, {3, false}, {3, true}} {
		of := tc.stripe
		if tc.sequential {
			of = 0
		}
		r := rankOf(task, of, names...)
		p := newPublisher("s")
		m, _ := newMap("x", "s")
		if got, ok := m.StandIn(task, tc.stripe, tc.sequential, nil); ok {
			t.Errorf("%+v: without a pool %s stands in", tc, got)
		}
		apply(m, p.pool(members(1, names...))...)
		apply(m, p.assign(assignTo(task, r[1], r[3])))
		for _, want := range []struct {
			skip []peer.ID
			id   peer.ID // none: nobody
		}{
			{[]peer.ID{r[1]}, ""},
			{[]peer.ID{r[1], r[3]}, r[0]},
			{[]peer.ID{r[1], r[3], r[0]}, r[2]},
			{r, ""},
		} {
			if got, ok := m.StandIn(task, tc.stripe, tc.sequential, want.skip); got != want.id || ok != (want.id != "") {
				t.Errorf("%+v, skip %q: %q stands in (%t), want %q", tc, want.skip, got, ok, want.id)
			}
		}
	}
}
