package rangeread

import (
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/protocols/rangeread/pb"
)

// Status is the outcome of a request, numbered as on the wire.
type Status = pb.Status

// The statuses; SPEC.md says what a reader does on each.
const (
	StatusOK           = pb.Status_OK
	StatusRefer        = pb.Status_REFER
	StatusBusy         = pb.Status_BUSY
	StatusNotFound     = pb.Status_NOT_FOUND
	StatusForbidden    = pb.Status_FORBIDDEN
	StatusChanged      = pb.Status_CHANGED
	StatusRange        = pb.Status_RANGE_NOT_SATISFIABLE
	StatusSequential   = pb.Status_SEQUENTIAL
	StatusOriginError  = pb.Status_ORIGIN_ERROR
	StatusNotSupported = pb.Status_NOT_SUPPORTED
	StatusBadRequest   = pb.Status_BAD_REQUEST
	StatusInternal     = pb.Status_INTERNAL
	StatusGrant        = pb.Status_GRANT_REQUIRED
)

// Error is an answer other than OK. A Handler returns it to have its status
// sent; a Client returns it for a status received.
type Error struct {
	Status Status
	// OriginStatus is the origin's HTTP status, 0 where there was none.
	OriginStatus int
	// RetryAfter is when to come again; 0 means not said.
	RetryAfter time.Duration
	// Detail says what failed, for people; cut to 512 bytes on the wire.
	Detail string
	// Size of the file with StatusRange, -1 where not known.
	Size int64
	// Peer that answered; empty at the source itself.
	Peer peer.ID
	// Holders come with StatusRefer.
	Holders []peer.AddrInfo
}

// Error implements error.
func (e *Error) Error() string {
	s := "range read: " + e.Status.String()
	if e.Peer != "" {
		s += " from " + e.Peer.String()
	}
	if e.OriginStatus != 0 {
		s += fmt.Sprintf(", origin status %d", e.OriginStatus)
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// NewError returns an Error with a status and a detail.
func NewError(s Status, format string, args ...any) *Error {
	return &Error{Status: s, Detail: fmt.Sprintf(format, args...), Size: -1}
}

// StatusOf returns the status that err carries: StatusOK for nil,
// StatusInternal for an error of another kind.
func StatusOf(err error) Status {
	if err == nil {
		return StatusOK
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	return StatusInternal
}

// Errors of a Body and of Client.Open that say something of the source.
var (
	// ErrSilent: nothing was heard for the silence time.
	ErrSilent = errors.New("source is silent")
	// ErrStalled: the source said nothing but WAIT for too long.
	ErrStalled = errors.New("source only waits")
	// ErrConnection: ClientConfig.Allow refused the connection to the source.
	ErrConnection = errors.New("files are not read over this connection")
	// ErrCorrupt: a leaf or a signature was wrong. Nothing wrong was yielded.
	ErrCorrupt = errors.New("source sent wrong bytes")
	// ErrProtocol: the source broke the protocol.
	ErrProtocol = errors.New("source broke the protocol")
)
