package prefetch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/net/http/httpguts"
	"golang.org/x/sync/semaphore"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed"
)

// Map knows who owns a stripe.
type Map interface {
	// Owner returns the seed that owns a stripe, of those not in skip; false
	// where there is none.
	Owner(task content.TaskID, stripe int64, sequential bool, skip []peer.ID) (peer.ID, bool)
	// Version of the map, for requests.
	Version() (epoch, seq uint64)
	// MayGrant reports whether a peer is a seed by the word of a supernode:
	// credentials are shown to no other.
	MayGrant(p peer.ID) bool
}

// Peers asks a peer to bring in what it lacks of a range.
type Peers interface {
	// Fill returns when the peer holds the range. Errors: *rangeread.Error,
	// and those of the connection.
	Fill(ctx context.Context, p peer.ID, req rangeread.Request) (rangeread.Header, error)
}

// Health hears how peers answered.
type Health interface {
	Success(p peer.ID, firstByte time.Duration)
	Failure(p peer.ID)
}

// Config says what a Prefetcher works with. All but Filter and Logger are required.
type Config struct {
	Self   peer.ID
	Files  *seed.Manager
	Map    Map
	Peers  Peers
	Health Health
	// Filter returns the swarm's query filter; nil: there is none.
	Filter func() content.Filter
	// Logger; nil discards.
	Logger *slog.Logger
}

// asks is how many stripes peers are asked for at a time, by everything
// together: a quarter of what one peer answers this node at once.
const asks = rangeread.MaxReads / 4

// maxCredentials bounds the bytes of credentials; it is that of the HTTP faces.
const maxCredentials = 12 << 10

// Prefetcher brings files in. Its methods are safe for concurrent use.
type Prefetcher struct {
	cfg  Config
	log  *slog.Logger
	asks *semaphore.Weighted
}

// New returns a Prefetcher. It starts nothing.
func New(cfg Config) *Prefetcher {
	p := &Prefetcher{cfg: cfg, log: cfg.Logger, asks: semaphore.NewWeighted(asks)}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.cfg.Filter == nil {
		p.cfg.Filter = func() content.Filter { return content.Filter{} }
	}
	return p
}

// Request says what to bring in, and where.
type Request struct {
	URL string
	// Header is what a private file's origin wants to see: Authorization and
	// Cookie, no other field. It goes to that origin and to seeds that ask it.
	Header http.Header
	// Off and Len are the part that is wanted. A negative Off counts from the
	// file's end; a negative Len reaches to it.
	Off, Len int64
	// Seeds asks the elected seeds to hold it; else this node does.
	Seeds bool
	// Pin keeps it from being evicted here; not with Seeds.
	Pin bool
}

// Result says, in bytes of whole blocks, where they were before: held where
// they were wanted, at a peer, at the origin; or in the body of an import.
type Result struct{ Local, Peer, Origin, Imported int64 }

// openTries bounds how often a file is opened anew because it changed.
const openTries = 3

// Fetch brings a file, or a part of one, in, and returns when it is stored.
// progress hears the bytes that are there and their sum, one call at a time.
//
// Errors: ErrArgument, content.ErrURL, and those of seed.Manager.Open and
// seed.File.Prefetch.
func (p *Prefetcher) Fetch(ctx context.Context, r Request, progress func(done, total int64)) (Result, error) {
	if r.Pin && r.Seeds {
		return Result{}, fmt.Errorf("%w: pins are kept here, not on other nodes", ErrArgument)
	}
	task, origin, err := p.name(r.URL)
	if err == nil {
		origin.Header, err = credentials(r.Header)
	}
	if err != nil {
		return Result{}, err
	}
	var got Result
	for range openTries {
		if got, err = p.fetch(ctx, task, origin, r, progress); !errors.Is(err, seed.ErrChanged) {
			break
		}
	}
	return got, err
}

// name returns the task of a URL, and what its seeds need to know.
func (p *Prefetcher) name(raw string) (content.Task, rangeread.Origin, error) {
	task, err := content.NewTask(raw, p.cfg.Filter())
	raw, _, _ = strings.Cut(raw, "#")
	return task, rangeread.Origin{URL: raw, FilterVersion: task.FilterVersion, Size: -1}, err
}

// credentials checks what is to be shown to an origin, and puts it into its form.
func credentials(h http.Header) ([]rangeread.Field, error) {
	size := 0
	for name, values := range h {
		for _, v := range values {
			size += len(name) + len(v)
			if name != "Authorization" && name != "Cookie" || !httpguts.ValidHeaderFieldValue(v) {
				return nil, fmt.Errorf("%w: header field %q: only Authorization and Cookie are shown to an origin, on one line each", ErrArgument, name)
			}
		}
	}
	if size > maxCredentials {
		return nil, fmt.Errorf("%w: header fields of %d bytes: at most %d", ErrArgument, size, maxCredentials)
	}
	return rangeread.Fields(h), nil
}

func (p *Prefetcher) fetch(ctx context.Context, task content.Task, origin rangeread.Origin, r Request, progress func(done, total int64)) (Result, error) {
	open := seed.Request{Task: task, Origin: origin}
	if r.Off >= 0 && !r.Seeds {
		open.Want = content.Range{Off: r.Off, Len: 1} // comes with the metadata, in one request
	}
	f, err := p.cfg.Files.Open(ctx, open)
	var behind *seed.RangeError
	if errors.As(err, &behind) && behind.Size == 0 && r.Off == 0 {
		return Result{}, nil // an empty file
	}
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = f.Close() }()
	want, err := r.resolve(f.Meta().Size)
	if err != nil || want.Empty() {
		return Result{}, err
	}
	if r.Seeds {
		return p.spread(ctx, f, spread{task: task, meta: f.Meta(), want: want}, progress)
	}
	got, err := f.Prefetch(ctx, []content.Range{want}, r.Pin, progress)
	return local(got), err
}

// Unpin ends the pins of a file, or of a part of one, and returns how many bytes
// were pinned; Seeds and Pin mean nothing.
//
// Errors: content.ErrURL, and seed.ErrNotFound where nothing is known of the
// file here.
func (p *Prefetcher) Unpin(r Request) (int64, error) {
	task, _, err := p.name(r.URL)
	if err != nil {
		return 0, err
	}
	return p.cfg.Files.Unpin(task.ID, r.resolve)
}

func local(f seed.Fetched) Result { return Result{Local: f.Local, Peer: f.Peer, Origin: f.Origin} }

// resolve returns the part of a file of size bytes that is wanted.
func (r Request) resolve(size int64) (content.Range, error) {
	from, whole := r.Off, content.Range{Len: size}
	if from < 0 {
		from = max(0, size+from)
	}
	want := content.Range{Off: from, Len: r.Len}
	if r.Len < 0 {
		want = content.Span(from, size)
	}
	if want = want.Intersect(whole); want.Empty() && from > 0 {
		return want, fmt.Errorf("from byte %d on: %w", from, &seed.RangeError{Size: size})
	}
	return want, nil
}
