package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
)

// Opener opens files of the swarm. Safe for concurrent use. Open returns when
// the file's metadata is known, or one of these errors, wrapped with a reason:
//
//   - ErrPassThrough: the swarm does not carry this file; the proxy reads the
//     origin directly, and does not ask again for a minute.
//   - *OriginError: the origin answered something other than the file.
//   - ErrUnavailable: no source could be reached; the client gets 502, or 504
//     where the error wraps a timeout.
//   - ErrPrivate: the origin gives the file only to who has credentials, and these
//     are not among them, or there are none: the client gets the origin's answer.
//   - ErrNotHeld: the request said Held; 504.
//   - ErrForbidden: policy keeps this client from that origin; 403.
//   - the error of ctx.
type Opener interface {
	Open(ctx context.Context, req Request) (File, error)
}

// Request says which file, for whom, and what will be read of it.
type Request struct {
	Task content.Task
	// URL is the full URL as the client gave it, neither canonical nor
	// filtered: the origin may need a signature that is not in Task.URL.
	URL string
	// Want is what will be read first, so that metadata and first bytes can
	// come in one round trip. It is a hint: the reads that follow may differ.
	Want Want
	// MetaOnly says that nothing will be read (HEAD).
	MetaOnly bool
	// Demand is how current the answer must be.
	Demand Demand
	// Held asks for what this node holds of Want, and to ask nobody:
	// ErrNotHeld otherwise.
	Held bool
	// Prefetch is what a rule says of how much is to be brought in: see Rule.
	Prefetch string
	// Credentials are the client's Authorization and Cookie for the origin, and
	// nothing else. With them, or with a signature in URL, what the origin gives
	// only to some is given to this client if it is one of them.
	Credentials http.Header
	// Local says that the client sits on this machine's loopback, and may
	// reach whatever the machine can.
	Local bool
}

// Want is a range of a file whose size may not be known yet.
type Want struct {
	// Whole is set for a request without a range. Off is then 0, and Len -1.
	Whole bool
	// Off and Len are the range; Len is -1 for "to the end".
	Off, Len int64
	// Suffix, where positive, asks for that many bytes from the end instead
	// of Off and Len, which are zero.
	Suffix int64
}

// File is one generation of one file, open for one client. Its methods are
// called by one goroutine.
type File interface {
	// Meta returns the origin's metadata. Its Size is -1 where the origin does not
	// tell it, and has not come to the end; only where the request wants the whole
	// file, or its metadata. Then Prime and Copy are about all of it, whatever
	// their range.
	Meta() content.Meta
	// CacheControl returns the origin's Cache-Control field, or "".
	CacheControl() string
	// Age returns how long ago the origin sent or confirmed this generation.
	Age() time.Duration
	// Source returns where the first byte came from: "local", "peer" or
	// "origin"; "" while that is not known. Valid after Prime.
	Source() string
	// Prime waits until the first byte of r, which is not empty, can be
	// delivered. It returns the errors of Open, while they can still become a
	// status.
	Prime(ctx context.Context, r content.Range) error
	// Copy writes exactly r, which is not empty, to w: in order, verified
	// bytes only. It returns how many bytes were written, and an error where
	// these are fewer; of an error before the first byte n is 0.
	Copy(ctx context.Context, w io.Writer, r content.Range) (n int64, err error)
	// Tally returns the bytes by source of all copies so far.
	Tally() (local, peer, origin int64)
	Close() error
}

var (
	// ErrPassThrough says that the swarm does not carry a file.
	ErrPassThrough = errors.New("not carried by the swarm")
	// ErrUnavailable says that no source of a file could be reached.
	ErrUnavailable = errors.New("no source could be reached")
	// ErrPrivate says that a file is not for this client, as far as the swarm can
	// tell.
	ErrPrivate = errors.New("for clients with credentials alone")
	// ErrNotHeld says that a file would have to be fetched, which the client
	// does not want.
	ErrNotHeld = errors.New("not held by this node")
	// ErrForbidden says that policy keeps a client from a destination. Dial
	// functions and transports may return it too.
	ErrForbidden = errors.New("destination not allowed")
	// ErrLoop says that a destination is this node itself: 508. Dial functions and
	// transports return it where Config.Self did not know.
	ErrLoop = errors.New("this request leads back to this node")
)

// OriginError says that the origin answered something other than the file.
type OriginError struct {
	// Status is the origin's status, 300 or above: the proxy asks the origin
	// itself, so that the client sees the origin's own answer. It is 0 where
	// the origin did not answer: 502, or 504 where the error that was returned
	// also wraps a timeout.
	Status int
	// Header holds fields of the origin's answer that the client may be shown.
	Header http.Header
	// Detail is a short text for people.
	Detail string
	// RetryAfter, where positive, is how long the origin is to be left alone: of
	// a 429 or a status from 500 on the proxy then repeats the status to the
	// client instead of asking the origin, which would get past the budget of
	// those who asked it.
	RetryAfter time.Duration
}

// Error returns the status and the detail.
func (e *OriginError) Error() string {
	if e.Status == 0 {
		return "origin did not answer: " + e.Detail
	}
	return fmt.Sprintf("origin answered %d %s: %s", e.Status, http.StatusText(e.Status), e.Detail)
}

// repeatable reports whether the origin is to be left alone, so that its status
// is passed on without asking it.
func (e *OriginError) repeatable() bool {
	return e.RetryAfter > 0 && (e.Status == http.StatusTooManyRequests || e.Status >= http.StatusInternalServerError)
}
