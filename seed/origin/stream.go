package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/p2pnode/p2pnode/internal/content"
)

// stream is the body of a Get: the bodies of as many answers as it takes.
type stream struct {
	left  Request // what is still to come, of the generation that was found
	size  int64   // of the file
	retry *retry
	// more asks for left, under the context of Get, first or after a failure.
	more   func(failed error) (*Response, error)
	cancel context.CancelFunc
	err    error // once not nil, what every Read returns

	mu sync.Mutex
	// mu guards the following: Close may be called while Read blocks.
	part   io.ReadCloser // of one answer
	closed bool
}

// stream asks for r until an answer is good, and makes the rest follow it.
func (c *Client) stream(ctx context.Context, r Request) (*Response, error) {
	if r.Range.Len <= 0 {
		r.Range = content.Range{}
	}
	if r.Range.Off < 0 {
		return nil, fmt.Errorf("ask for %v: no such range", r.Range)
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &stream{left: r, retry: c.newRetry(), cancel: cancel}
	s.more = func(failed error) (*Response, error) {
		if failed != nil {
			s.left.resumed = true
			if err := s.retry.after(ctx, s.left, failed, "resume"); err != nil {
				return nil, err
			}
		}
		return s.retry.do(ctx, s.left, c.ask)
	}
	resp, err := s.more(nil)
	if err != nil {
		cancel()
		return nil, err
	}
	s.size, s.part = resp.Meta.Size, resp.Body
	s.left.Expect, s.left.Size, s.left.Range = resp.Meta.Generation, s.size, promised(r.Range, resp)
	whole := *resp
	whole.Range, whole.Body = s.left.Range, s
	return &whole, nil
}

// promised is what the stream yields after a first answer: of a file that comes
// in ranges what was asked, though the answer may hold the first part only.
func promised(asked content.Range, resp *Response) content.Range {
	if asked.Empty() || resp.Meta.Size < 0 || resp.Range.Off < asked.Off || resp.Range.End() > asked.End() {
		return resp.Range
	}
	return asked.Intersect(content.Range{Len: resp.Meta.Size})
}

// Read follows io.Reader; see Response.Body for the errors.
func (s *stream) Read(p []byte) (int, error) {
	for s.err == nil && !s.left.Range.Empty() && len(p) > 0 {
		n, err := s.part.Read(p[:min(int64(len(p)), s.left.Range.Len)])
		s.left.Range = content.Span(s.left.Range.Off+int64(n), s.left.Range.End())
		s.retry.came += n
		switch {
		case n > 0:
			return n, nil // part keeps its error
		case errors.Is(err, io.EOF) && s.size < 0:
			s.err = io.EOF
		case errors.Is(err, io.EOF):
			s.part.Close()
			s.next(nil)
		case err != nil:
			s.part.Close()
			s.next(err)
		}
	}
	if s.err == nil && s.left.Range.Empty() {
		s.err = io.EOF
	}
	return 0, s.err
}

// next has part begin with the next byte, or sets err.
func (s *stream) next(failed error) {
	for {
		resp, err := s.more(failed)
		if err == nil && resp.Meta.Size != s.size { // a digest's generation does not tell
			resp.Body.Close()
			err = fmt.Errorf("%d bytes, were %d: %w", resp.Meta.Size, s.size, ErrChanged)
		}
		if err == nil {
			err = s.take(resp.Body)
		}
		if err != nil {
			s.err = err
			return
		}
		// An origin without ranges begins at the first byte again.
		if _, failed = io.CopyN(io.Discard, resp.Body, s.left.Range.Off-resp.Range.Off); failed == nil {
			return
		}
		resp.Body.Close()
	}
}

// take makes part what Close closes.
func (s *stream) take(part io.ReadCloser) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		part.Close()
		return fmt.Errorf("body closed: %w", context.Canceled)
	}
	s.part = part
	return nil
}

// Close stops the transfer. It may be called while a Read blocks, and more than
// once.
func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.cancel()
	return s.part.Close()
}
