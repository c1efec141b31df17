package node_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node"
)

// fetch returns status and body of a GET.
func fetch(t *testing.T, url string) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
	return resp.StatusCode, body
}

// TestUnreachableSupernode: a node whose supernode is not there serves at once,
// from the origin, and counts as ready when it has tried for a while.
func TestUnreachableSupernode(t *testing.T) {
	origin := p2ptest.NewOrigin(t)
	data := p2ptest.Bytes(1, 3<<20)
	url := origin.Add("/file", data)
	cfg := node.Config{
		DataDir: t.TempDir(), Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Proxy: "127.0.0.1:0", Admin: "127.0.0.1:0",
		Seed: true, OriginFallback: true, OriginAllow: []string{"127.0.0.0/8"},
		Supernodes: []string{"/ip4/127.0.0.1/tcp/1/p2p/12D3KooWDaQ129ewjMRyHWHepAyGAvvpPUQL5y88tmFouSQjgk3v"},
	}
	n, err := node.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	start := time.Now()
	go func() { ended <- n.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	if status, body := fetch(t, n.Info().Admin+"/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(string(body), "pool") {
		t.Errorf("readyz at start: %d %s", status, body)
	}
	if status, body := fetch(t, n.Info().Proxy+"/url/"+url); status != http.StatusOK || !bytes.Equal(body, data) {
		t.Errorf("read at start: %d, %d bytes: %.200s", status, len(body), body)
	}
	if d := time.Since(start); d > 4*time.Second {
		t.Errorf("the read took %s: it waited for the supernode", d)
	}
	<-n.Ready()
	if status, body := fetch(t, n.Info().Admin+"/readyz"); status != http.StatusOK {
		t.Errorf("readyz later: %d %s", status, body)
	}
}

// TestNoFallback: without a seed and without the last resort a read fails, with
// the reason as text and no byte as content.
func TestNoFallback(t *testing.T) {
	origin := p2ptest.NewOrigin(t)
	url := origin.Add("/file", p2ptest.Bytes(1, 1<<20))
	n := startNode(t, node.Config{OriginAllow: []string{"127.0.0.0/8"}})
	status, body := fetch(t, n.Info().Proxy+"/url/"+url)
	if status != http.StatusBadGateway || !strings.Contains(string(body), "no source") {
		t.Errorf("%d %s", status, body)
	}
	if n := origin.Requests("/file"); n != 0 {
		t.Errorf("%d requests to the origin", n)
	}
}

// TestForbiddenTarget: what no seed may fetch passes through for a client of
// this machine, who could go there himself.
func TestForbiddenTarget(t *testing.T) {
	origin := p2ptest.NewOrigin(t)
	data := p2ptest.Bytes(1, 2<<20)
	url := origin.Add("/file", data)
	n := startNode(t, node.Config{Seed: true, OriginFallback: true})
	if status, body := fetch(t, n.Info().Proxy+"/url/"+url); status != http.StatusOK || !bytes.Equal(body, data) {
		t.Errorf("%d, %d bytes", status, len(body))
	}
	if _, body := fetch(t, n.Info().Admin+"/v1/tasks"); strings.TrimSpace(string(body)) != "[]" {
		t.Errorf("tasks: %s", body)
	}
}

// TestStatus: the admin API tells what the node is and has.
func TestStatus(t *testing.T) {
	origin := p2ptest.NewOrigin(t)
	data := p2ptest.Bytes(1, 2<<20+5)
	url := origin.Add("/file", data)
	n := startNode(t, node.Config{Seed: true, OriginAllow: []string{"127.0.0.0/8"}, Site: "here"})
	if status, _ := fetch(t, n.Info().Proxy+"/url/"+url); status != http.StatusOK {
		t.Fatal(status)
	}
	var st node.Status
	_, body := fetch(t, n.Info().Admin+"/v1/status")
	if err := json.Unmarshal(body, &st); err != nil {
		t.Fatal(err)
	}
	if st.Peer != n.Info().Peer || st.Site != "here" || !st.Ready || len(st.Pool) != 1 || st.Store.Files != 1 || st.Supernode == nil {
		t.Errorf("status %+v", st)
	}
	p2ptest.Eventually(t, 10*time.Second, func() bool {
		var tasks []node.TaskStatus
		_, body := fetch(t, n.Info().Admin+"/v1/tasks")
		if err := json.Unmarshal(body, &tasks); err != nil {
			t.Fatal(err)
		}
		return len(tasks) == 1 && tasks[0].Held == int64(len(data)) && tasks[0].Role == "head" && tasks[0].URL == url
	}, "all blocks in /v1/tasks")
	_, body = fetch(t, n.Info().Admin+"/metrics")
	for _, name := range []string{"p2pnode_read_origin_bytes_total", "p2pnode_seed_blocks_stored_total", "p2pnode_proxy_", `part="supernode"`} {
		if !strings.Contains(string(body), name) {
			t.Errorf("metrics lack %s", name)
		}
	}
}

// TestChangedOrigin: a response is of one generation, and the next is current.
func TestChangedOrigin(t *testing.T) {
	origin := p2ptest.NewOrigin(t)
	one, two := p2ptest.Bytes(1, 3<<20), p2ptest.Bytes(2, 2<<20)
	url := origin.Add("/file", one)
	n := startNode(t, node.Config{Seed: true, OriginAllow: []string{"127.0.0.0/8"}})
	gateway := n.Info().Proxy + "/url/" + url
	get(t, gateway, 0, 1000) // block 0 is held
	origin.Add("/file", two)
	// The rest of the first generation is gone: the response that began with it
	// is cut short, the next is of the second.
	resp, err := http.Get(gateway) //nolint:noctx // bounded by the test
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err == nil || len(body) > 1<<20 || !bytes.Equal(body, one[:len(body)]) {
		t.Errorf("during the change: %d bytes, %v; want at most the block that is held, and no end", len(body), err)
	}
	if status, body := fetch(t, gateway); status != http.StatusOK || !bytes.Equal(body, two) {
		t.Errorf("after the change: %d, %d bytes", status, len(body))
	}
}

// TestDigestOfAnotherUpstream: a blob is one task whatever the upstream, but what
// one upstream says it is counts for others only once its digest was checked.
func TestDigestOfAnotherUpstream(t *testing.T) {
	data := p2ptest.Bytes(1, 2<<20+7)
	for _, digest := range []string{fmt.Sprintf("sha256:%x", sha256.Sum256(data)), fmt.Sprintf("sha512:%x", sha512.Sum512(data))} {
		t.Run(digest[:6], func(t *testing.T) { testDigestOfAnotherUpstream(t, data, digest) })
	}
}

func testDigestOfAnotherUpstream(t *testing.T, data []byte, digest string) {
	garbage := p2ptest.Bytes(2, len(data))
	path := "/v2/lib/x/blobs/" + digest
	evil, good, gone := p2ptest.NewOrigin(t), p2ptest.NewOrigin(t), p2ptest.NewOrigin(t)
	evilURL, goodURL, goneURL := evil.Add(path, garbage), good.Add(path, data), gone.URL+path
	n := startNode(t, node.Config{Seed: true, OriginAllow: []string{"127.0.0.0/8"}})
	face := n.Info().Proxy + "/url/"
	if status, body := fetch(t, face+evilURL); status != http.StatusOK || !bytes.Equal(body, garbage) {
		t.Fatalf("evil upstream: %d, %d bytes", status, len(body))
	}
	if status, body := fetch(t, face+goodURL); status != http.StatusOK || !bytes.Equal(body, data) {
		t.Errorf("good upstream after the evil one: %d, right bytes %t", status, bytes.Equal(body, data))
	}
	p2ptest.Eventually(t, 10*time.Second, func() bool {
		_, metrics := fetch(t, n.Info().Admin+"/metrics")
		return strings.Contains(string(metrics), `p2pnode_seed_wrong_digests_total{part="node"} 1`)
	}, "the garbage is deleted")
	// The proxy remembers for a minute that the swarm did not carry the task:
	// another node has no such memory.
	m := startNode(t, node.Config{Seed: true, OriginAllow: []string{"127.0.0.0/8"}})
	face = m.Info().Proxy + "/url/"
	if status, body := fetch(t, face+goodURL); status != http.StatusOK || !bytes.Equal(body, data) {
		t.Fatalf("good upstream: %d, %d bytes", status, len(body))
	}
	p2ptest.Eventually(t, 10*time.Second, func() bool {
		_, metrics := fetch(t, m.Info().Admin+"/metrics")
		return strings.Contains(string(metrics), `p2pnode_seed_checked_digests_total{part="node"} 1`)
	}, "the digest is checked")
	if status, body := fetch(t, face+goneURL); status != http.StatusOK || !bytes.Equal(body, data) {
		t.Errorf("another upstream, which has nothing: %d, right bytes %t", status, bytes.Equal(body, data))
	}
}

// TestManifestOfAnotherUpstream: the type of a manifest is what its own registry
// says, not what another does that has the same bytes; a blob has no header
// fields of any registry.
func TestManifestOfAnotherUpstream(t *testing.T) {
	const right = "application/vnd.oci.image.manifest.v1+json"
	data := p2ptest.Bytes(2, 5000)
	n := startNode(t, node.Config{Seed: true, OriginAllow: []string{"127.0.0.0/8"}})
	sums := []string{fmt.Sprintf("sha256:%x", sha256.Sum256(data)), fmt.Sprintf("sha512:%x", sha512.Sum512(data))}
	for _, path := range []string{"manifests/" + sums[0], "manifests/" + sums[1], "blobs/" + sums[0], "blobs/" + sums[1]} {
		kind, _, _ := strings.Cut(path, "/")
		path = "/v2/lib/x/" + path
		evil, good := p2ptest.NewOrigin(t), p2ptest.NewOrigin(t)
		evilURL := evil.Put(path, p2ptest.Object{Data: data, ContentType: "text/html", Header: http.Header{"X-Evil": {"1"}}})
		goodURL := good.Put(path, p2ptest.Object{Data: data, ContentType: right})
		if status, _ := fetch(t, n.Info().Proxy+"/url/"+evilURL); status != http.StatusOK {
			t.Fatalf("%s: %d", kind, status)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.Info().Proxy+"/url/"+goodURL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		want := map[string]string{"manifests": right, "blobs": "application/octet-stream"}[kind]
		got := resp.Header.Get("Content-Type")
		if err != nil || !bytes.Equal(body, data) || got != want && got != right || resp.Header.Get("X-Evil") != "" {
			t.Errorf("%s: %d, %d bytes, %q, evil %q, %v", kind, resp.StatusCode, len(body), got, resp.Header.Get("X-Evil"), err)
		}
	}
}

// TestOriginWithoutRanges: such an origin is read once, from its start, whatever
// was asked first.
func TestOriginWithoutRanges(t *testing.T) {
	for _, first := range []string{"HEAD", "suffix", "middle", "whole"} {
		t.Run(first, func(t *testing.T) {
			origin := p2ptest.NewOrigin(t)
			data := p2ptest.Bytes(1, 20<<20)
			url := origin.Put("/file", p2ptest.Object{Data: data, ETag: `"1"`, NoRanges: true})
			n := startNode(t, node.Config{Seed: true, OriginAllow: []string{"127.0.0.0/8"}})
			face := n.Info().Proxy + "/url/" + url
			switch first {
			case "HEAD":
				resp, err := http.Head(face) //nolint:noctx // bounded by the test
				if err != nil || resp.ContentLength != int64(len(data)) {
					t.Fatalf("HEAD: %v", err)
				}
				_ = resp.Body.Close()
			case "suffix":
				get(t, face, int64(len(data))-100, 100)
			case "middle":
				get(t, face, 9<<20, 1000)
			}
			if status, body := fetch(t, face); status != http.StatusOK || !bytes.Equal(body, data) {
				t.Fatalf("%d, %d bytes", status, len(body))
			}
			// What finds out that there are no ranges is left after its head.
			if n := origin.Bytes("/file"); n > int64(len(data))+8<<20 {
				t.Errorf("the origin sent %d bytes for a file of %d", n, len(data))
			}
		})
	}
}
