package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/p2pnode/p2pnode/node/admin"
)

// fakeAdmin is the admin API of a daemon, whose data directory it returns: it
// answers POST by f.
func fakeAdmin(t *testing.T, f http.HandlerFunc) string {
	t.Helper()
	peer := make(chan string, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			f(w, r)
			return
		}
		id := <-peer
		peer <- id
		fmt.Fprintf(w, `{"peer": %q}`, id)
	}))
	t.Cleanup(s.Close)
	dir := t.TempDir()
	peer <- writeDaemon(t, dir, s.URL)
	return dir
}

// events answers with lines of JSON.
func events(w http.ResponseWriter, lines ...admin.Event) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	for _, ev := range lines {
		_ = json.NewEncoder(w).Encode(ev) // a test's client reads
	}
	_ = http.NewResponseController(w).Flush()
}

func TestPrefetchAnswers(t *testing.T) {
	done := func(url string) admin.Event {
		return admin.Event{Event: "result", URL: url, Bytes: &admin.EventBytes{Peer: 5}}
	}
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		code   int
		stderr string
	}{
		{"all", func(w http.ResponseWriter, _ *http.Request) { events(w, done("http://o/a"), done("http://o/b")) }, exitDone, ""},
		{"one result is missing", func(w http.ResponseWriter, _ *http.Request) { events(w, done("http://o/a")) }, exitFailed, "ended after 1 of 2 results"},
		{"it breaks off", func(w http.ResponseWriter, _ *http.Request) {
			events(w, done("http://o/a"))
			panic(http.ErrAbortHandler)
		}, exitFailed, "broke off after 1 of 2 results"},
		{"it refuses", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error": "no such\u001b[31m place"}`)
		}, exitFailed, "400 Bad Request: no such?[31m place"},
		{"it is an older one", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "only GET", http.StatusMethodNotAllowed) }, exitFailed, "is it of this version"},
		{"it talks nonsense", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-ndjson")
			fmt.Fprintln(w, "so so")
		}, exitFailed, "so so"},
		{"an error that would draw", func(w http.ResponseWriter, _ *http.Request) {
			events(w, done("http://o/a"), admin.Event{Event: "result", URL: "http://o/b", Error: "one\ntwo\x1b[2J"})
		}, exitFailed, "prefetch http://o/b: one; two?[2J"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := fakeAdmin(t, c.answer)
			h := newHarness()
			code := h.run(t.Context(), []string{"prefetch", "--data-dir", dir, "http://o/a", "http://o/b"})
			if code != c.code || !strings.Contains(h.errs.String(), c.stderr) {
				t.Errorf("code %d, stderr %q", code, h.errs.String())
			}
			if c.code == exitDone && h.out.String() != "http://o/a: 5 bytes in 0.0 s: peer=5\nhttp://o/b: 5 bytes in 0.0 s: peer=5\n" {
				t.Errorf("stdout %q", h.out.String())
			}
		})
	}
}

// Of many URLs no request has more than a daemon takes.
func TestPrefetchMany(t *testing.T) {
	var sizes []int
	dir := fakeAdmin(t, func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			URLs         []string
			Range, Where string
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Range != "0-9" || body.Where != "seeds" {
			t.Errorf("%v, %q, %q", err, body.Range, body.Where)
		}
		sizes = append(sizes, len(body.URLs))
		var out []admin.Event
		for _, u := range body.URLs {
			out = append(out, admin.Event{Event: "result", URL: u})
		}
		events(w, out...)
	})
	args := []string{"prefetch", "--data-dir", dir, "--range", "0-9", "--seeds", "--json"}
	for i := range admin.MaxURLs + 5 {
		args = append(args, fmt.Sprintf("http://o/%d", i))
	}
	h := newHarness()
	if code := h.run(t.Context(), args); code != exitDone {
		t.Fatalf("code %d, stderr %q", code, h.errs.String())
	}
	if len(sizes) != 2 || sizes[0] != admin.MaxURLs || sizes[1] != 5 {
		t.Errorf("requests of %v URLs", sizes)
	}
	if n := strings.Count(h.out.String(), "\n"); n != admin.MaxURLs+5 {
		t.Errorf("%d lines of JSON", n)
	}
}

func TestReadURLs(t *testing.T) {
	got, err := readURLs([]string{"http://o/a#x", "-", "https://o/z"}, strings.NewReader("\n http://o/b \r\nhttp://o/c"))
	if err != nil || strings.Join(got, " ") != "http://o/a http://o/b http://o/c https://o/z" {
		t.Errorf("%q, %v", got, err)
	}
	for _, stdin := range []string{"", "\n\n", "ftp://o/a\n", "http://user@o/a"} {
		if got, err := readURLs([]string{"-"}, strings.NewReader(stdin)); err == nil {
			t.Errorf("%q: %q", stdin, got)
		}
	}
}

// TestTransferBar: the bar counts all URLs together, and is not full before the
// end.
func TestTransferBar(t *testing.T) {
	var screen strings.Builder
	b := newBar(&screen, 0, 10)
	for _, s := range [][2]int64{{4, 10}, {9, 20}, {19, 20}, {20, 20}} {
		b.set(s[0], s[1])
	}
	b.clear()
	if err := b.Close(); err != nil || !strings.Contains(screen.String(), "100%") {
		t.Errorf("%v, drawn %q", err, screen.String())
	}
}
