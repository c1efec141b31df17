package admin

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
)

func TestUnpin(t *testing.T) {
	var asked []PrefetchRequest
	url := serve(t, Config{Transfers: fakeTransfers{unpin: func(r PrefetchRequest) (int64, error) {
		asked = append(asked, r)
		if r.URL == "http://o/b" {
			return 0, errors.New("not held here")
		}
		return 4096, nil
	}}})
	resp, body := post(t, url+"/v1/unpin", jsonType, strings.NewReader(`{"urls": ["http://o/a", "http://o/b"], "range": "-20"}`))
	text := strings.Join(strings.Fields(body), "")
	const want = `{"results":[{"url":"http://o/a","bytes":4096},{"url":"http://o/b","bytes":0,"error":"notheldhere"}]}`
	if resp.StatusCode != http.StatusOK || text != want {
		t.Errorf("%s %s", resp.Status, body)
	}
	if !reflect.DeepEqual(asked, []PrefetchRequest{{URL: "http://o/a", Off: -20, Len: -1}, {URL: "http://o/b", Off: -20, Len: -1}}) {
		t.Errorf("asked for %+v", asked)
	}
}

func TestPrefetchPins(t *testing.T) {
	var pinned atomic.Int32
	url := serve(t, Config{Transfers: fakeTransfers{prefetch: func(_ context.Context, r PrefetchRequest, _ func(done, total int64)) (Transfer, error) {
		if r.Pin {
			pinned.Add(1)
		}
		return Transfer{}, nil
	}}})
	for i, body := range []string{`{"urls": ["http://o/a"]}`, `{"urls": ["http://o/a"], "pin": true}`} {
		if resp, text := post(t, url+"/v1/prefetch", jsonType, strings.NewReader(body)); resp.StatusCode != http.StatusOK || int(pinned.Load()) != i {
			t.Errorf("%s: %s %s, pinned %d times", body, resp.Status, text, pinned.Load())
		}
	}
}

// TestPrefetchHeader: what a private file's origin wants to see goes on with each
// URL, and is of no use to an unpin.
func TestPrefetchHeader(t *testing.T) {
	asked := make(chan http.Header, 2)
	url := serve(t, Config{Transfers: fakeTransfers{prefetch: func(_ context.Context, r PrefetchRequest, _ func(done, total int64)) (Transfer, error) {
		asked <- r.Header
		return Transfer{}, nil
	}}})
	const body = `{"urls": ["http://o/a", "http://o/b"], "header": {"authorization": "Bearer x"}}`
	if resp, text := post(t, url+"/v1/prefetch", jsonType, strings.NewReader(body)); resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", resp.Status, text)
	}
	for range 2 {
		if h := <-asked; len(h) != 1 || h.Get("Authorization") != "Bearer x" {
			t.Errorf("header %v", h)
		}
	}
	if resp, text := post(t, url+"/v1/unpin", jsonType, strings.NewReader(body)); resp.StatusCode != http.StatusBadRequest || strings.Contains(text, "Bearer") {
		t.Errorf("unpin: %s %s", resp.Status, text)
	}
}
