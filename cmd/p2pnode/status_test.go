package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/p2pnode/p2pnode/node"
)

// adminServer serves pages of an admin API, and returns the data directory of
// a daemon that has them.
func adminServer(t *testing.T, pages map[string]string) (dir string, s *httptest.Server) {
	t.Helper()
	var peer string
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := pages[r.URL.Path]
		if r.URL.Path == "/v1/status" {
			body, ok = strings.ReplaceAll(body, "ME", peer), true
			if body == "" {
				body = fmt.Sprintf(`{"peer":%q}`, peer)
			}
		}
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(s.Close)
	dir = t.TempDir()
	peer = writeDaemon(t, dir, s.URL)
	return dir, s
}

func TestShow(t *testing.T) {
	const tasks = `{"tasks": [
		{"task": "abc", "url": "https://a/b\u001b[2J", "size": 67108864, "seeds": ["p1", "p2"], "other": {}},
		{"task": "def", "url": "https://a/c", "size": null, "seeds": []}
	]}`
	dir, _ := adminServer(t, map[string]string{
		"/v1/status": "{\"peer\": \"ME\", \"store\": {\"used\": 12345678901, \"full\": false}, \"addrs\": [\"/a\", \"/b\"], \"none\": null, \"peers\": [{\"id\": \"p1\", \"age\": 3}, {\"id\": \"p2\"}]}\n\n",
		"/v1/tasks":  tasks,
		"/v1/peers":  `[{"peer": "p1", "role": "supernode", "how": "direct", "transport": "tcp", "addr": "/ip4/127.0.0.1/tcp/1"}, {"peer": "p2", "breaker": "open", "first_byte_ms": 1.5}]`,
	})
	id, err := node.PeerID(dir)
	if err != nil {
		t.Fatal(err)
	}
	me := id.String()
	for _, c := range []struct{ args, want string }{
		{"status", "addrs       /a /b\nnone        -\npeer        " + me + "\npeers.0     age=3 id=p1\npeers.1     id=p2\nstore.full  false\nstore.used  12345678901\n"},
		{"status --json", "{\"peer\": \"" + me + "\", \"store\": {\"used\": 12345678901, \"full\": false}, \"addrs\": [\"/a\", \"/b\"], \"none\": null, \"peers\": [{\"id\": \"p1\", \"age\": 3}, {\"id\": \"p2\"}]}\n"},
		{"seeds", "URL              TASK  SIZE      SEEDS\nhttps://a/b?[2J  abc   67108864  p1 p2\nhttps://a/c      def   -         -\n"},
		{"peers", "PEER  ROLE       HOW     TRANSPORT  ADDR                  BREAKER  FIRST_BYTE_MS\np1    supernode  direct  tcp        /ip4/127.0.0.1/tcp/1  -        -\np2    -          -       -          -                     open     1.5\n"},
		{"seeds --json", tasks + "\n"},
	} {
		t.Run(c.args, func(t *testing.T) {
			h := newHarness()
			code := h.run(t.Context(), append(strings.Fields(c.args), "--data-dir", dir))
			if got := h.out.String(); code != exitDone || got != c.want {
				t.Errorf("exit code %d, got\n%swant\n%s%s", code, got, c.want, h.errs.String())
			}
		})
	}
}

func TestShowNothing(t *testing.T) {
	for _, body := range []string{`[]`, `{"tasks": null}`, `{}`, `{"tasks": []}`} {
		dir, _ := adminServer(t, map[string]string{"/v1/tasks": body})
		h := newHarness()
		if code := h.run(t.Context(), []string{"seeds", "--data-dir", dir}); code != exitDone || h.out.String() != "no tasks yet\n" {
			t.Errorf("%s: exit code %d, %q", body, code, h.out.String())
		}
	}
}

func TestShowFailures(t *testing.T) {
	dir, _ := adminServer(t, map[string]string{"/v1/status": "<html>"}) // a stranger
	h := newHarness()
	checkError(t, h, h.run(t.Context(), []string{"status", "--data-dir", dir}), exitFailed, "not 12D3Koo", "no daemon runs there")
	dir, s := adminServer(t, nil)
	h = newHarness()
	checkError(t, h, h.run(t.Context(), []string{"seeds", "--data-dir", dir}), exitFailed, "no page /v1/tasks")

	s.Close()
	h = newHarness()
	checkError(t, h, h.run(t.Context(), []string{"status", "--data-dir", dir}), exitFailed, s.URL, "p2pnode daemon")

	h = newHarness()
	checkError(t, h, h.run(t.Context(), []string{"status", "--data-dir", t.TempDir()}), exitFailed, "no daemon runs there", "--data-dir")

	if err := os.WriteFile(filepath.Join(dir, "daemon.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	h = newHarness()
	checkError(t, h, h.run(t.Context(), []string{"status", "--data-dir", dir}), exitFailed, "daemon.json is damaged")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	writeDaemon(t, dir, s.URL)
	h = newHarness()
	checkError(t, h, h.run(ctx, []string{"status", "--data-dir", dir}), exitInterrupted)
}

func TestID(t *testing.T) {
	dir := t.TempDir()
	h := newHarness()
	if code := h.run(t.Context(), []string{"id", "--data-dir", dir}); code != exitDone || !strings.HasPrefix(h.out.String(), "12D3Koo") {
		t.Fatalf("exit code %d, %q: %s", code, h.out.String(), h.errs.String())
	}
	again := newHarness()
	again.vars["P2PNODE_DATA_DIR"] = dir
	if code := again.run(t.Context(), []string{"id"}); code != exitDone || again.out.String() != h.out.String() {
		t.Errorf("exit code %d, %q then %q", code, h.out.String(), again.out.String())
	}
}
