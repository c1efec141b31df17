package node_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node"
)

// TestPrivateGrace: who gets a private file while its origin cannot be reached,
// and all grants have ended, is what a rule of the seeds says.
func TestPrivateGrace(t *testing.T) {
	const life = 6 * time.Second // long enough for what is read with one grant
	v := newVault(t, func(c *node.Config) {
		c.GrantLife = life
		c.Rules = []node.Rule{
			{URL: "/grace$", Action: "p2p", Private: "grace(1h)"},
			{URL: "/late$", Action: "p2p", Private: "grace(1s)"},
			{URL: "/open$", Action: "p2p", Private: "open"},
			{URL: "/strict$", Action: "p2p", Private: "strict"},
		}
	})
	data := p2ptest.Bytes(31, 1<<20+3)
	paths := []string{"/grace", "/late", "/open", "/strict", "/none"}
	good, other := http.Header{"Authorization": {"good"}}, http.Header{"Authorization": {"other"}}
	v.allow(true, "good")
	for _, path := range paths {
		address := v.put(path, data)
		for n := range v.nodes {
			v.wantFile(n, address, good, data)
		}
	}
	v.origin.SetFault(func(*http.Request) p2ptest.Fault { return p2ptest.Fault{Status: http.StatusServiceUnavailable} })
	over := time.Now().Add(life + time.Second)
	p2ptest.Eventually(t, time.Minute, func() bool { return time.Now().After(over) }, "the grants end")
	for _, path := range paths {
		address := v.origin.URL + path
		for n := range v.nodes {
			for who, header := range map[string]http.Header{"good": good, "other": other, "none": nil} {
				want := path == "/grace" && who == "good" || path == "/open" && who != "none"
				res, body := askProxy(t, v.nodes[n], address, header)
				if got := res.StatusCode == http.StatusOK && len(body) == len(data); got != want || !got && res.StatusCode < 500 {
					t.Errorf("%s with %s credentials at node %d: %s, %d bytes", path, who, n, res.Status, len(body))
				}
			}
		}
		v.wantOnce(path, data)
	}
}

// TestPrefetchRule: how much of a file is brought in when a part of it is read is
// what a rule says, else what the node does.
func TestPrefetchRule(t *testing.T) {
	const size = 5 << 20
	origin := p2ptest.NewOrigin(t)
	n := startNode(t, node.Config{
		Seed: true, OriginAllow: []string{"127.0.0.0/8"}, Replicas: 1, Fill: node.FillAsked,
		Rules: []node.Rule{{URL: "/whole", Action: "p2p", Prefetch: "whole"}},
	})
	all := startNode(t, node.Config{
		Seed: true, OriginAllow: []string{"127.0.0.0/8"}, Replicas: 1, Fill: node.FillWhole,
		Rules: []node.Rule{{URL: "/asked", Action: "p2p", Prefetch: "asked"}},
	})
	for _, path := range []string{"/asked", "/whole"} {
		for _, n := range []*node.Node{n, all} {
			get(t, n.Info().Proxy+"/url/"+origin.Add(path, p2ptest.Bytes(32, size)), 2<<20, 10)
		}
	}
	for _, n := range []*node.Node{n, all} {
		p2ptest.Eventually(t, 30*time.Second, func() bool { return usedBytes(t, n) >= size+1<<20 }, "the rest of one file is there")
		if used := usedBytes(t, n); used != size+1<<20 {
			t.Errorf("%d bytes are held, want all of one file and a block of the other", used)
		}
	}
}
