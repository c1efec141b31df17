package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/p2pnode/p2pnode/node/admin"
)

const (
	// bodyWait is how long a daemon may look at a request before it takes its
	// body: it asks the origin what the file is.
	bodyWait = 5 * time.Minute
	// maxEvent bounds one line of an answer.
	maxEvent = 1 << 20
)

// transfer is one order to a daemon, and what is shown of its events.
type transfer struct {
	a   *app
	raw bool // as JSON
	// verb names the order in errors; urls is how many results there must be.
	verb string
	urls int

	results, failed int
	only            error                  // of the only URL, where it failed
	last            map[string]admin.Event // by URL
	done, total     int64                  // sums over last
	bar             *bar
}

func (a *app) newTransfer(verb string, urls int, raw bool) *transfer {
	return &transfer{a: a, verb: verb, urls: urls, raw: raw, last: make(map[string]admin.Event)}
}

// post sends one request and shows the events of its answer.
func (t *transfer) post(ctx context.Context, d running, path, contentType string, body io.Reader, size int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.page(path), body)
	if err != nil {
		return fmt.Errorf("ask %s: %w", d.Admin, err)
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Expect", "100-continue") // what is refused need not be sent
	transport := d.transport()
	transport.DisableCompression, transport.ExpectContinueTimeout = true, bodyWait
	client := &http.Client{Transport: transport}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the daemon: %w", err)
	}
	defer res.Body.Close()
	if res.Header.Get("Content-Type") != "application/x-ndjson" {
		return refusal(res)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, maxEvent)
	for t.results < t.urls && lines.Scan() { // of a body that is refused the rest need not be sent
		if err := t.event(lines.Bytes()); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil && t.results < t.urls {
		return fmt.Errorf("the daemon broke off after %d of %d results: %w: run it again to continue", t.results, t.urls, err)
	}
	return nil
}

// refusal is the error of an answer that has no events.
func refusal(res *http.Response) error {
	var answer struct{ Error string }
	body, err := io.ReadAll(io.LimitReader(res.Body, maxEvent))
	if err == nil && json.Unmarshal(body, &answer) == nil && answer.Error != "" {
		return fmt.Errorf("the daemon answered %s: %s", res.Status, oneLine(answer.Error))
	}
	return fmt.Errorf("the daemon answered %s: is it of this version, and no supernode alone?", res.Status)
}

// event takes in one line.
func (t *transfer) event(line []byte) error {
	var ev admin.Event
	if err := json.Unmarshal(line, &ev); err != nil {
		return fmt.Errorf("the daemon sent %q: %w", line, err)
	}
	before := t.last[ev.URL]
	t.done, t.total = t.done+ev.Done-before.Done, t.total+ev.Total-before.Total
	t.last[ev.URL] = ev
	if ev.Event != "result" {
		t.draw()
		if t.raw {
			return t.a.printJSON(line)
		}
		return nil
	}
	t.results++
	if t.bar != nil {
		t.bar.clear()
	}
	if err := t.result(ev, line); err != nil {
		return err
	}
	t.draw()
	return nil
}

// result shows how one URL ended.
func (t *transfer) result(ev admin.Event, line []byte) error {
	failure := ""
	if ev.Error != "" {
		t.failed++
		failure = fmt.Sprintf("%s %s: %s", t.verb, clean(ev.URL), oneLine(ev.Error))
		if t.urls == 1 {
			t.only = errors.New(failure)
		}
	}
	switch {
	case t.raw:
		if err := t.a.printJSON(line); err != nil {
			return err
		}
	case failure == "":
		_, err := fmt.Fprintln(t.a.stdout, outcome(ev))
		return err
	}
	if failure != "" && t.urls > 1 {
		fmt.Fprintln(t.a.stderr, "p2pnode: "+failure)
	}
	return nil
}

// outcome is one line about what is there now, and where it was before.
func outcome(ev admin.Event) string {
	var from []string
	var sum int64
	if b := ev.Bytes; b != nil {
		for _, part := range []struct {
			name  string
			bytes int64
		}{{"local", b.Local}, {"peer", b.Peer}, {"origin", b.Origin}, {"imported", b.Imported}} {
			if part.bytes > 0 {
				from = append(from, fmt.Sprintf("%s=%d", part.name, part.bytes))
				sum += part.bytes
			}
		}
	}
	return fmt.Sprintf("%s: %d bytes in %.1f s: %s", clean(ev.URL), sum, ev.Seconds, cmp.Or(strings.Join(from, " "), "nothing to do"))
}

// draw shows how much is there of all URLs that have begun.
func (t *transfer) draw() {
	if t.total == 0 {
		return
	}
	done := t.done
	if t.results < t.urls {
		done = min(done, t.total-1) // a full bar would be taken for the end
	}
	if t.bar == nil {
		file := t.a.terminal()
		if file == nil {
			return
		}
		t.bar = newBar(file, done, t.total)
	}
	t.bar.set(done, t.total)
}

// end closes the bar, and returns the error of the whole.
func (t *transfer) end(ctx context.Context, err error) error {
	if t.bar != nil {
		_ = t.bar.Close() // a bar that cannot be drawn is no failure
	}
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w with %d of %d results: run it again to continue", t.verb, errInterrupted, t.results, t.urls)
	case err != nil:
		return fmt.Errorf("%s: %w", t.verb, err)
	case t.only != nil:
		return t.only
	case t.failed > 0:
		return fmt.Errorf("%s: %d of %d URLs failed: see above", t.verb, t.failed, t.urls)
	case t.results < t.urls:
		return fmt.Errorf("%s: the daemon ended after %d of %d results: run it again to continue", t.verb, t.results, t.urls)
	}
	return nil
}
