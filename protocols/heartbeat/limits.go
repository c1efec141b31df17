package heartbeat

import "github.com/p2pnode/p2pnode/protocols/internal/frame"

// ServiceName is the resource manager's name of the service.
const ServiceName = "p2pnode.heartbeat"

// Limits bounds what a Server takes on.
type Limits = frame.Limits

// DefaultLimits: a peer has one stream, and a second for the moment in which it
// replaces the first.
var DefaultLimits = Limits{Streams: 4096, StreamsPerPeer: 2}

// Bounds of the messages, in bytes and numbers.
const (
	maxBeat       = 8 << 10
	maxAck        = 16 << 10
	maxVersion    = 64
	maxRevoked    = 64
	maxRevocation = 1 << 10
	// Of a Beat.
	maxBeatRevoked    = 6
	maxBeatRevocation = 512

	// maxRate bounds the beats of one stream to so many a second; a faster
	// peer is slowed down.
	maxRate = 100
)
