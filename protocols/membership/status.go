package membership

import (
	"errors"
	"fmt"
	"slices"

	"github.com/p2pnode/p2pnode/protocols/membership/pb"
)

// Reasons of an answerer besides those of the certificate itself.
var (
	// ErrUsedUp: as many peers as the token allows have used it.
	ErrUsedUp = errors.New("join secret is used up")
	// ErrUnable: the peer issues nothing, or has no certificate of its own yet.
	ErrUnable = errors.New("peer issues no certificates, or is no member yet itself")
	// ErrBusy: the peer has no room; try again later.
	ErrBusy = errors.New("peer is busy")
)

// verdict is an error with its number on the wire.
type verdict struct {
	status pb.Status
	err    error
}

// statuses are the errors that have a number on the wire.
var statuses = []verdict{
	{pb.Status_OTHER_SWARM, ErrOtherSwarm},
	{pb.Status_EXPIRED, ErrExpired},
	{pb.Status_NOT_YET, ErrNotYet},
	{pb.Status_REVOKED, ErrRevoked},
	{pb.Status_USED_UP, ErrUsedUp},
	{pb.Status_UNABLE, ErrUnable},
	{pb.Status_BUSY, ErrBusy},
	{pb.Status_MALFORMED, ErrMalformed},
}

// statusOf returns the number of an error; MALFORMED where it has none.
func statusOf(err error) pb.Status {
	if err == nil {
		return pb.Status_OK
	}
	for _, s := range statuses {
		if errors.Is(err, s.err) {
			return s.status
		}
	}
	return pb.Status_MALFORMED
}

// known reports whether an error is a verdict, and not a broken exchange.
func known(err error) bool {
	return slices.ContainsFunc(statuses, func(v verdict) bool { return errors.Is(err, v.err) })
}

// RefusedError is what the peer at the other end answered.
type RefusedError struct{ err error }

// Error says that the other end refused, and why.
func (e *RefusedError) Error() string { return "refused by the peer: " + e.err.Error() }

// Unwrap returns one of the errors of this package.
func (e *RefusedError) Unwrap() error { return e.err }

// errorOf returns nil for OK, else a *RefusedError.
func errorOf(s pb.Status) error {
	if s == pb.Status_OK {
		return nil
	}
	for _, k := range statuses {
		if s == k.status {
			return &RefusedError{k.err}
		}
	}
	return &RefusedError{fmt.Errorf("%w: status %d", ErrMalformed, s)}
}
