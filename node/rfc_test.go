package node_test

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node"
)

// exchange is one request to the node and what must come back.
type exchange struct {
	method string // "" is GET
	ask    string // "Name: value" lines
	status int    // 0 is 200
	// want are "Name: value" lines of the answer; "Name:" must not be there.
	want string
	// body is what comes: "all", "none", "a-b" of the file, or "" for anything.
	body string
	// origin is how many requests the origin gets, -1 for any number.
	origin int
	// change makes the origin's file another before.
	change func(*p2ptest.Object)
	fault  p2ptest.Fault
}

const (
	rfcSize     = 100_000
	rfcTag      = `"one"`
	rfcModified = "Mon, 02 Nov 2026 10:00:00 GMT"
	rfcBefore   = "Sun, 01 Nov 2026 10:00:00 GMT"
	rfcAfter    = "Tue, 03 Nov 2026 10:00:00 GMT"
)

// requirement is a MUST (or a SHOULD, where it says so) of a section, and the
// exchanges with a file that show that the node keeps it.
type requirement struct {
	section, must string
	header        string // of the origin's file, besides its validators
	change        func(*p2ptest.Object)
	exchanges     []exchange
}

func lines(s string) http.Header {
	h := http.Header{}
	for line := range strings.Lines(s) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			h.Add(name, strings.TrimSpace(value))
		}
	}
	return h
}

// TestRFC holds a node to the requirements on what the swarm carries; see
// docs/http.md for those that it does not keep.
func TestRFC(t *testing.T) {
	origin := p2ptest.NewOrigin(t)
	n := startNode(t, node.Config{Seed: true, OriginFallback: true, OriginAllow: []string{"127.0.0.0/8"}})
	proxy, err := url.Parse(n.Info().Proxy)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{
		Transport:     &http.Transport{Proxy: http.ProxyURL(proxy), DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	for i, r := range append(rfc9110(), rfc9111()...) {
		t.Run(r.section+" "+r.must, func(t *testing.T) {
			modified, err := http.ParseTime(rfcModified)
			if err != nil {
				t.Fatal(err)
			}
			object := p2ptest.Object{Data: p2ptest.Bytes(uint64(i), rfcSize), ETag: rfcTag, LastModified: modified, ContentType: "text/x-test", Header: lines(r.header)}
			if r.change != nil {
				r.change(&object)
			}
			path := "/" + strconv.Itoa(i)
			address := origin.Put(path, object)
			for j, e := range r.exchanges {
				if e.change != nil {
					e.change(&object)
					origin.Put(path, object)
				}
				origin.SetFault(func(*http.Request) p2ptest.Fault { return e.fault })
				before := origin.Requests(path)
				check(t, j, client, address, object.Data, e)
				if got := origin.Requests(path) - before; e.origin >= 0 && got != e.origin {
					t.Errorf("exchange %d: %d requests to the origin, want %d", j, got, e.origin)
				}
			}
			origin.SetFault(nil)
		})
	}
}

// check sends one request and compares the answer.
func check(t *testing.T, j int, client *http.Client, address string, data []byte, e exchange) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), e.method, address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = lines(e.ask)
	res, err := client.Do(req)
	if err != nil {
		t.Fatalf("exchange %d: %v", j, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("exchange %d: %v", j, err)
	}
	if want := max(e.status, 200); res.StatusCode != want {
		t.Fatalf("exchange %d: %s, want %d: %.200s", j, res.Status, want, body)
	}
	for name, want := range lines(e.want) {
		if got := strings.Join(res.Header.Values(name), ", "); got != strings.Join(want, ", ") {
			t.Errorf("exchange %d: %s: %q, want %q", j, name, got, want)
		}
	}
	switch from, to, ranged := strings.Cut(e.body, "-"); {
	case e.body == "all" && !bytes.Equal(body, data), e.body == "none" && len(body) > 0:
		t.Errorf("exchange %d: body of %d bytes is not %s", j, len(body), e.body)
	case ranged:
		a, _ := strconv.Atoi(from)
		b, _ := strconv.Atoi(to)
		if !bytes.Equal(body, data[a:b+1]) {
			t.Errorf("exchange %d: body of %d bytes is not %s", j, len(body), e.body)
		}
	}
	if date, err := http.ParseTime(res.Header.Get("Date")); err != nil || date.After(time.Now().Add(time.Second)) {
		t.Errorf("exchange %d: Date %q, %v", j, res.Header.Get("Date"), err)
	}
}
