package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
	"github.com/p2pnode/p2pnode/protocols/fetch/pb"
	"github.com/p2pnode/p2pnode/protocols/internal/frame"
)

// ClientConfig holds what is optional; its zero value is good.
type ClientConfig struct {
	// Timeout of one request and its page; 0 is DefaultTimeout.
	Timeout time.Duration
	// Registerer of the metrics; nil for none.
	Registerer prometheus.Registerer
}

// Client fetches updates. It is safe for concurrent use.
type Client struct {
	service  frame.Service
	timeout  time.Duration
	maxBytes int
}

// NewClient returns a client.
func NewClient(h host.Host, cfg ClientConfig) *Client {
	c := &Client{service: newService(h, Limits{}, nil, cfg.Registerer), timeout: cfg.Timeout, maxBytes: MaxBytes}
	if c.timeout == 0 {
		c.timeout = DefaultTimeout
	}
	return c
}

func newService(h host.Host, limits Limits, log *slog.Logger, reg prometheus.Registerer) frame.Service {
	if log == nil {
		log = slog.Default()
	}
	return frame.Service{
		Host: h, Protocol: Protocol, Name: ServiceName, Memory: maxRequest + maxPage,
		Limits: limits.Or(DefaultLimits), Metrics: frame.NewMetrics(reg, "fetch"), Logger: log,
	}
}

// Since returns what a peer has behind the cursors of the tasks that want names,
// nil for all, and perhaps of others, page by page, in the order
// in which it came. Nothing of it is verified: the caller opens each entry.
// complete says that the peer had no more; it is false where the answer reached
// MaxPages or MaxBytes. On an error the entries of the pages before it are
// returned too, and are of use.
func (c *Client) Since(ctx context.Context, from peer.ID, cursors []assignment.Cursor, want *content.Prefixes) (entries []assignment.Signed, complete bool, err error) {
	st, err := c.service.Open(ctx, from)
	if err != nil {
		c.service.Metrics.Count(err)
		return nil, false, err
	}
	q := query{
		in: frame.NewReader(st, maxPage), out: frame.NewWriter(st, maxRequest), cursors: slices.Clone(cursors), want: want,
	}
	for q.seq < MaxPages && q.bytes < c.maxBytes {
		var more bool
		err := frame.Interruptible(ctx, st, c.timeout, func() (err error) {
			more, err = q.page()
			return err
		})
		if err != nil {
			_ = st.Reset()
			if ctx.Err() == nil {
				c.service.Metrics.Count(err)
			}
			return q.entries, false, fmt.Errorf("fetch page %d from %s: %w", q.seq, from, err)
		}
		if !more {
			complete = true
			break
		}
	}
	_ = st.Close()
	return q.entries, complete, nil
}

// query is one call of Since.
type query struct {
	in      *frame.Reader
	out     *frame.Writer
	seq     uint64
	cursors []assignment.Cursor
	want    *content.Prefixes
	entries []assignment.Signed
	bytes   int
}

// page asks for one page and takes it in.
func (q *query) page() (more bool, err error) {
	q.seq++
	if err := q.out.Write(requestToProto(q.seq, q.cursors, q.want)); err != nil {
		return false, err
	}
	var m pb.Page
	if err := q.in.Read(&m); err != nil {
		if errors.Is(err, io.EOF) {
			return false, io.ErrUnexpectedEOF
		}
		return false, err
	}
	if m.GetSeq() != q.seq {
		return false, frame.Malformed("page of request %d", m.GetSeq())
	}
	entries, err := pageFromProto(&m)
	if err != nil {
		return false, err
	}
	progress, err := q.advance(entries)
	if err != nil {
		return false, err
	}
	if m.GetMore() && !progress {
		return false, ErrNoProgress
	}
	q.entries = append(q.entries, entries...)
	return m.GetMore(), nil
}

// advance moves the cursors behind the entries and reports whether any moved.
func (q *query) advance(entries []assignment.Signed) (progress bool, err error) {
	for _, e := range entries {
		q.bytes += e.Size()
		c, err := e.Cursor()
		if err != nil {
			return false, err
		}
		i := slices.IndexFunc(q.cursors, func(o assignment.Cursor) bool { return o.Supernode == c.Supernode })
		switch {
		case i >= 0 && c.Compare(q.cursors[i]) > 0:
			q.cursors[i] = c
		case i < 0 && len(q.cursors) < maxCursors:
			q.cursors = append(q.cursors, c)
		case i < 0:
			return false, frame.Malformed("entries of more than %d supernodes", maxCursors)
		default:
			continue
		}
		progress = true
	}
	return progress, nil
}
