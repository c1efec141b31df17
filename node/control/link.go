package control

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
	"github.com/p2pnode/p2pnode/protocols/heartbeat"
	"github.com/p2pnode/p2pnode/protocols/report"
)

const (
	// silentPeriods is the number of heartbeat periods without an answer after
	// which a supernode may have let this node's lease run out.
	silentPeriods = 2
	// reportChunk is how many tasks of a full report are queued at once: half of
	// the queue, so that what happens meanwhile has a place.
	reportChunk = report.MaxQueue / 2
)

// settleTimes are the pauses before the beats that follow a first one.
var settleTimes = [...]time.Duration{400 * time.Millisecond, 800 * time.Millisecond, 1500 * time.Millisecond}

// link is what this node has to do with one supernode.
type link struct {
	*Control
	peer    peer.AddrInfo
	reports *report.Sender
	differs chan struct{} // the map lacks something; one token
	forgot  chan struct{} // the supernode does not know what is held here; one token
	met     chan struct{} // the supernode was met anew; one token
	heard   atomic.Int64  // when it answered last, Unix ns; 0 never

	// The rounds of telling the supernode revocations, and whether its last answer
	// spoke of others than this node knows. They belong to the goroutine that beats.
	told     int
	differed bool
	// asked are the tasks that the last beat named; it belongs to that goroutine.
	asked *content.Prefixes

	mu sync.Mutex
	// mu guards the following: the last answer, when it came, and which tasks it
	// is about.
	ack   heartbeat.Ack
	at    time.Time
	about *content.Prefixes
	// answers are the last ones, in turns.
	answers  [answersKept]answer
	answered int
}

// answersKept is how many answers count for a supernode's RTT and clock: those
// of 40 s.
const answersKept = 8

// answer is how long one answer took, and by how much the supernode's clock was
// ahead of this node's in it.
type answer struct {
	rtt, ahead time.Duration
	timed      bool // it told its clock
}

func newLink(c *Control, s peer.AddrInfo) *link {
	return &link{
		Control: c, peer: s,
		reports: report.NewSender(c.cfg.Host, report.SenderConfig{Logger: c.cfg.Logger, Registerer: c.cfg.Registerer}),
		differs: make(chan struct{}, 1),
		forgot:  make(chan struct{}, 1),
		met:     make(chan struct{}, 1),
	}
}

// beat is what to tell the supernode of this node, and of the epoch in which it
// was heard last where it may not know that itself.
func (l *link) beat() heartbeat.Beat {
	b := l.cfg.Beat()
	l.asked = l.cfg.Map.Follows()
	b.Prefixes = l.asked
	l.mu.Lock()
	told, sum, met := l.ack.Cursor.Epoch, l.ack.RevokedSum, !l.at.IsZero()
	l.mu.Unlock()
	if r := l.cfg.Revocations; r != nil {
		if b.RevokedSum = r.Sum(); met && b.RevokedSum != sum {
			b.Revoked = heartbeat.BeatRevoked(r.All(), l.told)
			l.told++
		}
	}
	for _, c := range l.cfg.Map.Cursors() {
		if c.Supernode == l.peer.ID && c.Epoch > told {
			b.Epoch = c.Epoch
		}
	}
	return b
}

// acknowledged takes in the answer to a heartbeat.
func (l *link) acknowledged(a heartbeat.Ack) {
	now := time.Now()
	l.mu.Lock()
	lost := l.at.IsZero() || a.Cursor.Epoch != l.ack.Cursor.Epoch || now.Sub(l.at) > silentPeriods*l.cfg.Interval
	l.ack, l.at, l.about = a, now, l.asked
	l.answers[l.answered%answersKept] = answer{rtt: a.RTT, ahead: a.Time.Sub(now.Add(-a.RTT / 2)), timed: !a.Time.IsZero()}
	l.answered++
	l.mu.Unlock()
	l.acked.Store(now.UnixNano())
	l.heard.Store(now.UnixNano())
	l.cfg.Map.Confirm(l.peer.ID)
	if r := l.cfg.Revocations; r != nil {
		if len(a.Revoked) > 0 {
			r.Hear(a.Revoked)
		}
		if r.Sum() != a.RevokedSum && !l.differed {
			l.beats.Nudge() // one of the two lacks some
		}
		l.differed = r.Sum() != a.RevokedSum
	}
	if lost {
		signal(l.forgot)
		signal(l.met)
	}
	switch l.compare() {
	case same:
	case outdated:
		l.beats.Nudge()
	default:
		signal(l.differs)
	}
}

// fresh reports whether the supernode has answered lately: what is its own is
// not another's yet.
func (l *link) fresh(now int64) bool {
	at := l.heard.Load()
	return at != 0 && now-at < int64(l.cfg.Stale)
}

// verdict is what comparing the map with a supernode's last answer says.
type verdict int

const (
	// same: the map has all that the answer speaks of.
	same verdict = iota
	// different: it has not.
	different
	// unknown: the map is ahead of the answer, but may have gaps.
	unknown
	// outdated: the answer is about other tasks than the map follows now.
	outdated
)

func (l *link) compare() verdict {
	l.mu.Lock()
	a, about := l.ack, l.about
	l.mu.Unlock()
	if !content.SamePrefixes(about, l.cfg.Map.Follows()) {
		return outdated
	}
	told := assignment.Cursor{Supernode: l.peer.ID, Epoch: a.Cursor.Epoch, Seq: a.Cursor.Seq}
	if !l.cfg.Map.Agree(told, a.MapHash) {
		return different
	}
	for _, c := range l.cfg.Map.Cursors() {
		if c.Supernode == l.peer.ID && c.Epoch == told.Epoch && c.Seq >= told.Seq {
			return same
		}
	}
	return unknown
}

func (l *link) status(now time.Time) Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{Supernode: l.peer.ID, Epoch: l.ack.Cursor.Epoch, Seq: l.ack.Cursor.Seq, AckMs: -1}
	if !l.at.IsZero() {
		s.AckMs = now.Sub(l.at).Milliseconds()
		s.Connected = now.Sub(l.at) <= silentPeriods*l.cfg.Interval
		quickest := l.quickest()
		s.RTTMs = milliseconds(quickest.rtt)
		if quickest.timed {
			ahead := milliseconds(quickest.ahead)
			s.ClockMs = &ahead
		}
	}
	return s
}

// quickest returns the one of the last answers that took least; mu is held. The
// longer an answer took, the less it says of the clock.
func (l *link) quickest() answer {
	return slices.MinFunc(l.answers[:min(l.answered, answersKept)], func(a, b answer) int { return cmp.Compare(a.rtt, b.rtt) })
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// reportAll reports all that is held whenever the supernode may not know it: at
// the first contact, after a restart of it, after a silence.
func (l *link) reportAll(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.forgot:
		}
		var held []report.Held
		for _, h := range l.cfg.AllHeld() {
			if l.linkOf(h.Task) == l {
				held = append(held, h)
			}
		}
		if len(held) > 0 {
			l.log.Info("reporting all tasks", "supernode", l.peer.ID, "tasks", len(held))
		}
		l.metrics.full.Inc()
		for chunk := range slices.Chunk(held, reportChunk) {
			for _, h := range chunk {
				l.reports.Enqueue(h)
			}
			if len(chunk) == reportChunk && !sleep(ctx, l.cfg.Interval) {
				return nil
			}
		}
	}
}

// settle beats some more whenever the supernode was met anew. Gossip between
// the two has only begun, and much is published in the first second or two:
// what is lost of it should not wait for a whole period to be found.
func (l *link) settle(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.met:
		}
		for _, d := range settleTimes {
			if !sleep(ctx, d) {
				return nil
			}
			l.beats.Nudge()
		}
	}
}

// signal leaves a token in c unless one is there.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// sleep waits for d; it returns false when ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
