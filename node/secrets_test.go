package node_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node"
)

// buffer is where logs go.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// gossip hears what a supernode publishes of assignments, as any member does.
func gossip(t *testing.T, h host.Host, swarm string) *buffer {
	t.Helper()
	ps, err := pubsub.NewGossipSub(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	topic, err := ps.Join("/p2pnode/" + swarm + "/assignments/1")
	if err != nil {
		t.Fatal(err)
	}
	sub, err := topic.Subscribe()
	if err != nil {
		t.Fatal(err)
	}
	heard := &buffer{}
	go func() {
		for {
			m, err := sub.Next(t.Context())
			if err != nil {
				return
			}
			_, _ = heard.Write(m.Data) // it never fails
		}
	}()
	return heard
}

// TestSecretsStaySecret uses known credentials in every way, good and bad, at all
// nodes, and looks for them in the logs at the finest level, the metrics, what the
// admin ports show (status, tasks, traces of goroutines), everything on the disks
// (records, blocks, the supernode's snapshot), what gossip published, the keys of
// the DHT, and the texts of errors.
func TestSecretsStaySecret(t *testing.T) {
	logs := &buffer{}
	log := slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	super := startNode(t, node.Config{Logger: log})
	v := &vault{t: t, origin: p2ptest.NewOrigin(t), good: map[string]bool{}}
	v.origin.SetFault(v.check)
	var stops []func()
	var dirs []string
	for i := range 2 * seeds {
		reg := prometheus.NewRegistry()
		n, stop := startStoppable(t, node.Config{
			Seed: i < seeds, Supernodes: []string{super.Info().Supernode}, OriginAllow: []string{"127.0.0.0/8"},
			Registerer: reg, Gatherer: reg, Logger: log, Beat: 200 * time.Millisecond,
		})
		v.nodes, stops = append(v.nodes, n), append(stops, stop)
		dirs = append(dirs, n.DataDir())
	}
	v.waitPool()
	o := newOutsider(t, v)
	heard := gossip(t, o.host, node.DefaultSwarm)

	const secret = "hunter2-" // all secrets begin so
	v.allow(true, secret+"bearer", "session="+secret+"cookie", secret+"signature")
	texts := &buffer{}
	data := p2ptest.Bytes(1, 2<<20)
	requests := map[string]http.Header{
		v.put("/bearer", data): {"Authorization": {secret + "bearer"}},
		v.put("/cookie", data): {"Cookie": {"session=" + secret + "cookie"}},
		v.put("/signed", data) + "?X-Amz-Credential=" + secret + "id&X-Amz-Signature=" + secret + "signature": nil,
	}
	for address, header := range requests {
		for n := range v.nodes {
			v.wantFile(n, address, header, data)
		}
		fmt.Fprintln(texts, prefetched(t, v.nodes[seeds], "seeds", address, header).Error)
	}
	bad := map[string]http.Header{
		v.origin.URL + "/bearer":                                                                     {"Authorization": {secret + "wrong"}},
		v.origin.URL + "/cookie":                                                                     {"Cookie": {secret + "wrong"}},
		v.origin.URL + "/signed?X-Amz-Signature=" + secret + "wrong":                                 nil,
		v.origin.URL + "/public?token=" + secret + "unknown":                                         nil,
		v.origin.URL + "/none?X-Amz-Signature=" + secret + "wrong":                                   nil,
		"http://127.0.0.1:1/refused?X-Amz-Signature=" + secret + "wrong":                             {"Authorization": {secret + "wrong"}},
		"http://10.255.255.1:1/forbidden?access_token=" + secret + "wrong":                           {"Cache-Control": {"only-if-cached"}},
		v.origin.URL + "/bearer?only&X-Amz-Signature=" + secret + "wrong&X-Amz-Date=" + secret + "d": {"Cache-Control": {"only-if-cached"}, "Authorization": {secret + "wrong"}},
	}
	for address, header := range bad {
		for _, n := range v.nodes {
			res, body := askProxy(t, n, address, header)
			fmt.Fprintln(texts, res.Status, res.Header, string(body))
			fmt.Fprintln(texts, gatewayText(t, n, address, header))
		}
		header.Del("Cache-Control")
		fmt.Fprintln(texts, prefetched(t, v.nodes[seeds], "seeds", address, header).Error)
	}
	p2ptest.Eventually(t, 30*time.Second, func() bool { return strings.Contains(heard.String(), "/signed") }, "the files are assigned")
	for _, n := range append(v.nodes, super) {
		for _, path := range []string{"/metrics", "/v1/status", "/v1/tasks", "/debug/pprof/goroutine?debug=2"} {
			_, body := fetch(t, n.Info().Admin+path)
			fmt.Fprintln(texts, string(body))
		}
	}
	for _, stop := range stops {
		stop()
	}
	places := map[string]string{"logs": logs.String(), "gossip": heard.String(), "texts and pages": texts.String()}
	for _, d := range append(dirs, super.DataDir()) {
		collect(t, d, places)
	}
	checkSecrets(t, places, secret)
	if !strings.Contains(places["logs"], "/bearer") && !strings.Contains(places["logs"], "request done") {
		t.Error("the logs hold nothing of the requests: the test looks in the wrong place")
	}
	// The DHT has a file's name as its key, and that is without secrets.
	for address := range requests {
		task, err := content.NewTask(address, content.Filter{})
		if err != nil || strings.Contains(task.URL, secret) {
			t.Errorf("task %s, %v", task.URL, err)
		}
	}
}

// gatewayText is what the gateway says to a request.
func gatewayText(t *testing.T, n *node.Node, address string, header http.Header) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.Info().Proxy+"/url/"+address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(res.Body); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(res.Status, res.Header, body.String())
}

// collect reads everything below a directory.
func collect(t *testing.T, dir string, into map[string]string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		into[path] = string(b)
		return err
	})
	if err != nil || files == 0 {
		t.Errorf("%d files below %s, %v", files, dir, err)
	}
}

// checkSecrets looks for a secret, as it is and as it may be written.
func checkSecrets(t *testing.T, places map[string]string, secret string) {
	t.Helper()
	for place, text := range places {
		if at := strings.Index(strings.ToLower(text), secret); at >= 0 {
			t.Errorf("%s: ...%.300s", place, text[max(0, at-200):])
		}
	}
}
