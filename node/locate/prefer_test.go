package locate

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

func TestPrefer(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	m := New(Config{Self: id("x"), Site: "here", Supernodes: ids("super"), Now: func() time.Time { return start }, Random: rng.Float64})
	pool := members(1, "near", "fast", "slow", "broken")
	pool[0].Site, pool[3].Site = "here", "here"
	apply(m, newPublisher("super").pool(pool)...)
	m.Success(id("near"), time.Second)
	m.Success(id("fast"), 2*time.Millisecond)
	m.Success(id("slow"), 34*time.Millisecond)
	m.Failure(id("broken"))
	const rounds = 2000
	fast := 0
	for range rounds {
		got := ids("broken", "slow", "fast", "near")
		m.Prefer(got)
		if got[0] != id("near") || got[3] != id("broken") {
			t.Fatalf("order %q", got)
		}
		if got[1] == id("fast") {
			fast++
		}
	}
	if got, want := float64(fast)/rounds, 9./10; got < want-0.03 || got > want+0.03 {
		t.Errorf("the fast one came before the slow one in %.3f of all cases, want %.3f", got, want)
	}
	strangers := []peer.ID{"s", "r"}
	m.Prefer(strangers)
	slices.Sort(strangers)
	if !slices.Equal(strangers, []peer.ID{"r", "s"}) {
		t.Errorf("peers were lost: %q", strangers)
	}
	m.Prefer(nil)
}
