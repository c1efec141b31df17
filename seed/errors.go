package seed

import (
	"errors"
	"fmt"
	"time"

	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed/store"
)

// Errors that readers branch on.
var (
	// ErrNotSupported: the swarm does not carry this file; read the origin.
	ErrNotSupported = errors.New("the swarm does not carry this file")
	// ErrChanged: the content is of another generation than the one asked for.
	// From then on the old one is only for those who ask for it by name: the
	// next Open of the task finds out anew what there is.
	ErrChanged = errors.New("content has changed")
	// ErrConflict: two sources, each by its own proof, sent different bytes of
	// one block of one generation. The block is not kept.
	ErrConflict = errors.New("sources disagree on the content")
	// ErrUnavailable: no source could be reached.
	ErrUnavailable = errors.New("no source can be reached")
	// ErrNotFound: nothing is held, and nothing may be fetched.
	ErrNotFound = errors.New("not held here")
)

// Errors of a flight that its readers do not see, unless their next try fails
// too.
var (
	// errAbandoned ends a job that nobody follows any more.
	errAbandoned = errors.New("nobody waits for these bytes any more")
	// errMissed: the job ended, but did not come to this block.
	errMissed = errors.New("fill ended without this block")
	// errDropped: the store refused the block, and its buffer was needed before
	// anybody read it.
	errDropped = errors.New("block was not kept")
)

// OriginError says that the origin refused, or could not be reached.
type OriginError struct {
	// Status is the origin's HTTP status, 0 where it could not be reached.
	Status int
	// RetryAfter is when the origin may be asked again; 0 where not said.
	RetryAfter time.Duration
	// Detail says what failed, for people.
	Detail string
}

// Error implements error.
func (e *OriginError) Error() string {
	if e.Status == 0 {
		return "origin cannot be reached: " + e.Detail
	}
	return fmt.Sprintf("origin answered %d: %s", e.Status, e.Detail)
}

// RangeError says that an offset lies at or behind the file's end.
type RangeError struct{ Size int64 }

// Error implements error.
func (e *RangeError) Error() string {
	return fmt.Sprintf("range starts behind the end of %d bytes", e.Size)
}

// passes reports whether a failure says nothing of other blocks, and may be over
// by the next try.
func passes(err error) bool {
	var origin *OriginError
	if errors.As(err, &origin) {
		return origin.Status == 0 || origin.Status == 429 || origin.Status >= 500
	}
	return errors.Is(err, ErrUnavailable)
}

// wireError makes an error what a peer is told of it.
func wireError(err error) error {
	var answer *rangeread.Error
	var origin *OriginError
	var rng *RangeError
	switch {
	case err == nil || errors.As(err, &answer):
		return err
	case errors.As(err, &origin):
		return &rangeread.Error{
			Status: rangeread.StatusOriginError, OriginStatus: origin.Status,
			RetryAfter: origin.RetryAfter, Detail: origin.Detail, Size: -1,
		}
	case errors.As(err, &rng):
		return &rangeread.Error{Status: rangeread.StatusRange, Size: rng.Size, Detail: err.Error()}
	case errors.Is(err, store.ErrFull): // here; others may have room
		return rangeread.NewError(rangeread.StatusNotFound, "%v", err)
	case errors.Is(err, ErrPrivate) && !errors.Is(err, ErrUnavailable): // a seed vouches for no other's word
		return rangeread.NewError(rangeread.StatusGrant, "%v", ErrPrivate)
	case errors.Is(err, ErrNotSupported):
		return rangeread.NewError(rangeread.StatusNotSupported, "%v", err)
	case errors.Is(err, ErrChanged):
		return rangeread.NewError(rangeread.StatusChanged, "%v", err)
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrUnavailable), errors.Is(err, errAbandoned), errors.Is(err, errMissed):
		return rangeread.NewError(rangeread.StatusNotFound, "%v", err)
	default:
		return err
	}
}
