package rangeread

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// A server sends no sooner than Pace says, and tells its reader meanwhile that it
// waits, who does not take it for dead; small reads do not wait.
func TestPace(t *testing.T) {
	const wait = 3 * DefaultSilence / 2
	key, id := p2ptest.Key(t)
	m := newMemory(t, content.BlockSize, key, id)
	var told, frames atomic.Int64
	hosts := p2ptest.Hosts(t, 2)
	server := NewServer(ServerConfig{Host: hosts[1], Handler: m, Pace: func(to peer.ID, n int) time.Duration {
		if to != hosts[0].ID() {
			t.Errorf("bytes for %s", to)
		}
		told.Add(int64(n))
		if frames.Add(1) == 2 || n < content.LeafSize {
			return wait
		}
		return 0
	}})
	client := NewClient(ClientConfig{Host: hosts[0], Trusted: func(peer.ID) bool { return true }})
	runs(t, server.Run)
	runs(t, client.Run)
	p2ptest.Connect(t, hosts[0], hosts[1])
	small := m.request(0, 100)
	small.Small = true
	start := time.Now()
	mustRead(t, client, hosts[1].ID(), m, small)
	whole := time.Since(start)
	told.Store(0)
	frames.Store(0)
	start = time.Now()
	mustRead(t, client, hosts[1].ID(), m, m.request(0, content.BlockSize))
	if d := time.Since(start); d < wait {
		t.Errorf("a read that is to wait %v took %v, a small one %v", wait, d, whole)
	}
	if n := told.Load(); n != content.BlockSize {
		t.Errorf("Pace was told of %d bytes, want %d", n, content.BlockSize)
	}
}
