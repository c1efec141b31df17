package sim

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
)

// report prints what came of it and checks each request to the origin. Beyond
// its first copy, one on each side of a partition, a block may be sent again
// where it was lost; while maps could differ; to its owner, where that was away
// when it was sent before; and once more to a seed that is not its owner, for a
// reader that does not know yet that the owner is back.
func (c *chaos) report() {
	type copies struct {
		sides, doubted int
		last           time.Time
		again          map[peer.ID]bool // by its owners that had been away
	}
	var sent, once, differ, lost, away, doubted, more int64
	fetched := make(map[blockOf]copies)
	for _, h := range c.origin.fetched() {
		i := slices.IndexFunc(c.files, func(f chaosFile) bool { return f.url == h.url })
		layout := content.Layout{Size: int64(len(c.files[i].data))}
		first, end := content.BlockSpan(content.Range{Off: h.off, Len: h.sent})
		sent += h.sent
		for b := first; b < end; b++ {
			at, n := blockOf{i, b}, layout.Block(b).Intersect(content.Range{Off: h.off, Len: h.sent}).Len
			so := fetched[at]
			apart := slices.ContainsFunc(c.partitions, func(e [2]time.Time) bool { return h.at.After(e[0]) && h.at.Before(e[1]) })
			switch {
			case so.sides == 0 || apart && so.sides&(1<<h.side) == 0:
				once += n
			case c.lost[at] > 0:
				c.lost[at]--
				lost += n
			case slices.ContainsFunc(c.events, func(e [2]time.Time) bool { return !h.at.Before(e[0]) && !h.at.After(e[1]) }):
				differ += n
			case h.owner && !so.again[h.by] && c.wasAway(h.by, so.last):
				if so.again == nil {
					so.again = make(map[peer.ID]bool)
				}
				so.again[h.by] = true
				away += n
			case !h.owner && so.doubted == 0:
				so.doubted++
				doubted += n
			default:
				more += n
				c.t.Logf("the origin sent [%d,+%d) of file %d to %s (owner: %t) at %.3f again without a reason",
					h.off, h.sent, i, h.by.ShortString(), h.owner, h.at.Sub(c.start).Seconds())
			}
			so.sides |= 1 << h.side
			so.last = h.at
			fetched[at] = so
		}
	}
	slices.Sort(c.stats.took)
	s := c.stats
	c.t.Logf("seed %d, %v: %d supernode kills, %d seed kills (%d disks lost), %d times half of %d peers, %d partitions",
		*chaosSeed, time.Since(c.start).Round(time.Second), s.supernodes, s.kills, s.disks, s.halves, chaosPeers, s.partitions)
	c.t.Logf("%d reads, %d failed; half took at most %v, 99 %% at most %v, the slowest %v; bytes: local %d, peers %d, origin %d",
		s.reads, s.failed, percentile(s.took, 50), percentile(s.took, 99), percentile(s.took, 100), s.local, s.peer, s.origin)
	c.t.Logf("the origin sent %d bytes: %d for the first time, %d that were lost, %d while maps could differ, %d to owners that had been away, %d for readers in doubt, %d without a reason",
		sent, once, lost, differ, away, doubted, more)
	if more > unexplained {
		c.t.Errorf("want at most %d without a reason", unexplained)
	}
	if c.t.Failed() {
		for _, line := range c.log {
			c.t.Log(line)
		}
	}
}

// wasAway reports whether a peer was dead, or on the other side of a partition,
// at a time.
func (c *chaos) wasAway(id peer.ID, at time.Time) bool {
	within := func(e [2]time.Time) bool { return !at.Before(e[0]) && !at.After(e[1]) }
	return slices.ContainsFunc(c.away[id], within) || slices.ContainsFunc(c.partitions, within)
}
