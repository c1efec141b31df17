package fetch

import "github.com/p2pnode/p2pnode/protocols/internal/frame"

// ServiceName is the resource manager's name of the service.
const ServiceName = "p2pnode.fetch"

// Limits bounds what a Server takes on.
type Limits = frame.Limits

// DefaultLimits: at 64 KiB a stream, 256 take 16 MiB.
var DefaultLimits = Limits{Streams: 256, StreamsPerPeer: 2}

// Bounds of the messages, in bytes and numbers.
const (
	maxRequest = 8 << 10
	maxPage    = 64 << 10
	maxCursors = 64
	maxEntries = 2048

	// pageRoom is what is left of a page for entries.
	pageRoom = maxPage - 64
)
