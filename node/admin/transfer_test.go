package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// fakeTransfers brings in what its functions say.
type fakeTransfers struct {
	prefetch func(ctx context.Context, r PrefetchRequest, progress func(done, total int64)) (Transfer, error)
	imports  func(ctx context.Context, r ImportRequest, progress func(done, total int64)) (Transfer, error)
	unpin    func(r PrefetchRequest) (int64, error)
}

func (f fakeTransfers) Unpin(r PrefetchRequest) (int64, error) { return f.unpin(r) }

func (f fakeTransfers) Prefetch(ctx context.Context, r PrefetchRequest, progress func(done, total int64)) (Transfer, error) {
	return f.prefetch(ctx, r, progress)
}

func (f fakeTransfers) Import(ctx context.Context, r ImportRequest, progress func(done, total int64)) (Transfer, error) {
	return f.imports(ctx, r, progress)
}

const jsonType, fileType = "application/json", "application/octet-stream"

// post sends a body and returns the answer with its body read.
func post(t *testing.T, url, contentType string, body io.Reader, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

// lines decodes the events of an answer.
func lines(t *testing.T, text string) []Event {
	t.Helper()
	var out []Event
	for line := range strings.Lines(text) {
		var ev Event
		if err := json.Unmarshal([]byte(line), &ev); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		out = append(out, ev)
	}
	return out
}

// results returns the events of that kind, by their URLs, without their times.
func results(events []Event) map[string]Event {
	out := map[string]Event{}
	for _, ev := range events {
		if ev.Event == "result" {
			ev.Seconds = 0
			out[ev.URL] = ev
		}
	}
	return out
}

func TestPrefetchEvents(t *testing.T) {
	var mu sync.Mutex
	var asked []PrefetchRequest
	url := serve(t, Config{Transfers: fakeTransfers{prefetch: func(_ context.Context, r PrefetchRequest, progress func(done, total int64)) (Transfer, error) {
		mu.Lock()
		asked = append(asked, r)
		mu.Unlock()
		if r.URL == "http://o/bad" {
			return Transfer{Peer: 1}, errors.New("the origin answered 404")
		}
		for i := range int64(1000) {
			progress(i+1, 1000)
		}
		return Transfer{Local: 1, Peer: 2, Origin: 3}, nil
	}}})
	resp, body := post(t, url+"/v1/prefetch", jsonType+"; charset=utf-8", strings.NewReader(`{"urls": ["http://o/a", "http://o/bad", "http://o/c"], "range": "10-19", "where": "seeds"}`))
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("%s %s", resp.Status, resp.Header.Get("Content-Type"))
	}
	events := lines(t, body)
	if len(events) > 3+2*2 {
		t.Errorf("%d events: more than two progress events a second and URL", len(events))
	}
	done := Event{Event: "result", Done: 1000, Total: 1000}
	for path, want := range map[string]Event{
		"http://o/a": done, "http://o/c": done, "http://o/bad": {Event: "result", Error: "the origin answered 404"},
	} {
		got := results(events)[path]
		bytes := EventBytes{Local: 1, Peer: 2, Origin: 3}
		if want.Error != "" {
			bytes = EventBytes{Peer: 1}
		}
		if got.Bytes == nil || *got.Bytes != bytes {
			t.Errorf("%s: bytes %+v", path, got.Bytes)
		}
		got.Bytes, want.URL = nil, path
		if got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	for _, r := range asked {
		if r.Off != 10 || r.Len != 10 || !r.Seeds {
			t.Errorf("asked for %+v", r)
		}
	}
}

func TestParsePart(t *testing.T) {
	for s, want := range map[string][2]int64{
		"": {0, -1}, "0-0": {0, 1}, "5-9": {5, 5}, "5-": {5, -1}, "-5": {-5, -1},
	} {
		if off, n, err := parsePart(s); err != nil || off != want[0] || n != want[1] {
			t.Errorf("%q: %d, %d, %v", s, off, n, err)
		}
	}
	for _, s := range []string{"-", "5", "9-5", "-0", "a-b", "0-1,3-4", "+1-2", "1--2", "1-2-3", "-5-", "99999999999999999999-"} {
		if off, n, err := parsePart(s); err == nil {
			t.Errorf("%q: %d, %d", s, off, n)
		}
	}
}

func TestPostRefused(t *testing.T) {
	never := fakeTransfers{
		prefetch: func(context.Context, PrefetchRequest, func(done, total int64)) (Transfer, error) {
			t.Error("prefetched")
			return Transfer{}, nil
		},
		imports: func(context.Context, ImportRequest, func(done, total int64)) (Transfer, error) {
			t.Error("imported")
			return Transfer{}, nil
		},
		unpin: func(PrefetchRequest) (int64, error) {
			t.Error("unpinned")
			return 0, nil
		},
	}
	url := serve(t, Config{Transfers: never})
	good := `{"urls": ["http://o/a"]}`
	var many strings.Builder
	for i := range MaxURLs + 1 {
		fmt.Fprintf(&many, `"http://o/%d",`, i)
	}
	for _, c := range []struct {
		name, path, contentType, body string
		header                        []string
		want                          int
	}{
		{"form", "/v1/prefetch", "application/x-www-form-urlencoded", good, nil, 415},
		{"form as text", "/v1/prefetch", "text/plain", good, nil, 415},
		{"multipart form", "/v1/import?url=http://o/a", "multipart/form-data; boundary=x", "x", nil, 415},
		{"no type", "/v1/import?url=http://o/a", "", "x", nil, 415},
		{"the other's type", "/v1/import?url=http://o/a", jsonType, "x", nil, 415},
		{"another site", "/v1/prefetch", jsonType, good, []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"another site navigates", "/v1/prefetch", jsonType, good, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, 403},
		{"a sibling site", "/v1/prefetch", jsonType, good, []string{"Sec-Fetch-Site", "same-site"}, 403},
		{"another origin", "/v1/import?url=http://o/a", fileType, "x", []string{"Origin", "http://evil.example"}, 403},
		{"another host", "/v1/prefetch", jsonType, good, []string{"Host", "evil.example"}, 403},
		{"no JSON", "/v1/prefetch", jsonType, "urls", nil, 400},
		{"two objects", "/v1/prefetch", jsonType, good + good, nil, 400},
		{"unknown field", "/v1/prefetch", jsonType, `{"urls": ["http://o/a"], "range:": "0-1"}`, nil, 400},
		{"no URLs", "/v1/prefetch", jsonType, `{"urls": []}`, nil, 400},
		{"too many URLs", "/v1/prefetch", jsonType, `{"urls": [` + strings.TrimSuffix(many.String(), ",") + `]}`, nil, 400},
		{"too long", "/v1/prefetch", jsonType, `{"urls": ["` + strings.Repeat("x", maxPrefetchBody) + `"]}`, nil, 413},
		{"bad range", "/v1/prefetch", jsonType, `{"urls": ["http://o/a"], "range": "9-1"}`, nil, 400},
		{"nowhere", "/v1/prefetch", jsonType, `{"urls": ["http://o/a"], "where": "there"}`, nil, 400},
		{"pinned elsewhere", "/v1/prefetch", jsonType, `{"urls": ["http://o/a"], "where": "seeds", "pin": true}`, nil, 400},
		{"unpin a form", "/v1/unpin", "text/plain", good, nil, 415},
		{"unpin by another site", "/v1/unpin", jsonType, good, []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"unpin nothing", "/v1/unpin", jsonType, `{"urls": []}`, nil, 400},
		{"unpin and pin", "/v1/unpin", jsonType, `{"urls": ["http://o/a"], "pin": true}`, nil, 400},
		{"unpin elsewhere", "/v1/unpin", jsonType, `{"urls": ["http://o/a"], "where": "seeds"}`, nil, 400},
		{"unpin a bad range", "/v1/unpin", jsonType, `{"urls": ["http://o/a"], "range": "9-1"}`, nil, 400},
		{"a pin that is neither", "/v1/import?url=http://o/a&pin=yes", fileType, "x", nil, 400},
		{"no URL", "/v1/import?digest=sha256:00", fileType, "x", nil, 400},
		{"unknown parameter", "/v1/import?url=http://o/a&e-tag=x", fileType, "x", nil, 400},
		{"parameter twice", "/v1/import?url=http://o/a&etag=x&etag=y", fileType, "x", nil, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, body := post(t, url+c.path, c.contentType, strings.NewReader(c.body), c.header...)
			if resp.StatusCode != c.want || !strings.Contains(body, `"error"`) {
				t.Errorf("%s %s, want %d", resp.Status, body, c.want)
			}
			for name := range resp.Header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("CORS header %s", name)
				}
			}
		})
	}
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS"} {
		if resp, _ := ask(t, method, url+"/v1/prefetch", nil); resp.StatusCode != 405 || resp.Header.Get("Allow") != "POST" {
			t.Errorf("%s: %s, Allow %q", method, resp.Status, resp.Header.Get("Allow"))
		}
	}
	// A body whose length is not told in advance.
	if resp, _ := post(t, url+"/v1/import?url=http://o/a", fileType, io.MultiReader(strings.NewReader("x"))); resp.StatusCode != 411 {
		t.Errorf("chunked: %s", resp.Status)
	}
}

func TestPostWithoutTransfers(t *testing.T) {
	url := serve(t, Config{})
	if resp, _ := post(t, url+"/v1/prefetch", jsonType, strings.NewReader("{}")); resp.StatusCode != 405 {
		t.Errorf("%s", resp.Status)
	}
}

// TestPrefetchEight: so many run at a time, whatever the number of requests,
// and all end when their client leaves.
func TestPrefetchEight(t *testing.T) {
	entered, left := make(chan string, 100), make(chan string, 100)
	url := serve(t, Config{Transfers: fakeTransfers{prefetch: func(ctx context.Context, r PrefetchRequest, _ func(done, total int64)) (Transfer, error) {
		entered <- r.URL
		<-ctx.Done()
		left <- r.URL
		return Transfer{}, context.Cause(ctx)
	}}})
	var urls []string
	for i := range 20 {
		urls = append(urls, fmt.Sprintf("%q", fmt.Sprint("http://o/", i)))
	}
	body := `{"urls": [` + strings.Join(urls, ",") + `]}`
	leave := func() (context.CancelFunc, chan struct{}) {
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/prefetch", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", jsonType)
		done := make(chan struct{})
		go func() {
			defer close(done)
			if resp, err := http.DefaultClient.Do(req); err == nil {
				resp.Body.Close()
			}
		}()
		return cancel, done
	}
	first, firstDone := leave()
	second, secondDone := leave()
	for range maxPrefetches {
		<-entered
	}
	select {
	case u := <-entered:
		t.Errorf("%s runs beside %d others", u, maxPrefetches)
	case <-time.After(50 * time.Millisecond): // none may come
	}
	first()
	second()
	<-firstDone
	<-secondDone
	for range maxPrefetches {
		<-left
	}
}

// Progress is told while the body comes, also when little of it is left.
func TestImportEvents(t *testing.T) {
	for _, n := range []int{64 << 10, 1 << 20} {
		t.Run(fmt.Sprint(n), func(t *testing.T) { testImportEvents(t, bytes.Repeat([]byte("0123456789abcdef"), n/16)) })
	}
}

func testImportEvents(t *testing.T, data []byte) {
	var got ImportRequest
	var body []byte
	step := make(chan struct{})
	base := serve(t, Config{Transfers: fakeTransfers{imports: func(_ context.Context, r ImportRequest, progress func(done, total int64)) (Transfer, error) {
		got = r
		if r.URL == "http://o/refused" {
			return Transfer{}, errors.New("another size")
		}
		half := make([]byte, len(data)/2)
		if _, err := io.ReadFull(r.Body, half); err != nil {
			return Transfer{}, err
		}
		progress(int64(len(half)), r.Size)
		<-step // the client has seen that before it sends the rest
		rest, err := io.ReadAll(r.Body)
		body = append(half, rest...)
		return Transfer{Imported: int64(len(body))}, err
	}}})
	q := url.Values{"url": {"http://o/f?x=1&y=2"}, "pin": {"true"}, "digest": {"sha256:00"}, "etag": {`"a b"`}, "last_modified": {"Fri, 02 Jan 2026 03:04:05 GMT"}}
	pr, pw := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/v1/import?"+q.Encode(), pr)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = int64(len(data))
	req.Header.Set("Content-Type", fileType)
	sent := make(chan error, 1)
	go func() {
		_, err := pw.Write(data[:len(data)/2])
		sent <- err
	}()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	scan := bufio.NewScanner(resp.Body)
	if !scan.Scan() {
		t.Fatalf("no progress before the body's end: %v", scan.Err())
	}
	if ev := lines(t, scan.Text())[0]; ev.Event != "progress" || ev.Done != int64(len(data)/2) || ev.Total != int64(len(data)) {
		t.Errorf("%+v", ev)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := pw.Write(data[len(data)/2:])
		sent <- errors.Join(err, pw.Close())
	}()
	close(step)
	if !scan.Scan() {
		t.Fatalf("no result: %v", scan.Err())
	}
	if ev := lines(t, scan.Text())[0]; ev.Event != "result" || ev.Error != "" || ev.Bytes.Imported != int64(len(data)) || ev.URL != "http://o/f?x=1&y=2" {
		t.Errorf("%+v", ev)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if !bytes.Equal(body, data) || got.Size != int64(len(data)) || got.URL != q.Get("url") || got.Digest != q.Get("digest") || got.ETag != q.Get("etag") || got.LastModified != q.Get("last_modified") || !got.Pin {
		t.Errorf("%d bytes of %+v", len(body), got)
	}
	// Refused before the body, which then is not sent.
	refused, text := post(t, base+"/v1/import?url=http://o/refused", fileType, bytes.NewReader(data), "Expect", "100-continue")
	if refused.StatusCode != 422 || results(lines(t, text))["http://o/refused"].Error != "another size" {
		t.Errorf("%s %s", refused.Status, text)
	}
}

// TestImportCut: an import ends when its client leaves, and when the server
// does, in the middle of a body of which nothing more comes.
func TestImportCut(t *testing.T) {
	for _, c := range []string{"client", "server"} {
		t.Run(c, func(t *testing.T) {
			t.Cleanup(func() { goleak.VerifyNone(t) })
			entered, failed := make(chan struct{}), make(chan error, 1)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s := NewServer(l, New(Config{Transfers: fakeTransfers{imports: func(_ context.Context, r ImportRequest, _ func(done, total int64)) (Transfer, error) {
				close(entered)
				_, err := io.ReadAll(r.Body)
				failed <- err
				return Transfer{}, err
			}}, Logger: slog.New(slog.DiscardHandler)}), slog.New(slog.DiscardHandler))
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- s.Run(ctx) }()
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "POST /v1/import?url=http://o/f HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: 100\r\n\r\nfirst", fileType)
			<-entered
			started := time.Now()
			if c == "client" {
				conn.Close()
			} else {
				cancel()
			}
			if err := <-failed; err == nil {
				t.Error("the body ended well")
			}
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
			if took := time.Since(started); took > shutdownGraceTime {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// TestImportBodyTimeout: a body that stops fails; one that has ended does not,
// however long the rest takes.
func TestImportBodyTimeout(t *testing.T) {
	const timeout = 50 * time.Millisecond
	ended, failed := make(chan error, 1), make(chan error, 1)
	base := serve(t, Config{bodyTimeout: timeout, Transfers: fakeTransfers{imports: func(ctx context.Context, r ImportRequest, _ func(done, total int64)) (Transfer, error) {
		_, err := io.ReadAll(r.Body)
		if r.URL == "http://o/stops" {
			failed <- err
			return Transfer{}, err
		}
		if n, err := r.Body.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("behind the end: %d bytes, %v", n, err)
		}
		select {
		case <-ctx.Done():
			ended <- context.Cause(ctx)
		case <-time.After(4 * timeout):
			ended <- err
		}
		return Transfer{}, err
	}}})
	if resp, text := post(t, base+"/v1/import?url=http://o/f", fileType, strings.NewReader("all of it")); resp.StatusCode != 200 {
		t.Errorf("%s %s", resp.Status, text)
	}
	if err := <-ended; err != nil {
		t.Errorf("a body that had ended: %v", err)
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/import?url=http://o/stops HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: 100\r\n\r\nfirst", fileType)
	if err := <-failed; err == nil {
		t.Error("a body that stopped ended well")
	}
}

func TestImportsAtOnce(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	url := serve(t, Config{Transfers: fakeTransfers{imports: func(context.Context, ImportRequest, func(done, total int64)) (Transfer, error) {
		entered <- struct{}{}
		<-leave
		return Transfer{}, nil
	}}})
	var all sync.WaitGroup
	statuses := make(chan int, maxImports)
	for range maxImports {
		all.Go(func() {
			resp, _ := post(t, url+"/v1/import?url=http://o/f", fileType, strings.NewReader("x"))
			statuses <- resp.StatusCode
		})
	}
	for range maxImports {
		<-entered
	}
	if resp, _ := post(t, url+"/v1/import?url=http://o/f", fileType, strings.NewReader("x")); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one too many: %s", resp.Status)
	}
	close(leave)
	all.Wait()
	close(statuses)
	for s := range statuses {
		if s != 200 {
			t.Errorf("status %d", s)
		}
	}
}

func TestIndexListsPosts(t *testing.T) {
	url := serve(t, Config{Transfers: fakeTransfers{}})
	if _, body := ask(t, http.MethodGet, url+"/", nil); !slices.Contains(strings.Split(body, "\n"), "/v1/prefetch (POST)") {
		t.Errorf("index %q", body)
	}
}
