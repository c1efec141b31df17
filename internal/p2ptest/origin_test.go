package p2ptest_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

const size = 100_000

// get returns the response with its body read, and the error of that.
func get(t *testing.T, url string, header ...string) (*http.Response, []byte, error) {
	t.Helper()
	return do(t, http.MethodGet, url, header...)
}

func do(t *testing.T, method, url string, header ...string) (*http.Response, []byte, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res, body, err
}

func TestOriginRanges(t *testing.T) {
	data := p2ptest.Bytes(1, size)
	o := p2ptest.NewOrigin(t)
	url := o.Add("/f", data)
	for _, c := range []struct {
		name         string
		status       int
		from, to     int
		contentRange string
	}{
		{"", 200, 0, size, ""},
		{"bytes=0-0", 206, 0, 1, "bytes 0-0/100000"},
		{"bytes=10-19", 206, 10, 20, "bytes 10-19/100000"},
		{"bytes=99990-", 206, 99990, size, "bytes 99990-99999/100000"},
		{"bytes=99990-200000", 206, 99990, size, "bytes 99990-99999/100000"},
		{"bytes=-10", 206, size - 10, size, "bytes 99990-99999/100000"},
		{"bytes=-200000", 206, 0, size, "bytes 0-99999/100000"},
		{"bytes=-0", 416, 0, 0, "bytes */100000"},
		{"bytes=100000-", 416, 0, 0, "bytes */100000"},
		{"bytes=100000-100001", 416, 0, 0, "bytes */100000"},
		{"bytes=9-1", 200, 0, size, ""},
		{"bytes=a-", 200, 0, size, ""},
		{"bytes=0-1,3-4", 200, 0, size, ""},
		{"items=0-1", 200, 0, size, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var header []string
			if c.name != "" {
				header = []string{"Range", c.name}
			}
			res, body, err := get(t, url, header...)
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != c.status || res.Header.Get("Content-Range") != c.contentRange {
				t.Errorf("%d with Content-Range %q, want %d %q", res.StatusCode, res.Header.Get("Content-Range"), c.status, c.contentRange)
			}
			if !bytes.Equal(body, data[c.from:c.to]) {
				t.Errorf("body of %d bytes is not [%d, %d)", len(body), c.from, c.to)
			}
		})
	}
}

func TestOriginCounts(t *testing.T) {
	o := p2ptest.NewOrigin(t)
	url := o.Add("/f", p2ptest.Bytes(1, size))
	var all sync.WaitGroup
	for _, r := range []string{"bytes=0-9999", "bytes=5000-29999", "bytes=10000-19999", "bytes=50000-50000"} {
		all.Go(func() {
			if _, _, err := get(t, url, "Range", r); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if _, _, err := get(t, o.URL+"/other"); err != nil {
		t.Fatal(err)
	}
	want := []p2ptest.Span{{Off: 0, Len: 5000, Copies: 1}, {Off: 5000, Len: 15000, Copies: 2}, {Off: 20000, Len: 10000, Copies: 1}, {Off: 50000, Len: 1, Copies: 1}}
	if got := o.Spans("/f"); !slices.Equal(got, want) {
		t.Errorf("spans %v, want %v", got, want)
	}
	if o.Bytes("/f") != 45001 || o.Covered("/f") != 30001 || o.MaxCopies("/f") != 2 || o.Requests("/f") != 4 {
		t.Errorf("bytes %d, covered %d, most copies %d, requests %d", o.Bytes("/f"), o.Covered("/f"), o.MaxCopies("/f"), o.Requests("/f"))
	}
	if o.Requests("/other") != 1 || o.Bytes("/other") != 0 {
		t.Errorf("a missing file counts %d requests and %d bytes", o.Requests("/other"), o.Bytes("/other"))
	}
	p2ptest.Eventually(t, 5*time.Second, func() bool { return o.Running("/f") == 0 })
	o.Reset()
	if o.Requests("/f") != 0 || o.MaxCopies("/f") != 0 {
		t.Error("counters survive Reset")
	}
}

func TestOriginHeadAndValidators(t *testing.T) {
	o := p2ptest.NewOrigin(t)
	url := o.Add("/f", p2ptest.Bytes(1, size))
	res, _, err := do(t, http.MethodHead, url)
	if err != nil {
		t.Fatal(err)
	}
	etag, modified := res.Header.Get("ETag"), res.Header.Get("Last-Modified")
	if res.ContentLength != size || etag == "" || modified == "" || o.Bytes("/f") != 0 {
		t.Errorf("HEAD: length %d, ETag %q, Last-Modified %q, %d body bytes counted", res.ContentLength, etag, modified, o.Bytes("/f"))
	}
	for _, c := range []struct {
		header []string
		status int
	}{
		{[]string{"If-None-Match", etag}, 304},
		{[]string{"If-Modified-Since", modified}, 304},
		{[]string{"Range", "bytes=0-1", "If-Range", etag}, 206},
		{[]string{"Range", "bytes=0-1", "If-Range", modified}, 206},
		{[]string{"Range", "bytes=0-1", "If-Range", `"other"`}, 200},
	} {
		if res, _, err := get(t, url, c.header...); err != nil || res.StatusCode != c.status {
			t.Errorf("%v: %v, error %v, want %d", c.header, res, err, c.status)
		}
	}
	o.Put("/n", p2ptest.Object{Data: []byte("x"), NoHead: true, NoRanges: true, NoLength: true})
	if res, _, err = do(t, http.MethodHead, o.URL+"/n"); err != nil || res.StatusCode != http.StatusForbidden {
		t.Errorf("HEAD of a NoHead object: %v, error %v", res, err)
	}
	if res, body, err := get(t, o.URL+"/n", "Range", "bytes=0-0"); err != nil || res.StatusCode != 200 || string(body) != "x" || res.Header.Get("ETag") != "" {
		t.Errorf("GET of a bare object: %v, body %q, error %v", res, body, err)
	}
}

func TestOriginFaults(t *testing.T) {
	data := p2ptest.Bytes(1, size)
	o := p2ptest.NewOrigin(t)
	url := o.Add("/f", data)
	var fault p2ptest.Fault
	o.SetFault(func(*http.Request) p2ptest.Fault { return fault })

	fault = p2ptest.Fault{Status: 503, Header: http.Header{"Retry-After": {"7"}}}
	if res, _, err := get(t, url); err != nil || res.StatusCode != 503 || res.Header.Get("Retry-After") != "7" {
		t.Errorf("status fault: %v, error %v", res, err)
	}
	fault = p2ptest.Fault{CutAfter: 20_001}
	if _, body, err := get(t, url); err == nil || !bytes.Equal(body, data[:20_001]) {
		t.Errorf("cut after 20001 bytes: got %d, error %v", len(body), err)
	}
	if n := o.Bytes("/f"); n != 20_001 {
		t.Errorf("%d bytes counted, want 20001", n)
	}
	fault = p2ptest.Fault{IgnoreRange: true}
	if res, body, err := get(t, url, "Range", "bytes=1-2"); err != nil || res.StatusCode != 200 || len(body) != size {
		t.Errorf("ignored range: %v with %d bytes, error %v", res, len(body), err)
	}
	fault = p2ptest.Fault{ContentRange: "bytes 5-6/9"}
	if res, _, err := get(t, url, "Range", "bytes=1-2"); err != nil || res.Header.Get("Content-Range") != "bytes 5-6/9" {
		t.Errorf("wrong Content-Range: %v, error %v", res, err)
	}
	o.SetFault(nil)
	o.Remove("/f")
	if res, _, err := get(t, url); err != nil || res.StatusCode != 404 {
		t.Errorf("removed: %v, error %v", res, err)
	}
}

func TestOriginStallResumeAndCancel(t *testing.T) {
	data := p2ptest.Bytes(1, 8<<20) // more than sockets buffer
	o := p2ptest.NewOrigin(t)
	url := o.Add("/f", data)
	o.SetRate(4 << 20)
	type answer struct {
		body []byte
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		_, body, err := get(t, url)
		done <- answer{body, err}
	}()
	p2ptest.Eventually(t, 5*time.Second, func() bool { return o.Bytes("/f") > 0 })
	o.Stall()
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	held := make(chan error, 1)
	go func() {
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			res.Body.Close()
		}
		held <- err
	}()
	p2ptest.Eventually(t, 5*time.Second, func() bool { return o.Requests("/f") == 2 })
	select {
	case a := <-done:
		t.Fatalf("the body ended during a stall: %d bytes, error %v", len(a.body), a.err)
	case err := <-held:
		t.Fatalf("a request was answered during a stall: %v", err)
	default:
	}
	cancel()
	<-held
	p2ptest.Eventually(t, 5*time.Second, func() bool { return o.Running("/f") == 1 }, "a cancelled request goes on")
	o.SetRate(0)
	o.Resume()
	if a := <-done; a.err != nil || !bytes.Equal(a.body, data) {
		t.Errorf("after the stall: %d bytes, error %v", len(a.body), a.err)
	}
}

func TestOriginFirstByteDelayAndClose(t *testing.T) {
	o := p2ptest.NewOrigin(t)
	url := o.Add("/f", []byte("x"))
	o.SetFirstByteDelay(50 * time.Millisecond)
	start := time.Now()
	if _, _, err := get(t, url); err != nil || time.Since(start) < 50*time.Millisecond {
		t.Errorf("answered after %v, error %v", time.Since(start), err)
	}
	o.SetFirstByteDelay(time.Hour)
	done := make(chan error, 1)
	go func() {
		_, _, err := get(t, url)
		done <- err
	}()
	p2ptest.Eventually(t, 5*time.Second, func() bool { return o.Running("/f") == 1 })
	o.Close()
	if err := <-done; err == nil {
		t.Error("a running request outlives Close")
	}
	if _, _, err := get(t, url); err == nil {
		t.Error("a closed origin answers")
	}
}

func TestBytes(t *testing.T) {
	if !bytes.Equal(p2ptest.Bytes(7, 100), p2ptest.Bytes(7, 1000)[:100]) {
		t.Error("a longer file does not begin with the shorter one")
	}
	if bytes.Equal(p2ptest.Bytes(7, 100), p2ptest.Bytes(8, 100)) {
		t.Error("two seeds give the same bytes")
	}
}

func TestPair(t *testing.T) {
	a, b := p2ptest.Pair(t)
	conns := a.Network().ConnsToPeer(b.ID())
	if len(conns) != 1 || conns[0].ConnState().Security != "/tls/1.0.0" || conns[0].ConnState().Transport != "tcp" {
		t.Errorf("connections %v", conns)
	}
}
