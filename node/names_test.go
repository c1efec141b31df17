package node_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node"
	"github.com/p2pnode/p2pnode/node/admin"
	"github.com/p2pnode/p2pnode/protocols/heartbeat"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/protocols/report"
)

// hostileNames are paths that would lead elsewhere where they were taken for a
// file's, and text that no file's name can have.
var hostileNames = []string{
	"/../../../escaped", "/%2e%2e/%2e%2e/%2e%2e/escaped", "/..%2f..%2f..%2fescaped", "//escaped", "/%2fetc%2fescaped", "/..\\..\\escaped",
	"/a%00escaped", "/escaped\u202e", "/escaped:stream", "/CON", "/.", "/..", "/%0aescaped", "/~root/escaped", "/escaped" + strings.Repeat("x", 4000),
	"/v2/../../escaped/blobs/sha256:" + strings.Repeat("a", 64), "/v2/app/blobs/sha256:..%2f..%2fescaped", "/f?name=../../escaped", "/f#../escaped",
}

// ownNames are those that a node and its supernode give to what they write, below
// the directory that they are given.
var ownNames = regexp.MustCompile(`^(` + strings.Join([]string{
	`lock|clean|identity[.]key|peers[.]json|signers[.]json|import|data|records`, `data/[0-9a-f]{2}`,
	`data/[0-9a-f]{2}/[0-9a-f]{64}[.][0-9a-f]{32}`,                // a file's task and generation
	`supernode[.]key|supernode[.]snapshot|supernode-peers[.]json`, // of the supernode in its process
	`records/(LOCK|(MANIFEST|OPTIONS)-\d{6}|\d{6}[.](log|sst|blob)|marker[.](manifest|format-version)[.]\d{6}[.]((MANIFEST-)?\d+))`,
}, "|") + `)$`)

// TestHostileNames: no name that a client, an origin or a peer says becomes one on
// the disk.
func TestHostileNames(t *testing.T) {
	parent := t.TempDir()
	cfg := node.Config{Seed: true, OriginAllow: []string{"127.0.0.0/8"}, Beat: 200 * time.Millisecond}
	cfg.DataDir = filepath.Join(parent, "a", "b", "seed")
	seed, stopSeed := startStoppable(t, cfg)
	super := seed.Info().Supernode
	cfg.DataDir, cfg.Seed, cfg.Supernodes = filepath.Join(parent, "a", "b", "reader"), false, []string{super}
	reader, stopReader := startStoppable(t, cfg)
	v := &vault{t: t, nodes: []*node.Node{seed, reader}}
	data := p2ptest.Bytes(1, 1<<20+7)
	origin := anyPath(t, data)
	eventually(t, "the reader knows the seed", func() bool { return len(reader.ReadStatus().Pool) == 1 })

	done := make(map[string]int) // by the way in which a name came
	for _, name := range hostileNames {
		if ev := imported(t, seed, origin+name, data); ev.Error == "" && ev.Bytes.Imported == int64(len(data)) {
			done["import"]++
		}
		for _, n := range v.nodes {
			for form, target := range map[string]string{
				"proxy": origin + name, "gateway": "/url/" + origin + name, "mirror": "/v2/app/tags" + name + "?ns=" + strings.TrimPrefix(origin, "http://"),
				"no path": name, "no repository": "/v2/" + strings.TrimPrefix(name, "/") + "?ns=../../escaped", // which are refused
			} {
				if strings.HasPrefix(rawAnswer(t, n, target), "HTTP/1.1 200") {
					done[form]++
				}
			}
			if ev := prefetched(t, n, "here", origin+name, nil); ev.Error == "" && ev.Bytes.Local+ev.Bytes.Peer+ev.Bytes.Origin == int64(len(data)) {
				done["prefetch"]++
			}
		}
	}
	for form, least := range map[string]int{"import": 1, "proxy": 2, "gateway": 2, "mirror": 2, "prefetch": 2} {
		if done[form] < least*len(hostileNames)*3/4 { // the others are refused
			t.Errorf("%d of %d by way of the %s came about: nothing was tested", done[form], least*len(hostileNames), form)
		}
	}

	o := newOutsider(t, v)
	heard := gossip(t, o.host, node.DefaultSwarm)
	asPeer(t, o, super)
	for i, name := range hostileNames {
		address := origin + "/peer" + name
		req := rangeread.Request{Task: content.TaskID{byte(i)}, Range: content.Range{Len: 1 << 20}, Origin: &rangeread.Origin{URL: address, Size: -1}}
		if task, err := content.NewTask(address, content.Filter{}); err == nil {
			req.Task = task.ID
		}
		_, _, _ = o.read(t, seed, req)
	}
	p2ptest.Eventually(t, 30*time.Second, func() bool { return strings.Contains(heard.String(), "reported/../../../escaped") }, "what the peer reports is assigned")
	stopReader()
	stopSeed()
	files := 0
	err := filepath.WalkDir(parent, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(parent, path)
		parts := strings.SplitN(filepath.ToSlash(rel), "/", 4)
		for i, want := range []string{`[.]|a`, `b`, `seed|reader`} {
			if i < len(parts) && !regexp.MustCompile(`^(`+want+`)$`).MatchString(parts[i]) {
				t.Errorf("there is %s", path)
			}
		}
		if len(parts) == 4 && !ownNames.MatchString(parts[3]) {
			t.Errorf("a name that is none of the node's own: %s", parts[3])
		}
		if !d.IsDir() {
			files++
		}
		return err
	})
	if err != nil || files < 10 {
		t.Errorf("%d files, %v", files, err)
	}
}

// anyPath is an origin that has a file under every path, and says of it what names
// a file elsewhere.
func anyPath(t *testing.T, data []byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"../../../escaped"`)
		w.Header().Set("Content-Disposition", `attachment; filename="../../../escaped"`)
		w.Header().Set("Cache-Control", "max-age=60")
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(data)))
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return "http://" + l.Addr().String()
}

// rawAnswer is what a node's proxy says to a request whose target is sent as it is.
func rawAnswer(t *testing.T, n *node.Node, target string) string {
	t.Helper()
	host := strings.TrimPrefix(n.Info().Proxy, "http://")
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", target, host); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(conn)
	if err != nil {
		t.Fatalf("%.60q: %v", target, err)
	}
	return string(text)
}

// imported has a node import a file under a URL, and returns the result.
func imported(t *testing.T, n *node.Node, address string, data []byte) admin.Event {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.Info().Admin+"/v1/import", bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	req.URL.RawQuery = url.Values{"url": {address}, "etag": {`"../../../escaped"`}}.Encode()
	req.Header.Set("Content-Type", "application/octet-stream")
	return transferred(t, req)
}

// asPeer makes an outsider a seed at a site of a hostile name, which reports that
// it holds files of such.
func asPeer(t *testing.T, o outsider, supernode string) {
	t.Helper()
	info, err := peer.AddrInfoFromString(supernode)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.host.Connect(t.Context(), *info); err != nil {
		t.Fatal(err)
	}
	h := &hostileSeed{host: o.host}
	beats := heartbeat.NewSender(o.host, heartbeat.SenderConfig{Interval: 200 * time.Millisecond})
	h.background(t, func(ctx context.Context) error {
		return beats.Run(ctx, info.ID, func() heartbeat.Beat {
			return heartbeat.Beat{Addrs: o.host.Addrs(), Seed: true, Site: "../../../escaped", Capacity: 1 << 40, Free: 1 << 40}
		}, func(heartbeat.Ack) {})
	})
	reports := report.NewSender(o.host, report.SenderConfig{})
	h.background(t, func(ctx context.Context) error { return reports.Run(ctx, info.ID) })
	for i, name := range hostileNames {
		reports.Enqueue(report.Held{Task: content.TaskID{1, byte(i)}, URL: "http://origin.test/reported" + name, Size: 1, Present: []byte{1}, Generation: content.Generation{1}})
	}
}
