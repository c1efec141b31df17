package node_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node"
)

// A file that is many times larger than the caches is read right through a seed
// and through another node: by one reader at the price of one copy, since
// nothing goes before it was read, and by many at once.
func TestFileLargerThanTheCache(t *testing.T) {
	const fileSize, cache = 48 << 20, 12 << 20
	data := p2ptest.Bytes(1, fileSize)
	origin := p2ptest.NewOrigin(t)
	s := startNode(t, node.Config{Seed: true, OriginAllow: []string{"127.0.0.0/8"}, Replicas: 1, CacheSize: cache})
	r := startNode(t, node.Config{Supernodes: []string{s.Info().Supernode}, Replicas: 1, CacheSize: cache})
	for k, n := range []*node.Node{s, r} {
		path := fmt.Sprintf("/file%d", k)
		url := n.Info().Proxy + "/url/" + origin.Add(path, data)
		wantRange(t, url, data, 0, fileSize)
		if n := origin.Bytes(path); n != fileSize {
			t.Errorf("node %d: the origin sent %d bytes to one reader", k, n)
		}
		var wg sync.WaitGroup
		for j := range uint64(6) {
			rng := rand.New(rand.NewPCG(j, uint64(k)))
			wg.Go(func() {
				for range 6 {
					off := rng.IntN(fileSize)
					wantRange(t, url, data, off, 1+rng.IntN(min(6<<20, fileSize-off)))
				}
			})
		}
		wg.Wait()
	}
	// What goes first is not exactly what was read for longest: other files are read
	// until nothing of this one is left.
	left := func() bool { return holds(t, s, "/file0") || holds(t, r, "/file0") }
	for i := 0; i == 0 || left(); i++ {
		if i == 20 {
			t.Fatal("a file that nobody reads stays in caches through which 20 times as much has gone")
		}
		url := r.Info().Proxy + "/url/" + origin.Add(fmt.Sprintf("/other%d", i), data[:cache])
		wantRange(t, url, data, 0, cache)
		wantRange(t, url, data, 0, cache)
	}
	p2ptest.Eventually(t, 10*time.Second, func() bool { return holders(t, s, "/file0") == 0 },
		"a node counts as a holder of what it has evicted")
}

// holds reports whether a node has some of the file at path.
func holds(t *testing.T, n *node.Node, path string) bool {
	t.Helper()
	var tasks []node.TaskStatus
	if _, body := fetch(t, n.Info().Admin+"/v1/tasks"); json.Unmarshal(body, &tasks) != nil {
		t.Fatalf("tasks: %s", body)
	}
	return slices.ContainsFunc(tasks, func(s node.TaskStatus) bool { return strings.HasSuffix(s.URL, path) && s.Held > 0 })
}

// holders returns how many nodes the supernode in n believes to hold a part of
// the file at path.
func holders(t *testing.T, n *node.Node, path string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.Info().Admin+"/v1/status", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var status node.Status
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
		t.Fatal(err)
	}
	for _, task := range status.Supernode.Tasks {
		if strings.HasSuffix(task.URL, path) {
			return task.Holders
		}
	}
	return 0
}

// wantRange fails the test unless a URL answers a range with the bytes of data.
func wantRange(t *testing.T, url string, data []byte, off, n int) {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Error(err)
		return
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusPartialContent || !bytes.Equal(body, data[off:off+n]) {
		t.Errorf("bytes %d to %d: status %d, %d bytes, %v", off, off+n, resp.StatusCode, len(body), err)
	}
}

// TestFreeIsTold: heartbeat and status say how much can be stored before
// something is evicted.
func TestFreeIsTold(t *testing.T) {
	const cache, size = 16 << 20, 3<<20 + 5
	origin := p2ptest.NewOrigin(t)
	url := origin.Add("/file", p2ptest.Bytes(1, size))
	n := startNode(t, node.Config{Seed: true, OriginAllow: []string{"127.0.0.0/8"}, CacheSize: cache})
	told := func() [4]int64 {
		var status node.Status
		_, body := fetch(t, n.Info().Admin+"/v1/status")
		if err := json.Unmarshal(body, &status); err != nil {
			t.Fatal(err)
		}
		beat := n.Beat()
		return [4]int64{beat.Free, beat.Capacity, status.Store.Free, status.Store.Capacity}
	}
	if got := told(); got != [4]int64{cache, cache, cache, cache} {
		t.Errorf("at first %v", got)
	}
	fetch(t, n.Info().Proxy+"/url/"+url)
	p2ptest.Eventually(t, 10*time.Second, func() bool {
		return told() == [4]int64{cache - size, cache, cache - size, cache}
	}, "what was stored is not free")
}

// A node that is no seed announces in the DHT what it has from seeds, and not
// what it had to read from the origin itself, of which peers believe nothing.
func TestOwnSignaturesAreNotAnnounced(t *testing.T) {
	origin := p2ptest.NewOrigin(t)
	allow := []string{"127.0.0.0/8"}
	seed, stop := startStoppable(t, node.Config{Seed: true, OriginAllow: allow})
	reg := prometheus.NewRegistry()
	reader := startNode(t, node.Config{Supernodes: []string{seed.Info().Supernode}, OriginFallback: true, OriginAllow: allow, Registerer: reg, Gatherer: reg})
	read := func(path string) {
		t.Helper()
		data := p2ptest.Bytes(1, 3<<20)
		if status, body := fetch(t, reader.Info().Proxy+"/url/"+origin.Add(path, data)); status != http.StatusOK || !bytes.Equal(body, data) {
			t.Fatalf("%s: status %d, %d bytes", path, status, len(body))
		}
		p2ptest.Eventually(t, 10*time.Second, func() bool {
			_, body := fetch(t, reader.Info().Admin+"/v1/tasks")
			var tasks []struct {
				URL        string
				Size, Held int64
			}
			if err := json.Unmarshal(body, &tasks); err != nil {
				t.Fatal(err)
			}
			for _, k := range tasks {
				if strings.HasSuffix(k.URL, path) {
					return k.Held == k.Size
				}
			}
			return false
		}, path+" is not held")
	}
	announced := func() float64 { return metric(t, reader, `p2pnode_locate_dht_provided_entries{part="node"}`) }
	read("/seeded")
	p2ptest.Eventually(t, 10*time.Second, func() bool { return announced() == 1 }, "a whole file is not announced")
	stop()
	read("/alone")
	read("/alone-too") // by now the one before is told of
	if n := announced(); n != 1 {
		t.Errorf("%v files are announced, want the one from a seed", n)
	}
}

// Nodes that are in no pool keep connections to one another too, so that gossip
// reaches them not only through the few who are.
func TestNeighboursBeyondThePool(t *testing.T) {
	seed := startNode(t, node.Config{Seed: true})
	var others []*node.Node
	for range 4 {
		others = append(others, startNode(t, node.Config{Supernodes: []string{seed.Info().Supernode}}))
	}
	for i, n := range others {
		p2ptest.Eventually(t, 30*time.Second, func() bool {
			return slices.ContainsFunc(others, func(o *node.Node) bool {
				id, err := peer.Decode(o.Info().Peer)
				return err == nil && o != n && n.Keeps(id)
			})
		}, "node", i, "keeps to the pool")
	}
}
