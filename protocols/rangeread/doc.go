// Package rangeread is the protocol by which a reader gets a byte range of a
// file from a peer, verified, in one round trip; see SPEC.md.
//
// The Client pools streams by peer: requests run on them one after another.
// The Server hands each request to a Handler and writes what it answers. The
// package holds no policy: which peer to ask, and whom to answer, is decided
// above it.
//
// Every byte that a Body yields has been checked against the hash tree of its
// block; see Body.Next for what has been checked of signatures.
package rangeread

import "time"

// ProtocolID is the libp2p protocol; an incompatible change gets a new one.
const ProtocolID = "/p2pnode/range/1.0.0"

// ServiceName is the resource manager's name of the service.
const ServiceName = "p2pnode.range"

// Sizes and times of the wire; see SPEC.md.
const (
	maxRequest = 32 << 10
	maxHeader  = 32 << 10
	maxProof   = 8 << 10
	maxWait    = 64
	maxError   = 4 << 10

	// MaxData is the largest DATA frame: larger units cost fan-out time at
	// every hop.
	MaxData = 128 << 10

	// MaxPath bounds Request.Path and Request.Skip.
	MaxPath = 32

	// MaxReads is how many requests run at once between two peers, each way.
	MaxReads = 64
	// maxStreams is how many streams of one peer a server keeps open.
	maxStreams = 128

	// WaitEvery is the period of WAIT frames.
	WaitEvery = 250 * time.Millisecond
	// DefaultSilence is how long a reader hears nothing before it gives up.
	DefaultSilence = time.Second

	// DefaultPatience is for how long a reader gets nothing but WAIT before it
	// gives up: twice what a source's tries of an origin that does not answer
	// take, which end 70 s after the first began.
	DefaultPatience = 3 * time.Minute
	// longPatience is how many times that is waited for what may honestly take so
	// long: bytes far into a file that can be read from its start alone, and a
	// whole stripe brought in.
	longPatience = 20

	// maxProofs is how many PROOF frames may come without DATA between them.
	maxProofs = 8

	readerIdle     = 60 * time.Second
	serverIdle     = 120 * time.Second
	requestTimeout = 10 * time.Second
	writeTimeout   = 30 * time.Second
	maxDetail      = 512
)
