package node

import (
	"sync"
	"time"

	"github.com/p2pnode/p2pnode/protocols/heartbeat"
)

// paceOver is the least time over which a pace is measured; see pace.
const paceOver = time.Second

// pace measures bytes a second, sent and received, from sums. Several ask, one
// for each supernode, each at its own times: who comes within paceOver of the
// last measurement is told that one.
type pace struct {
	mu sync.Mutex
	// mu guards the following.
	at             time.Time // of the last measurement; zero before the first
	sent, received int64     // the sums then
	up, down       int64     // bytes a second
}

// measure returns the bytes a second since the last measurement; 0 at the first.
func (p *pace) measure(now time.Time, sent, received int64) (up, down int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	took := now.Sub(p.at)
	if !p.at.IsZero() && took < paceOver {
		return p.up, p.down
	}
	if !p.at.IsZero() {
		p.up = int64(float64(sent-p.sent) / took.Seconds())
		p.down = int64(float64(received-p.received) / took.Seconds())
	}
	p.at, p.sent, p.received = now, sent, received
	return p.up, p.down
}

// load is how busy this node is. The processors are not measured.
func (n *Node) load(now time.Time) heartbeat.Load {
	uploads, sent := n.files.Uploading()
	up, down := n.pace.measure(now, sent, n.client.Received())
	return heartbeat.Load{Uploads: uploads, UploadRate: up, DownloadRate: down}
}
