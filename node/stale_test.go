package node_test

import (
	"bytes"
	"net/http"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node"
	"github.com/prometheus/client_golang/prometheus"
)

// metric returns the value of a series of a node, 0 where there is none.
func metric(t *testing.T, n *node.Node, series string) float64 {
	t.Helper()
	_, body := fetch(t, n.Info().Admin+"/metrics")
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindSubmatch(body)
	if m == nil {
		return 0
	}
	v, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// source reads a whole file through a node, wants its bytes, and returns where
// the first came from.
func source(t *testing.T, n *node.Node, url string, data []byte) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.Info().Proxy+"/url/"+url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil || resp.StatusCode != http.StatusOK || !bytes.Equal(body.Bytes(), data) {
		t.Errorf("%s: status %d, %d bytes, %v", url, resp.StatusCode, body.Len(), err)
	}
	return resp.Header.Get("P2pnode-Source")
}

// TestEvictedHolder: with its seed gone, a file is read from a holder that the
// DHT names; one that has evicted it since says that it is not there, and the
// reader goes elsewhere.
func TestEvictedHolder(t *testing.T) {
	origin := p2ptest.NewOrigin(t)
	kept, gone, large := p2ptest.Bytes(1, 2<<20), p2ptest.Bytes(2, 2<<20), p2ptest.Bytes(3, 12<<20)
	keptURL, goneURL, largeURL := origin.Add("/kept", kept), origin.Add("/gone", gone), origin.Add("/large", large)
	super := startNode(t, node.Config{})
	start := func(seed bool) (*node.Node, func()) {
		reg := prometheus.NewRegistry()
		return startStoppable(t, node.Config{
			Seed: seed, Supernodes: []string{super.Info().Supernode}, OriginAllow: []string{"127.0.0.0/8"}, OriginFallback: true,
			CacheSize: 8 << 20, Registerer: reg, Gatherer: reg,
		})
	}
	_, stopSeed := start(true)
	holder, _ := start(false)
	reader, _ := start(false)
	for url, data := range map[string][]byte{keptURL: kept, goneURL: gone} {
		if got := source(t, holder, url, data); got != "peer" {
			t.Errorf("%s came from %s", url, got)
		}
	}
	p2ptest.Eventually(t, 10*time.Second, func() bool {
		return metric(t, holder, `p2pnode_locate_dht_provides_total{outcome="ok",part="node"}`) == 2
	}, "the DHT knows who holds the files")
	stopSeed()
	if got := source(t, reader, keptURL, kept); got != "peer" {
		t.Errorf("what is held came from %s", got)
	}
	source(t, holder, largeURL, large)
	const notFound = `p2pnode_rangeread_server_answers_total{part="node",status="NOT_FOUND"}`
	before := metric(t, holder, notFound)
	if got := source(t, reader, goneURL, gone); got != "origin" {
		t.Errorf("what is held no more came from %s", got)
	}
	if got := metric(t, holder, notFound) - before; got == 0 {
		t.Error("who holds it no more was not asked")
	}
}
