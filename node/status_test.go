package node_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node"
	"github.com/p2pnode/p2pnode/node/host"
	"github.com/p2pnode/p2pnode/supernode"
)

// TestStatusShowsSources: whom a node reads from, how fast, and whether the
// breaker is open.
func TestStatusShowsSources(t *testing.T) {
	data := p2ptest.Bytes(1, 1<<20)
	origin := p2ptest.NewOrigin(t)
	url := origin.Add("/file", data)
	s := startNode(t, node.Config{Seed: true, Site: "here", OriginAllow: []string{"127.0.0.0/8"}})
	r := startNode(t, node.Config{Supernodes: []string{s.Info().Supernode}, Site: "here"})
	if status, body := fetch(t, r.Info().Proxy+"/url/"+url); status != http.StatusOK || !bytes.Equal(body, data) {
		t.Fatalf("read: %d, %d bytes", status, len(body))
	}
	sources := func() []node.SourceStatus {
		var got node.Status
		if _, body := fetch(t, r.Info().Admin+"/v1/status"); json.Unmarshal(body, &got) != nil {
			t.Fatalf("status: %s", body)
		}
		return got.Sources
	}
	p2ptest.Eventually(t, 10*time.Second, func() bool { return len(sources()) > 0 }, "a source")
	got := sources()[0]
	if got.Peer.String() != s.Info().Peer || got.Site != "here" || !got.Near || got.Breaker != "closed" || got.FirstByteMs <= 0 || got.Failures != 0 {
		t.Errorf("source %+v", got)
	}
}

// TestPeers: whom a node is connected to, how, and what they are to it.
func TestPeers(t *testing.T) {
	s := startNode(t, node.Config{Seed: true, Site: "here"})
	r := startNode(t, node.Config{Supernodes: []string{s.Info().Supernode}})
	peers := func() map[string]node.PeerStatus {
		var list []node.PeerStatus
		if _, body := fetch(t, r.Info().Admin+"/v1/peers"); json.Unmarshal(body, &list) != nil {
			t.Fatalf("peers: %s", body)
		}
		got := map[string]node.PeerStatus{}
		for _, p := range list {
			got[p.Peer.String()] = p
		}
		return got
	}
	super := s.Info().Supernode[strings.LastIndex(s.Info().Supernode, "/")+1:]
	p2ptest.Eventually(t, 20*time.Second, func() bool {
		got := peers()
		return got[super].Role == "supernode" && got[s.Info().Peer].Role == "pool"
	}, "the supernode and the seed among the peers")
	got := peers()
	if p := got[super]; p.How != host.Direct || p.Transport == "" || p.Addr == "" || p.Relay != "" {
		t.Errorf("supernode %+v", p)
	}
	if p := got[s.Info().Peer]; p.How != host.Direct || p.Site != "here" {
		t.Errorf("seed %+v", p)
	}
}

// TestLoadIsTold: a supernode hears what its members send and get.
func TestLoadIsTold(t *testing.T) {
	data := p2ptest.Bytes(2, 3<<20)
	origin := p2ptest.NewOrigin(t)
	url := origin.Add("/file", data)
	s := startNode(t, node.Config{Seed: true, OriginAllow: []string{"127.0.0.0/8"}, Beat: 1500 * time.Millisecond})
	r := startNode(t, node.Config{Supernodes: []string{s.Info().Supernode}, Beat: 1500 * time.Millisecond})
	known := func() map[string]supernode.MemberStatus {
		var got node.Status
		if _, body := fetch(t, s.Info().Admin+"/v1/status"); json.Unmarshal(body, &got) != nil || got.Supernode == nil {
			t.Fatalf("status: %s", body)
		}
		members := map[string]supernode.MemberStatus{}
		for _, m := range got.Supernode.Members {
			members[m.Peer.String()] = m
		}
		return members
	}
	p2ptest.Eventually(t, 20*time.Second, func() bool { return len(known()) == 2 }, "both are members")
	if status, body := fetch(t, r.Info().Proxy+"/url/"+url); status != http.StatusOK || !bytes.Equal(body, data) {
		t.Fatalf("read: %d, %d bytes", status, len(body))
	}
	var sent, got bool // the figures are of one period
	p2ptest.Eventually(t, 20*time.Second, func() bool {
		members := known()
		sent = sent || members[s.Info().Peer].UploadRate > 0
		got = got || members[r.Info().Peer].DownloadRate > 0
		return sent && got
	}, "the seed's upload and the reader's download")
}

// TestUplinkRate: a node gives and takes no faster than its bounds, which are
// changed while it runs.
func TestUplinkRate(t *testing.T) {
	const rate, size = 1 << 20, 2 << 20
	origin := p2ptest.NewOrigin(t)
	s := startNode(t, node.Config{Seed: true, OriginAllow: []string{"127.0.0.0/8"}, Uplink: node.Uplink{Rate: rate}})
	r := startNode(t, node.Config{Supernodes: []string{s.Info().Supernode}})
	// What may come at once after a pause does not count, and the last piece waits
	// for nothing behind it.
	least := time.Second * (size - 512<<10) / rate
	read := func(name string, from *node.Node) time.Duration {
		data := p2ptest.Bytes(3, size)
		url := origin.Add("/"+name, data)
		start := time.Now()
		if status, body := fetch(t, from.Info().Proxy+"/url/"+url); status != http.StatusOK || !bytes.Equal(body, data) {
			t.Fatalf("%s: %d, %d bytes", name, status, len(body))
		}
		return time.Since(start)
	}
	if took := read("down", s); took < least {
		t.Errorf("%d bytes came in %v, sooner than in %v", size, took, least)
	}
	limits := func(text string) {
		resp, err := http.Post(s.Info().Admin+"/v1/limits", "application/json", strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", text, resp.Status)
		}
	}
	limits(`{"down_bytes_per_second": 0}`)
	if took := read("up", r); took < least {
		t.Errorf("%d bytes were sent in %v, sooner than in %v", size, took, least)
	}
}
