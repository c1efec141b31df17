package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/node"
)

// gateway is a fake daemon: it serves one file under /url/, and can break.
type gateway struct {
	*httptest.Server
	mu       sync.Mutex
	data     []byte
	etag     string
	cut      int                            // bytes after which a body breaks; 0: never
	reply    func(http.ResponseWriter) bool // answers in the place of the file
	requests []*http.Request

	peer      string // of /v1/status
	noIfRange bool   // answers 206 whatever the validator
}

const fileURL = "https://origin.example/dir/file.bin?a=1&b=%2F"

func newGateway(t *testing.T) *gateway {
	g := &gateway{data: bytes.Repeat([]byte("0123456789abcdef"), 1<<12), etag: `"one"`}
	g.Server = httptest.NewServer(http.HandlerFunc(g.serve))
	t.Cleanup(g.Close)
	return g
}

func (g *gateway) serve(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.URL.Path == "/v1/status" {
		fmt.Fprintf(w, `{"peer":%q}`, g.peer)
		return
	}
	g.requests = append(g.requests, r)
	if g.reply != nil && g.reply(w) {
		return
	}
	if r.RequestURI != "/url/"+fileURL {
		http.Error(w, "no such file: "+r.RequestURI, http.StatusNotFound)
		return
	}
	if g.etag != "" {
		w.Header().Set("ETag", g.etag)
	}
	if g.noIfRange {
		r.Header.Del("If-Range")
	}
	if g.cut > 0 {
		w = &cutWriter{w, g.cut}
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(g.data))
}

// cutWriter breaks the connection after some bytes.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (c *cutWriter) Write(p []byte) (int, error) {
	if len(p) > c.left {
		_, _ = c.ResponseWriter.Write(p[:c.left])
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

// get runs one get of the gateway's file with more arguments.
func (g *gateway) get(t *testing.T, args ...string) (*harness, int) {
	t.Helper()
	h := newHarness()
	return h, h.run(t.Context(), append([]string{"get", fileURL, "--proxy", strings.TrimPrefix(g.URL, "http://")}, args...))
}

// lastHeader returns a header of the last request.
func (g *gateway) lastHeader(key string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.requests[len(g.requests)-1].Header.Get(key)
}

// checkFile wants a file's content; nil wants no file.
func checkFile(t *testing.T, name string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(name)
	if want == nil {
		if !os.IsNotExist(err) {
			t.Errorf("%s is there, with %d bytes, %v", filepath.Base(name), len(got), err)
		}
		return
	}
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, %v; want %d others", filepath.Base(name), len(got), err, len(want))
	}
}

// checkGone wants no trace of a part file.
func checkGone(t *testing.T, out string) {
	t.Helper()
	checkFile(t, out+".part", nil)
	checkFile(t, out+".part.json", nil)
}

func TestGetWhole(t *testing.T) {
	g := newGateway(t)
	t.Chdir(t.TempDir())
	for _, digest := range []string{fmt.Sprintf("sha256:%X", sha256.Sum256(g.data)), fmt.Sprintf("sha512:%x", sha512.Sum512(g.data))} {
		h, code := g.get(t, "--digest", digest)
		if code != exitDone || h.errs.Len() > 0 || h.out.Len() > 0 {
			t.Fatalf("exit code %d: %s%s", code, h.errs.String(), h.out.String())
		}
		checkFile(t, "file.bin", g.data)
		checkGone(t, "file.bin")
		if err := os.Remove("file.bin"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGetEmptyFile(t *testing.T) {
	g := newGateway(t)
	g.data = []byte{}
	out := filepath.Join(t.TempDir(), "out")
	if h, code := g.get(t, "-o", out); code != exitDone {
		t.Fatalf("exit code %d: %s", code, h.errs.String())
	}
	checkFile(t, out, g.data)
}

func TestGetRange(t *testing.T) {
	g := newGateway(t)
	for in, want := range map[string][]byte{
		"0-0": g.data[:1], "10-19": g.data[10:20], "100-": g.data[100:], "-7": g.data[len(g.data)-7:], "65530-99999999": g.data[65530:],
	} {
		out := filepath.Join(t.TempDir(), "out")
		if h, code := g.get(t, "-o", out, "--range", in); code != exitDone {
			t.Fatalf("%s: exit code %d: %s", in, code, h.errs.String())
		}
		checkFile(t, out, want)
	}
	h, code := g.get(t, "-o", filepath.Join(t.TempDir(), "out"), "--range", "99999999-")
	checkError(t, h, code, exitFailed, "416")
}

func TestGetStdout(t *testing.T) {
	g := newGateway(t)
	h, code := g.get(t, "-o", "-", "--range", "5-14")
	if code != exitDone || !bytes.Equal(h.out.Bytes(), g.data[5:15]) {
		t.Errorf("exit code %d, %q: %s", code, h.out.String(), h.errs.String())
	}
	for _, zeros := range []string{"sha256:" + strings.Repeat("0", 64), "sha512:" + strings.Repeat("0", 128)} {
		h, code = g.get(t, "-o", "-", "--digest", zeros)
		checkError(t, h, code, exitFailed, "not "+zeros)
	}
	g.cut = 100
	h, code = g.get(t, "-o", "-")
	checkError(t, h, code, exitFailed, "100 of 65536 bytes")
}

func TestGetWrongDigest(t *testing.T) {
	g := newGateway(t)
	out := filepath.Join(t.TempDir(), "out")
	h, code := g.get(t, "-o", out, "--digest", "sha256:"+strings.Repeat("0", 64))
	checkError(t, h, code, exitFailed, fmt.Sprintf("%x", sha256.Sum256(g.data)))
	checkFile(t, out, nil)
	checkGone(t, out)
}

func TestGetBadAnswers(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		do   func(w http.ResponseWriter)
		want string
	}{
		{"status with a reason", nil, func(w http.ResponseWriter) { http.Error(w, "origin is gone\x1b[2J", http.StatusBadGateway) }, "502 Bad Gateway: origin is gone?[2J"},
		{"status alone", nil, func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) }, "404 Not Found"},
		{"range ignored", []string{"--range", "1-2"}, func(w http.ResponseWriter) { fmt.Fprint(w, "whole") }, "no ranges"},
		{"206 not asked for", nil, func(w http.ResponseWriter) {
			w.Header().Set("Content-Range", "bytes 0-1/2")
			w.WriteHeader(http.StatusPartialContent)
		}, "bytes 0-1/2"},
		{"206 without its range", []string{"--range", "1-2"}, func(w http.ResponseWriter) { w.WriteHeader(http.StatusPartialContent) }, "Content-Range"},
		{"206 from elsewhere", []string{"--range", "1-2"}, func(w http.ResponseWriter) {
			w.Header().Set("Content-Range", "bytes 5-6/9")
			w.WriteHeader(http.StatusPartialContent)
			fmt.Fprint(w, "ab")
		}, "bytes 5-6/9"},
		{"206 shorter than its range", []string{"--range", "1-4"}, func(w http.ResponseWriter) {
			w.Header().Set("Content-Range", "bytes 1-4/9")
			w.WriteHeader(http.StatusPartialContent)
			fmt.Fprint(w, "ab")
		}, "2 of 4 bytes"},
		{"redirect out of the gateway", nil, func(w http.ResponseWriter) {
			w.Header().Set("Location", "http://elsewhere.example/x")
			w.WriteHeader(http.StatusFound)
		}, "elsewhere.example"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGateway(t)
			g.reply = func(w http.ResponseWriter) bool { c.do(w); return true }
			out := filepath.Join(t.TempDir(), "out")
			h, code := g.get(t, append([]string{"-o", out}, c.args...)...)
			checkError(t, h, code, exitFailed, c.want, "https://origin.example/dir/file.bin")
			checkFile(t, out, nil)
		})
	}
}

func TestGetFollowsRedirectsInTheGateway(t *testing.T) {
	g := newGateway(t)
	redirected := false
	g.reply = func(w http.ResponseWriter) bool {
		if redirected {
			return false
		}
		redirected = true
		w.Header().Set("Location", "/url/"+fileURL)
		w.WriteHeader(http.StatusFound)
		return true
	}
	h, code := g.get(t, "-o", "-", "--range", "0-3")
	if code != exitDone || h.out.String() != "0123" {
		t.Errorf("exit code %d, %q: %s", code, h.out.String(), h.errs.String())
	}
}

func TestGetOutputIsDirectory(t *testing.T) {
	g := newGateway(t)
	h, code := g.get(t, "-o", t.TempDir())
	checkError(t, h, code, exitFailed, "is a directory")
}

func TestGetUsesTheRunningDaemon(t *testing.T) {
	g := newGateway(t)
	dir := t.TempDir()
	g.peer = writeDaemon(t, dir, g.URL)
	h := newHarness()
	h.vars["P2PNODE_DATA_DIR"], h.vars["P2PNODE_PROXY"] = dir, "127.0.0.1:0"
	if code := h.run(t.Context(), []string{"get", fileURL, "-o", "-"}); code != exitDone || !bytes.Equal(h.out.Bytes(), g.data) {
		t.Errorf("exit code %d: %s", code, h.errs.String())
	}
}

func TestGetAlone(t *testing.T) {
	g := newGateway(t)
	dir := t.TempDir()
	t.Chdir(dir)
	h := newHarness()
	h.vars["P2PNODE_SUPERNODE"] = "/a,/b"
	var cfg node.Config
	stopped := false
	h.newNode = func(c node.Config) (runner, error) {
		cfg = c
		n := readyNode(func(ctx context.Context) error { <-ctx.Done(); stopped = true; return nil })
		n.info.Proxy = g.URL
		return n, nil
	}
	if code := h.run(t.Context(), []string{"get", fileURL, "-o", "out"}); code != exitDone {
		t.Fatalf("exit code %d: %s", code, h.errs.String())
	}
	if text := h.errs.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "reading alone") {
		t.Errorf("want one line that says it reads alone, got %q", text)
	}
	checkFile(t, "out", g.data)
	if !stopped {
		t.Error("the node was left running")
	}
	if len(cfg.Supernodes) != 2 || cfg.Seed || !cfg.OriginFallback || cfg.Proxy != "127.0.0.1:0" {
		t.Errorf("the node was made of %+v", cfg)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".p2pnode-get-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A supernode of others elects no guest; its own has nobody else to elect.
func TestGetAloneIsItsOwnSeed(t *testing.T) {
	h := newHarness()
	delete(h.vars, "HOME")
	var cfg node.Config
	h.newNode = func(c node.Config) (runner, error) { cfg = c; return nil, errStop }
	h.run(t.Context(), []string{"get", fileURL, "-o", "-"})
	if !cfg.Seed {
		t.Errorf("the node was made of %+v", cfg)
	}
}

func TestGetNeedsTheDaemonThatWasNamed(t *testing.T) {
	h := newHarness()
	h.newNode = func(node.Config) (runner, error) { t.Error("a node was made"); return nil, errStop }
	dir := t.TempDir()
	checkError(t, h, h.run(t.Context(), []string{"get", fileURL, "-o", "-", "--data-dir", dir}), exitFailed, dir, "no daemon runs there")

	// Another process has the port of a daemon that is gone.
	g := newGateway(t)
	writeDaemon(t, dir, g.URL)
	g.peer = "another"
	h.errs.Reset()
	h.vars["P2PNODE_DATA_DIR"] = dir
	checkError(t, h, h.run(t.Context(), []string{"get", fileURL, "-o", "-"}), exitFailed, dir, "no daemon runs there")
	if len(g.requests) > 0 {
		t.Error("the other process was asked for the file")
	}
}

func TestGetAloneNodeFails(t *testing.T) {
	for name, run := range map[string]func(context.Context) error{
		"no space left": func(context.Context) error { return fmt.Errorf("no space left") },
		"by itself":     func(context.Context) error { return nil },
	} {
		h := newHarness()
		h.newNode = func(node.Config) (runner, error) {
			return &fakeNode{ready: make(chan struct{}), run: run}, nil
		}
		h.vars["XDG_DATA_HOME"] = t.TempDir()
		code := h.run(t.Context(), []string{"get", fileURL, "-o", "-"})
		if text := h.errs.String(); code != exitFailed || !strings.Contains(text, name) {
			t.Errorf("exit code %d, %q", code, text)
		}
	}
}

// writeDaemon writes the daemon.json of a daemon whose faces are both at url,
// and returns the peer ID of the directory.
func writeDaemon(t *testing.T, dir, url string) string {
	t.Helper()
	text, err := json.Marshal(running{Admin: url, Proxy: url, PID: 1})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "daemon.json"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	id, err := node.PeerID(dir)
	if err != nil {
		t.Fatal(err)
	}
	return id.String()
}
