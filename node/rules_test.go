package node_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node"
)

// TestFilterQuery: a parameter that changes nothing does not make another file,
// and reaches the origin all the same.
func TestFilterQuery(t *testing.T) {
	origin := p2ptest.NewOrigin(t)
	url := origin.Add("/file", p2ptest.Bytes(1, 1<<20))
	n := startNode(t, node.Config{Seed: true, OriginAllow: []string{"127.0.0.0/8"}, FilterQuery: []string{"utm_source"}})
	for _, query := range []string{"?utm_source=1&v=1", "?utm_source=2&v=1", "?v=1"} {
		if status, _ := fetch(t, n.Info().Proxy+"/url/"+url+query); status != http.StatusOK {
			t.Fatal(status)
		}
	}
	if got := origin.Requests("/file"); got != 1 {
		t.Errorf("%d requests to the origin", got)
	}
	if status, _ := fetch(t, n.Info().Proxy+"/url/"+url+"?v=2"); status != http.StatusOK || origin.Requests("/file") == 1 {
		t.Error("another parameter made no other file")
	}
}

// TestSwarmFilter: the list of the supernode decides the names of files on all
// nodes, whatever their own says; one that starts again with another list
// renames them for all.
func TestSwarmFilter(t *testing.T) {
	cfg := node.SupernodeConfig{
		DataDir: t.TempDir(), Admin: "127.0.0.1:0", Beat: 200 * time.Millisecond,
		Listen: []string{"/ip4/127.65.0.3/tcp/0"}, FilterQuery: []string{"utm_source"},
	}
	super, stop := startSupernode(t, cfg)
	origin := p2ptest.NewOrigin(t)
	body := p2ptest.Bytes(1, 3<<20)
	url := origin.Add("/file", body)
	member := node.Config{Supernodes: super.Info().Addrs, Seed: true, OriginAllow: []string{"127.0.0.0/8"}, Beat: cfg.Beat}
	one := startNode(t, member)
	member.FilterQuery = []string{"v"}
	two := startNode(t, member)
	named := func(query ...string) {
		t.Helper()
		for _, n := range []*node.Node{one, two} {
			eventually(t, "the supernode's filter, and the pool", func() bool {
				st := n.ReadStatus()
				return slices.Equal(st.FilterQuery, query) && len(st.Pool) == 2
			})
		}
	}
	named("utm_source")
	both := &vault{t: t, origin: origin, nodes: []*node.Node{one, two}}
	fetched(t, one, url+"?v=1&utm_source=1", body)
	fetched(t, two, url+"?v=1&utm_source=2", body)
	both.wantCopies("/file", body, 1) // or the two nodes do not share
	fetched(t, two, url+"?v=2", body)
	both.wantCopies("/file", body, 2) // or the node's own list was used

	stop()
	cfg.Listen = []string{strings.Split(super.Info().Addrs[0], "/p2p/")[0]}
	cfg.FilterQuery = []string{"v", "utm_source"}
	cfg.Registerer, cfg.Gatherer = nil, nil
	_, _ = startSupernode(t, cfg)
	named("utm_source", "v")
	fetched(t, one, url+"?v=3&utm_source=1", body)
	fetched(t, two, url+"?v=4", body)
	both.wantCopies("/file", body, 3)
}

func startSupernode(t *testing.T, cfg node.SupernodeConfig) (*node.SupernodeNode, func()) {
	t.Helper()
	n, err := node.NewSupernode(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return n, run(t, n)
}

func TestJudge(t *testing.T) {
	judge := func(c node.Config, url string) node.Verdict {
		t.Helper()
		v, err := c.Judge(http.MethodGet, url, -1)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	const url = "http://origin.test/file?utm_source=1"
	one, two := judge(node.Config{FilterQuery: []string{"utm_source", "x"}}, url), judge(node.Config{FilterQuery: []string{"x", "utm_source", "x"}}, url)
	if one.Task != two.Task || one.TaskURL != "http://origin.test/file" {
		t.Errorf("%+v, %+v", one, two)
	}
	// Nodes with other lists must not take one file for the other.
	if other := judge(node.Config{FilterQuery: []string{"utm_source"}}, url); other.Task == one.Task || other.TaskURL != one.TaskURL {
		t.Errorf("%+v", other)
	}
	var field *node.FieldError
	if _, err := (node.Config{Rules: []node.Rule{{Action: "x"}}}).Judge("GET", url, -1); !errors.As(err, &field) || field.Field != "rules" {
		t.Errorf("%v", err)
	}
	if _, err := (node.Config{FilterQuery: []string{"a=b"}}).Judge("GET", url, -1); !errors.As(err, &field) || field.Field != "filter-query" {
		t.Errorf("%v", err)
	}
}

// TestFilteredCredential: a parameter that lets somebody in is not filtered.
func TestFilteredCredential(t *testing.T) {
	for _, name := range []string{"token", "access_token", "X-Amz-Signature", "sig", "Signature", "api_key", "password"} {
		cfg := node.Config{DataDir: t.TempDir(), FilterQuery: []string{name}}
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "filter-query") {
			t.Errorf("%s: %v", name, err)
		}
	}
	cfg := node.Config{DataDir: t.TempDir(), FilterQuery: []string{"utm_source", "keyboard", "v"}}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}
