package plan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// readBuffer is how much a client takes at once, in bytes.
const readBuffer = 64 << 10

// Reading is a read to be made.
type Reading struct {
	Phase string
	File  File
	// Off and Len are the range; Len 0 is the whole file.
	Off, Len int64
	// Began is the phase's beginning; zero is the read's own.
	Began time.Time
	// Passed, where set, is told how many bytes have come, in the reader's
	// goroutine.
	Passed func(n int64)
}

// Read reads through the node's proxy, as a client without retries, checks
// every byte, notes the read, and returns what was wrong with it.
func (s *Station) Read(ctx context.Context, r Reading) (ReadRecord, error) {
	rec := ReadRecord{Phase: r.Phase, Node: s.number, Site: s.site, File: r.File.Index, Off: r.Off, Len: r.Len}
	if r.Len == 0 {
		rec.Len = r.File.Size - r.Off
	}
	start := time.Now()
	if !r.Began.IsZero() {
		rec.StartMs = ms(start.Sub(r.Began))
	}
	err := s.read(ctx, r, &rec, start)
	if err != nil {
		rec.Err = err.Error()
		err = fmt.Errorf("%s: read of file %d, [%d,%d): %w", s.name, r.File.Index, r.Off, r.Off+rec.Len, err)
	}
	s.w.rec.put("read", func(l *Record) { l.Read = &rec })
	return rec, err
}

func (s *Station) read(ctx context.Context, r Reading, rec *ReadRecord, start time.Time) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.w.setup.Origin+r.File.Path(), http.NoBody)
	if err != nil {
		return err
	}
	want := http.StatusOK
	if r.Len > 0 {
		want = http.StatusPartialContent
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", r.Off, r.Off+r.Len-1))
	}
	req.Header.Set("TE", "trailers")
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != want {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
		return fmt.Errorf("%s, want %d: %s", resp.Status, want, strings.TrimSpace(string(text)))
	}
	if err := s.body(r, rec, start, resp.Body); err != nil {
		return err
	}
	rec.Source = resp.Header.Get("P2pnode-Source")
	if rec.Source == "" {
		return errors.New("the response did not go through the swarm: it has no P2pnode-Source")
	}
	return sources(resp.Trailer.Get("P2pnode-Source-Bytes"), rec)
}

// body reads a response and checks it.
func (s *Station) body(r Reading, rec *ReadRecord, start time.Time, body io.Reader) error {
	check := newChecker(r.File, r.Off)
	buf := make([]byte, readBuffer)
	var n int64
	last := start
	for {
		got, err := body.Read(buf)
		now := time.Now()
		if got > 0 {
			if n == 0 {
				rec.FirstMs = ms(now.Sub(start))
			} else {
				rec.PauseMs = max(rec.PauseMs, ms(now.Sub(last)))
			}
			last = now
			n += int64(got)
			if _, err := check.Write(buf[:got]); err != nil {
				return err
			}
			if r.Passed != nil {
				r.Passed(n)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("after %d bytes: %w", n, err)
		}
	}
	rec.WholeMs = ms(last.Sub(start))
	if n != rec.Len {
		return fmt.Errorf("%d bytes, want %d", n, rec.Len)
	}
	return nil
}

// sources reads the trailer local=…,peer=…,origin=….
func sources(text string, rec *ReadRecord) error {
	for part := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return fmt.Errorf("trailer P2pnode-Source-Bytes %q: want local=…,peer=…,origin=…", text)
		}
		switch name {
		case "local":
			rec.Local = n
		case "peer":
			rec.Peer = n
		case "origin":
			rec.Origin = n
		}
	}
	return nil
}
