package node_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node"
	"github.com/p2pnode/p2pnode/seed"
)

// TestFillWhole: of a file of which a part was read the rest comes in behind, from
// the origin at a seed and from the seed at another node, each byte once.
func TestFillWhole(t *testing.T) {
	const size = 5*content.BlockSize + 77
	origin := p2ptest.NewOrigin(t)
	url := origin.Add("/file", p2ptest.Bytes(9, size))
	s := startNode(t, node.Config{Seed: true, OriginAllow: []string{"127.0.0.0/8"}, Replicas: 1, Fill: node.FillWhole})
	r := startNode(t, node.Config{Supernodes: []string{s.Info().Supernode}, Replicas: 1, Fill: node.FillWhole, FillRate: 64 << 20, FillTasks: 1})
	asked := startNode(t, node.Config{Supernodes: []string{s.Info().Supernode}, Replicas: 1})
	for _, n := range []*node.Node{r, s, asked} {
		get(t, n.Info().Proxy+"/url/"+url, 2*content.BlockSize, 10)
	}
	used := func(n *node.Node) int64 { return usedBytes(t, n) }
	p2ptest.Eventually(t, 20*time.Second, func() bool { return used(s) == size && used(r) == size }, "both hold all of it")
	p2ptest.Eventually(t, 20*time.Second, func() bool { return used(asked) > 0 }, "the third holds what is asked")
	if n := used(asked); n != content.BlockSize {
		t.Errorf("%d bytes are held where what is asked is brought in", n)
	}
	if n := origin.Bytes("/file"); n != size {
		t.Errorf("the origin sent %d bytes, of a file of %d", n, size)
	}
}

// TestFillValidates: a policy that does not exist is refused, and names the flag.
func TestFillValidates(t *testing.T) {
	for field, cfg := range map[string]node.Config{
		"fill": {Fill: "all"}, "fill-rate": {FillRate: -1}, "fill-tasks": {FillTasks: -1},
	} {
		cfg.DataDir = "/d"
		var wrong *node.FieldError
		if err := cfg.Validate(); !errors.As(err, &wrong) || wrong.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// usedBytes is what a node says that it holds.
func usedBytes(t *testing.T, n *node.Node) int64 {
	t.Helper()
	var status struct {
		Store seed.Stats `json:"store"`
	}
	_, body := fetch(t, n.Info().Admin+"/v1/status")
	if err := json.Unmarshal(body, &status); err != nil {
		t.Fatal(err)
	}
	return status.Store.Used
}
