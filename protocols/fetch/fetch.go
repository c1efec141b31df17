// Package fetch asks a supernode, or any neighbour, for signed updates that
// gossip did not bring.
//
// What comes back is what the supernode signed, byte for byte, so it is as good
// from a neighbour; whether it is all there is shown by the hash in the
// heartbeat's acknowledgement. See SPEC.md for the wire.
package fetch

import (
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// Protocol is the protocol's ID.
const Protocol protocol.ID = "/p2pnode/fetch/1.0.0"

// DefaultTimeout is how long one request or one page may take: one heartbeat
// period, since what a lost answer keeps away must be there after two. A page of
// 64 KiB takes as long over 100 kbit/s.
const DefaultTimeout = 5 * time.Second

// ErrNoProgress: a page said that there is more, but brought nothing new.
var ErrNoProgress = errors.New("page without progress")

// Log is a map's memory of the signed updates that make it up.
type Log interface {
	// Since returns what is behind the cursors, for each supernode in ascending
	// order: of a supernode without a cursor everything, of an older epoch than
	// the newest nothing. The entries' sizes (assignment.Signed.Size) add up to
	// at most maxBytes, and more says that some are left; there is at least one
	// entry where more is true. It must not block. Updates that later ones made
	// void may be missing, and those of tasks that want does not name; nil names
	// all.
	Since(cursors []assignment.Cursor, want *content.Prefixes, maxBytes int) (entries []assignment.Signed, more bool)
}

// Bounds of a client's whole answer: at either it stops, incomplete.
const (
	MaxPages = 4096
	MaxBytes = 64 << 20
)
