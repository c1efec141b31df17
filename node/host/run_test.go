package host_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node/host"
)

// peerAt is a host that can die and come back as the same peer at the same
// address.
type peerAt struct {
	t    *testing.T
	key  crypto.PrivKey
	addr []multiaddr.Multiaddr
	*host.Host
}

func newPeerAt(t *testing.T) *peerAt {
	p := &peerAt{t: t, key: newKey(t)}
	p.back()
	p.addr = p.Addrs()
	return p
}

func (p *peerAt) die() {
	p.t.Helper()
	if err := p.Close(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peerAt) back() { p.Host = newHost(p.t, host.Config{Key: p.key, Listen: p.addr}) }

func TestKeepsBootstrapAndWanted(t *testing.T) {
	bootstrap, wanted := newPeerAt(t), newPeerAt(t)
	infos := []peer.AddrInfo{info(wanted.Host)}
	h := newHost(t, host.Config{Bootstrap: []peer.AddrInfo{info(bootstrap.Host)}})
	var mu sync.Mutex
	run(t, h, func() []peer.AddrInfo {
		mu.Lock()
		defer mu.Unlock()
		return append(infos, info(h)) // it may name the host itself
	})
	both := func() bool { return connected(h, bootstrap.Host) && connected(h, wanted.Host) }
	p2ptest.Eventually(t, patient, both, "connected to both")
	p2ptest.Eventually(t, patient, func() bool { return h.ConnManager().IsProtected(wanted.ID(), "") }, "protected")

	bootstrap.die()
	wanted.die()
	p2ptest.Eventually(t, patient, func() bool { return len(h.Network().Peers()) == 0 }, "both are gone")
	bootstrap.back()
	wanted.back()
	p2ptest.Eventually(t, patient, both, "connected again")

	mu.Lock()
	infos = nil
	mu.Unlock()
	p2ptest.Eventually(t, patient, func() bool { return !h.ConnManager().IsProtected(wanted.ID(), "") }, "protection ends")
	if !h.ConnManager().IsProtected(bootstrap.ID(), "") {
		t.Error("the bootstrap peer lost its protection")
	}
}

func TestWarnsOnceAnOutage(t *testing.T) {
	var text lockedBuffer
	reg := prometheus.NewRegistry()
	gone := newPeerAt(t)
	gone.die()
	h := newHost(t, host.Config{
		Bootstrap:  []peer.AddrInfo{{ID: gone.ID(), Addrs: gone.addr}},
		Logger:     slog.New(slog.NewTextHandler(&text, nil)),
		Registerer: reg,
	})
	run(t, h, nil)
	p2ptest.Eventually(t, patient, func() bool { return metric(t, reg, "p2pnode_host_dials_total", "failed") >= 3 }, "three dials")
	if n := strings.Count(text.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings of one outage:\n%s", n, text.String())
	}
	gone.back()
	p2ptest.Eventually(t, patient, func() bool { return strings.Contains(text.String(), "reached again") }, "the end is logged")
	p2ptest.Eventually(t, patient, func() bool { return metric(t, reg, "p2pnode_host_dials_total", "ok") > 0 }, "a good dial")
	if n := metric(t, reg, "p2pnode_host_dials_total", "ok"); n != 1 {
		t.Errorf("%v good dials, want 1", n)
	}
	gone.die() // which takes a moment: a dial may still be good
	p2ptest.Eventually(t, patient, func() bool { return strings.Count(text.String(), "level=WARN") == 2 }, "the second outage is logged")
}

func TestSavedPeersAreDialledWithoutBootstrap(t *testing.T) {
	file := filepath.Join(t.TempDir(), "peers.json")
	far := newPeerAt(t)
	key := newKey(t)
	first := newHost(t, host.Config{Key: key, SavedPeersFile: file, Bootstrap: []peer.AddrInfo{info(far.Host)}})
	stop := run(t, first, nil)
	p2ptest.Eventually(t, patient, func() bool {
		_, err := first.Peerstore().Get(far.ID(), "AgentVersion")
		return err == nil
	}, "identified")
	stop()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	stat, err := os.Stat(file)
	if err != nil || stat.Mode().Perm() != 0o600 {
		t.Fatalf("saved peers: %v, error %v", stat, err)
	}

	second := newHost(t, host.Config{Key: key, SavedPeersFile: file})
	stop = run(t, second, nil)
	p2ptest.Eventually(t, patient, func() bool { return connected(second, far.Host) }, "connected to the saved peer")
	far.die()
	p2ptest.Eventually(t, patient, func() bool { return !connected(second, far.Host) }, "it is gone")
	far.back()
	p2ptest.Eventually(t, patient, func() bool { return connected(second, far.Host) }, "connected again")
	stop()
	if files, err := os.ReadDir(filepath.Dir(file)); err != nil || len(files) != 1 {
		t.Errorf("left beside the file: %v, error %v", files, err)
	}
}

func TestSavedPeersAreWrittenSoon(t *testing.T) {
	file := filepath.Join(t.TempDir(), "peers.json")
	far := newPeerAt(t)
	h := newHost(t, host.Config{SavedPeersFile: file})
	run(t, h, func() []peer.AddrInfo { return []peer.AddrInfo{info(far.Host)} })
	var saved []struct {
		ID    peer.ID
		Addrs []string
	}
	p2ptest.Eventually(t, patient, func() bool {
		text, err := os.ReadFile(file)
		return err == nil && json.Unmarshal(text, &saved) == nil && len(saved) == 1
	}, "saved while running")
	if saved[0].ID != far.ID() || len(saved[0].Addrs) != 1 || saved[0].Addrs[0] != far.addr[0].String() {
		t.Errorf("saved %v, want %s at %v", saved, far.ID(), far.addr)
	}
}

func TestDamagedSavedPeers(t *testing.T) {
	id := newHost(t, host.Config{}).ID()
	for _, text := range []string{"", "{", `{"a":1}`, `[{"id":"x"}]`, `[{"id":"` + id.String() + `","addrs":["/ip4/999"]}]`} {
		t.Run(text, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "peers.json")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			var log lockedBuffer
			far := newPeerAt(t)
			h := newHost(t, host.Config{SavedPeersFile: file, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			stop := run(t, h, func() []peer.AddrInfo { return []peer.AddrInfo{info(far.Host)} })
			p2ptest.Eventually(t, patient, func() bool { return connected(h, far.Host) }, "it starts")
			stop()
			if !strings.Contains(log.String(), file) {
				t.Errorf("the log does not name the file:\n%s", log.String())
			}
		})
	}
}

// lockedBuffer is a bytes.Buffer for a logger and a test at once.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func metric(t *testing.T, reg *prometheus.Registry, name, result string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() != name || result != "" && m.GetLabel()[0].GetValue() != result {
				continue
			}
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return 0
}
