// Package report tells a supernode what a peer holds: which blocks of which
// tasks, how much of them is read, and what was dropped.
//
// Reports wait in a queue that is bounded and coalesced by task, so that a slow
// supernode gets fewer reports, not older ones. Each report is numbered and sent
// until it is acknowledged; a server takes each number once. See SPEC.md for
// the wire.
package report

import (
	"encoding/binary"
	"math/bits"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/p2pnode/p2pnode/internal/content"
)

// Protocol is the protocol's ID.
const Protocol protocol.ID = "/p2pnode/report/1.0.0"

// Defaults of the configurations.
const (
	// DefaultTimeout is how long an acknowledgement may take, but for the time
	// that a large report needs. A report that is lost, and the heartbeat that
	// finds out what came of it, have to fit into two heartbeat periods.
	DefaultTimeout = 2 * time.Second
	// DefaultPace is the time from one report that was not full to the next.
	DefaultPace = 500 * time.Millisecond
	// DefaultIdle is how long a stream stays open without a report.
	DefaultIdle = 90 * time.Second
)

// Held is a task of which a peer has blocks.
type Held struct {
	Task content.TaskID
	// URL is the canonical task URL; at most 8 KiB.
	URL string
	// Generation is zero where it is not known.
	Generation content.Generation
	// Size of the file in bytes, -1 where it is not known.
	Size int64
	// Sequential says that the origin serves no ranges.
	Sequential bool
	// Present has one bit for each run of 2^Shift blocks, least significant bit
	// first, set where all blocks of the run are held. The Sender takes any
	// length and makes the runs longer where Present is over 16 KiB; a Sink gets
	// it so, without trailing zero bytes where the peer left them out.
	Present []byte
	Shift   uint8
}

// Demand is what other peers read of a task from one peer since its previous
// report.
type Demand struct {
	Task content.TaskID
	// Bytes sent to them.
	Bytes int64
	// Readers are the fingerprints of the distinct peers, ascending; at most 256,
	// others are left out. So a supernode counts a peer once that reads from
	// several seeds, and knows its site by its heartbeat.
	Readers []uint64
}

// Fingerprint stands for a peer in a Demand: the end of its ID, which is that
// of its public key.
func Fingerprint(id peer.ID) uint64 {
	var b [8]byte
	if len(id) >= len(b) {
		copy(b[:], id[len(id)-len(b):])
	} else {
		copy(b[len(b)-len(id):], id)
	}
	return binary.LittleEndian.Uint64(b[:])
}

// Report is what a peer says at once. A task is in Held or in Dropped, at most
// once, and in Demand at most once.
type Report struct {
	Held    []Held
	Dropped []content.TaskID
	Demand  []Demand
}

// Has reports whether the peer is known to hold block i whole.
func (h Held) Has(i int64) bool {
	i >>= h.Shift
	return i >= 0 && bit(h.Present, i)
}

// Blocks returns how many blocks the peer is known to hold.
func (h Held) Blocks() int64 {
	var n int64
	for _, b := range h.Present {
		n += int64(bits.OnesCount8(b))
	}
	n <<= h.Shift
	if h.Size >= 0 && n > 0 {
		// The last run may have fewer blocks.
		all := content.Layout{Size: h.Size}.Blocks()
		if last := all & (1<<h.Shift - 1); last != 0 && h.Has(all-1) {
			n -= 1<<h.Shift - last
		}
	}
	return n
}
