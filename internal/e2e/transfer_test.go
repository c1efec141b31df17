package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// result is what the tests look at of the last event of a transfer.
type result struct {
	Event, Error string
	Bytes        struct{ Local, Peer, Origin, Imported int64 }
}

// post gives an order to the admin API, and returns its last event.
func (p *process) post(path, contentType string, body []byte) (result, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, p.Admin+path, bytes.NewReader(body))
	if err != nil {
		return result{}, err
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return result{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	var last result
	for dec := json.NewDecoder(resp.Body); ; {
		var ev result
		if err := dec.Decode(&ev); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return last, err
		}
		last = ev
	}
	if last.Event != "result" || last.Error != "" {
		return last, fmt.Errorf("%s: last event %+v", resp.Status, last)
	}
	return last, nil
}

func (p *process) prefetch(url, where string) (result, error) {
	body, err := json.Marshal(map[string]any{"urls": []string{url}, "where": where})
	if err != nil {
		return result{}, err
	}
	return p.post("/v1/prefetch", "application/json", body)
}

// TestPrefetchOnSeeds: each seed brings in the stripes that it owns, and no
// byte goes anywhere else; then all can read without the origin.
func TestPrefetchOnSeeds(t *testing.T) {
	origin := p2ptest.NewOrigin(t)
	data := p2ptest.Bytes(21, fileSize)
	url := origin.Add("/file", data)
	s := newSwarm(t, binary(t, ""), 4, 2)
	got, err := s.daemons[0].prefetch(url, "seeds")
	if err != nil {
		t.Fatal(err)
	}
	if got.Bytes.Origin != fileSize || got.Bytes.Local+got.Bytes.Peer != 0 {
		t.Errorf("bytes %+v", got.Bytes)
	}
	if n := origin.Bytes("/file"); n != fileSize {
		t.Errorf("the origin sent %d bytes of %d", n, fileSize)
	}
	held, holders := int64(0), 0
	for _, d := range s.daemons {
		if n := heldBytes(t, d, url); n > 0 {
			held, holders = held+n, holders+1
		}
	}
	if held != fileSize || holders != 2 {
		t.Errorf("%d daemons hold %d bytes, want the 2 seeds to hold %d", holders, held, fileSize)
	}
	if again, err := s.daemons[1].prefetch(url, "seeds"); err != nil || again.Bytes.Local != fileSize {
		t.Errorf("again: %+v, %v", again, err)
	}
	origin.Close()
	var readers []func() error
	for _, d := range s.daemons {
		readers = append(readers, func() error { return d.check(url, data, 0, 0) })
	}
	if err := all(readers...); err != nil {
		t.Error(err)
	}
}

// TestPrefetchHere: a node that is no seed has the file when it has prefetched
// it, and the origin sent it once.
func TestPrefetchHere(t *testing.T) {
	origin := p2ptest.NewOrigin(t)
	data := p2ptest.Bytes(22, fileSize)
	url := origin.Add("/file", data)
	s := newSwarm(t, binary(t, ""), 3, 2)
	var orders []func() error
	for _, d := range s.daemons {
		orders = append(orders, func() error {
			_, err := d.prefetch(url, "here")
			return err
		})
	}
	if err := all(orders...); err != nil {
		t.Fatal(err)
	}
	if n := origin.Bytes("/file"); n != fileSize {
		t.Errorf("the origin sent %d bytes of %d", n, fileSize)
	}
	for _, d := range s.daemons {
		if n := heldBytes(t, d, url); n != fileSize {
			t.Errorf("%s holds %d bytes of %d", d.Peer, n, fileSize)
		}
	}
}

// TestImportForAll: what was brought to one node by disk is read through all of
// them, with the origin out of reach from the start.
func TestImportForAll(t *testing.T) {
	origin := p2ptest.NewOrigin(t)
	data := p2ptest.Bytes(23, 4<<20+100)
	file := origin.Add("/file", data)
	s := newSwarm(t, binary(t, ""), 4, 2)
	origin.Close()
	q := url.Values{"url": {file}, "etag": {"by-disk"}}
	if got, err := s.daemons[0].post("/v1/import?"+q.Encode(), "application/octet-stream", data); err != nil || got.Bytes.Imported != int64(len(data)) {
		t.Fatalf("%+v, %v", got, err)
	}
	for i, d := range s.daemons {
		if err := d.check(file, data, 0, 0); err != nil {
			t.Errorf("daemon %d: %v", i, err)
		}
	}
}
