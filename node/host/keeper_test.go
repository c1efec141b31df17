package host

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

func TestRankDials(t *testing.T) {
	const ms = time.Millisecond
	const circuit = "/ip4/1.2.3.4/tcp/9/p2p/12D3KooWAWcB9ibxq5LtgP2NvZYpC4f8A7Cn76DJguaHoCr98KPN/p2p-circuit"
	onLink := func(a multiaddr.Multiaddr) bool { return strings.HasPrefix(a.String(), "/ip4/10.0.") }
	for _, c := range []struct {
		name string
		want []string // in the order and at the times of the dials
		at   []time.Duration
	}{
		{"loopback", []string{"/ip4/127.0.0.1/tcp/9", "/ip4/127.0.0.1/udp/1/quic-v1"}, []time.Duration{0, 280 * ms}},
		{"private", []string{"/ip6/fc00::1/tcp/9", "/ip4/10.0.0.1/tcp/9", "/ip6/fc00::1/udp/1/quic-v1", "/ip4/10.0.0.1/udp/1/quic-v1"}, []time.Duration{0, 30 * ms, 310 * ms, 340 * ms}},
		{"private, no tcp", []string{"/ip4/10.0.0.1/udp/1/quic-v1"}, []time.Duration{0}},
		{"public", []string{"/ip4/1.2.3.4/udp/9/quic-v1", "/ip4/1.2.3.4/tcp/1"}, []time.Duration{0, 250 * ms}},
		{"both", []string{"/ip4/10.9.0.1/tcp/9", "/ip4/10.9.0.1/udp/1/quic-v1", "/ip4/1.2.3.4/udp/9/quic-v1", "/ip4/1.2.3.4/tcp/1"}, []time.Duration{0, 280 * ms, 0, 250 * ms}},
		{"both, this LAN", []string{"/ip4/10.0.0.1/tcp/9", "/ip4/10.0.0.1/udp/1/quic-v1", "/ip4/1.2.3.4/udp/9/quic-v1", "/ip4/1.2.3.4/tcp/1"}, []time.Duration{0, 280 * ms, 100 * ms, 350 * ms}},
		{"relay", []string{circuit}, []time.Duration{0}},
		{"this LAN", []string{"/ip4/10.0.0.1/tcp/9", circuit}, []time.Duration{0, 500 * ms}},
		{"another LAN", []string{"/ip4/10.9.0.1/tcp/9", circuit}, []time.Duration{0, 20 * ms}},
		{"none", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var addrs []multiaddr.Multiaddr
			for _, s := range c.want {
				a, err := multiaddr.NewMultiaddr(s)
				if err != nil {
					t.Fatal(err)
				}
				addrs = append(addrs, a)
			}
			slices.Reverse(addrs)
			ranked := rankDials(addrs, onLink)
			if len(ranked) != len(c.want) {
				t.Fatalf("%d addresses, want %d", len(ranked), len(c.want))
			}
			for i, r := range ranked {
				if r.Addr.String() != c.want[i] || r.Delay != c.at[i] {
					t.Errorf("dial %d: %s after %v, want %s after %v", i, r.Addr, r.Delay, c.want[i], c.at[i])
				}
			}
		})
	}
}

func TestPauseGrowsToItsBound(t *testing.T) {
	for _, c := range []struct {
		fails  int
		limit  time.Duration
		middle time.Duration
	}{
		{1, maxPause, firstPause}, {2, maxPause, 2 * firstPause}, {5, maxPause, 16 * firstPause}, {6, maxPause, maxPause},
		{1000, maxPause, maxPause}, {1, maxSavedPause, firstPause}, {1000, maxSavedPause, maxSavedPause},
		{3, urgentPause, 4 * firstPause}, {1000, urgentPause, urgentPause},
	} {
		for range 100 {
			if d := pause(c.fails, c.limit); d < c.middle/2 || d > c.middle*3/2 {
				t.Errorf("pause(%d, %v) = %v, want %v ±50 %%", c.fails, c.limit, d, c.middle)
			}
		}
	}
}

// newKeeper returns a keeper that saved n peers, of a host without listeners.
func newKeeper(t *testing.T, n int) *keeper {
	t.Helper()
	h, err := New(Config{Key: key(t), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	k := &keeper{h: h, targets: map[peer.ID]*target{}}
	for i := range n {
		id, err := peer.IDFromPrivateKey(key(t))
		if err != nil {
			t.Fatal(err)
		}
		a, err := multiaddr.NewMultiaddr(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", i+1))
		if err != nil {
			t.Fatal(err)
		}
		k.saved = append(k.saved, peer.AddrInfo{ID: id, Addrs: []multiaddr.Multiaddr{a}})
	}
	return k
}

func key(t *testing.T) crypto.PrivKey {
	t.Helper()
	k, _, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestDeadSavedPeersGiveWay(t *testing.T) {
	k := newKeeper(t, 20)
	tried := map[peer.ID]int{}
	for now := time.Now(); len(tried) < 20; now = now.Add(time.Second) {
		due := k.step(now)
		if len(k.targets) > maxSavedDials {
			t.Fatalf("%d saved peers are targets", len(k.targets))
		}
		for _, d := range due {
			tried[d.ID]++
			k.dialed(dialed{d.ID, errors.New("refused")}, now)
		}
		for _, n := range tried {
			if n > savedTries && len(tried) < 20 {
				t.Fatalf("a dead peer is tried %d times while %d are not", n, 20-len(tried))
			}
		}
	}
}

func TestDialsAreBounded(t *testing.T) {
	k := newKeeper(t, 0)
	k.wanted = func() []peer.AddrInfo { return newKeeper(t, 3*maxDials).saved }
	all := k.wanted()
	k.wanted = func() []peer.AddrInfo { return all }
	now := time.Now()
	due := k.step(now)
	if len(due) != maxDials {
		t.Fatalf("%d dials at once, want %d", len(due), maxDials)
	}
	if more := k.step(now); len(more) != 0 {
		t.Fatalf("%d more dials while the first run", len(more))
	}
	k.dialed(dialed{due[0].ID, errors.New("refused")}, now)
	next := k.step(now)
	if len(next) != 1 || next[0].ID == due[0].ID {
		t.Fatalf("after one failed %v is next", next)
	}
	// A peer that moved is dialled at its new address without the pause.
	k.dialed(dialed{next[0].ID, errors.New("refused")}, now)
	i := slices.IndexFunc(all, func(o peer.AddrInfo) bool { return o.ID == due[0].ID })
	moved, err := multiaddr.NewMultiaddr("/ip4/127.0.0.1/tcp/65000")
	if err != nil {
		t.Fatal(err)
	}
	all = append([]peer.AddrInfo{{ID: due[0].ID, Addrs: []multiaddr.Multiaddr{moved}}}, slices.Delete(slices.Clone(all), i, i+1)...)
	k.aim()
	if next := k.targets[due[0].ID].next; now.Before(next) {
		t.Errorf("a peer that moved waits %v", next.Sub(now))
	}
}

func TestMetKeepsTheLastSeen(t *testing.T) {
	m := met{}
	now := time.Now()
	for i := range maxMet {
		id := peer.ID(fmt.Sprintf("peer %d", i))
		m[id] = metPeer{ID: id, Seen: now.Add(time.Duration(i) * time.Second)}
	}
	if !m.evict(now.Add(time.Hour)) || len(m) != maxMet-1 {
		t.Fatal("nothing was evicted")
	}
	if _, ok := m["peer 0"]; ok {
		t.Error("the one not seen for longest stayed")
	}
	if m.evict(now) {
		t.Error("evicted a peer seen just now")
	}
	if first := m.sorted()[0].ID; first != "peer 63" {
		t.Errorf("%s is sorted first", first)
	}
}

// stuck is a host that does not close.
type stuck struct{ closing, never chan struct{} }

func (s stuck) Close() error {
	close(s.closing)
	<-s.never
	return nil
}

// A host that cannot close does not keep its process from ending.
func TestCloseIsBounded(t *testing.T) {
	s := stuck{make(chan struct{}), make(chan struct{})}
	defer close(s.never)
	h := &Host{log: slog.New(slog.DiscardHandler)}
	if err := h.closeWithin(time.Millisecond, s); err != nil {
		t.Error(err)
	}
	<-s.closing
}
