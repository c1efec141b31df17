package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/node"
)

// FuzzAdminAnswer: whatever the admin API answers, no control character reaches
// the terminal, and --json shows the value that came.
func FuzzAdminAnswer(f *testing.F) {
	for _, s := range []string{
		`{"peer": "p", "store": {"used": 12345678901, "full": false}, "addrs": ["/a", "/b"], "none": null, "peers": [{"id": "p1", "age": 3}]}`,
		`{"tasks": [{"task": "abc", "url": "https://a/b\u001b[2J", "size": 1, "seeds": ["p1"], "other": {}}]}`,
		`[{"peer": "p1", "role": "supernode", "how": "direct", "first_byte_ms": 1.5}]`,
		"{\"\\u001b]0;x\\u0007\": [{\"\\u009b2J\": 1}], \"\x7f\": \"\x9b\u0085\",\r\n\t\"x\": 1}",
		`{"event": "progress", "url": "https://o/a", "done": 5, "total": 4611686018427387904}`,
		`{"event": "result", "url": "https://o/\u009ba", "bytes": {"peer": 5}, "seconds": 1e300, "error": "one\ntwo\u001b[2J"}`,
		`{"error": "no such\u001b[31m place"}`,
		`{"results": [{"url": "https://o/\u007f", "bytes": -1, "error": "x\r\u0090"}]}`,
		`{"results": [{"url": "https://o/\u007f", "bytes": 1}]}`,
		`{"supernodes": [{"supernode": "12D3KooWGC7qKv9rFD6ck5ToahqFmVzNCYBs1hoFPUyzZGvXSbPw", "connected": true, "clock_ms": 1e308, "ack_ms": 5}], "network": {"outside": ["\u001b"], "paths": [{"peer": "12D3KooWGC7qKv9rFD6ck5ToahqFmVzNCYBs1hoFPUyzZGvXSbPw", "how": "relayed", "last_error": "\u001bc", "transport": "\u009b"}]}}`,
		`{"admin": "http://\u001b[2J", "proxy_cert_sha256": "\u0000"}`,
		"\x1b[2J", "1e999", "nul", "",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, table := range []func(io.Writer, any) error{
			printFields, rows("no tasks yet", "url", "task", "seeds", "other"), rows("no peers yet", "peer", "how", "first_byte_ms"),
		} {
			h := newHarness()
			h.checkPrints(t, h.show(body, false, table))
		}
		h := newHarness()
		err := h.show(body, true, printFields)
		h.checkPrints(t, err)
		if err == nil {
			checkSameJSON(t, h.out.Bytes(), body)
		}

		var status node.Status
		if json.Unmarshal(body, &status) == nil {
			for _, raw := range []bool{false, true} {
				h := newHarness()
				all := node.Diagnose(status, node.Machine{Now: time.Unix(1e9, 0)}, firstPeer(status))
				h.checkPrints(t, h.findings(all, raw))
			}
		}
		for _, raw := range []bool{false, true} {
			h := newHarness()
			tr := h.newTransfer("prefetch", 2, raw)
			tr.bar = newBar(io.Discard, 0, 1)
			for range 2 {
				h.checkPrints(t, tr.event(body))
			}
			h.checkPrints(t, tr.end(t.Context(), nil))

			h = newHarness()
			results, err := readUnpinned(bytes.NewReader(body), 1)
			h.checkPrints(t, err)
			for _, r := range results {
				if err := h.unpinned(r, raw); err != nil {
					h.checkPrints(t, failure(h.stderr, "unpin", 2, []error{err}))
				}
			}
		}
		h = newHarness()
		h.checkPrints(t, refusal(&http.Response{Status: string(body), Body: io.NopCloser(bytes.NewReader(body))}))
		if d, err := readRunning(body); err == nil {
			_, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.page("/v1/status"), http.NoBody)
			h.checkPrints(t, err)
		}
	})
}

// firstPeer is a peer that a status has something to say of.
func firstPeer(s node.Status) (id peer.ID) {
	if len(s.Network.Paths) > 0 {
		id = s.Network.Paths[0].Peer
	}
	return id
}

// checkPrints wants what was printed, and what is made of an error, to leave the
// terminal alone.
func (h *harness) checkPrints(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		h.complain(err)
	}
	for _, text := range []string{h.out.String(), h.errs.String()} {
		if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }) {
			t.Fatalf("the terminal gets %q", text)
		}
	}
}

// checkSameJSON wants two texts to have the same value.
func checkSameJSON(t *testing.T, got, want []byte) {
	t.Helper()
	var a, b any
	if err := json.Unmarshal(want, &b); err != nil {
		t.Fatalf("%q was printed: %v", want, err)
	}
	if err := json.Unmarshal(got, &a); err != nil || !reflect.DeepEqual(a, b) {
		t.Fatalf("%q was printed as %q, %v", want, got, err)
	}
}
