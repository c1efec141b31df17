package report

import "github.com/p2pnode/p2pnode/protocols/internal/frame"

// ServiceName is the resource manager's name of the service.
const ServiceName = "p2pnode.report"

// Limits bounds what a Server takes on.
type Limits = frame.Limits

// DefaultLimits: a peer has one stream, and a second for the moment in which it
// replaces the first.
var DefaultLimits = Limits{Streams: 4096, StreamsPerPeer: 2}

// Bounds of the messages and the queue, in bytes and numbers.
const (
	// MaxQueue bounds the tasks that wait in a Sender.
	MaxQueue = 8192

	maxReport  = 64 << 10
	maxAck     = 64
	maxTasks   = 1024
	maxPresent = 16 << 10
	maxShift   = 20
	maxReaders = 256

	// maxRate bounds the reports of one peer, over all its streams, to so many a
	// second, and maxBurst those after a pause; a faster peer is slowed down. A
	// peer that has room in its reports sends two a second. 100,000 tasks with URLs
	// of 150 bytes are 350 reports.
	maxRate  = 20
	maxBurst = 400

	// reportRoom is what is left of a report for tasks.
	reportRoom = maxReport - 64
)
