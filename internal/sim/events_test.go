package sim

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/seed/store"
	"github.com/p2pnode/p2pnode/supernode"
)

// Maps may differ for so long after an event: a lease of three heartbeats and a
// change of the pool, or the time for which a supernode counts as alive that is
// not heard of.
const (
	peersDiffer      = 20 * time.Second
	supernodesDiffer = 35 * time.Second
)

// change makes something happen, after which maps differ for a time, and books
// the blocks that were lost by it.
func (c *chaos) change(differ time.Duration, happen func()) {
	before := [2]map[blockOf]bool{c.seedsHold(0), c.seedsHold(1)}
	side := make(map[*chaosPeer]int, len(c.peers))
	for _, p := range c.peers {
		side[p] = p.side
	}
	now := time.Now()
	happen()
	c.events = append(c.events, [2]time.Time{now, time.Now().Add(differ)})
	for i := range 2 {
		after, reached := c.seedsHold(i), make(map[blockOf]bool)
		for _, p := range c.peers {
			if p.s != nil && p.side == i {
				maps.Copy(reached, before[side[p]])
			}
		}
		for b := range reached {
			if !after[b] {
				c.lost[b]++
			}
		}
	}
}

// seedsHold returns the blocks that live seeds of their files hold on a side.
// Who are the seeds is what those who live there think.
func (c *chaos) seedsHold(side int) map[blockOf]bool {
	out := make(map[blockOf]bool)
	for i, task := range c.tasks {
		seeds := make(map[peer.ID]bool)
		for _, p := range c.peers {
			if p.s != nil && p.side == side {
				for _, m := range p.s.seeds.Seeds(nil, task) {
					seeds[m.ID] = true
				}
			}
		}
		for _, p := range c.peers {
			if p.s == nil || p.side != side || !seeds[p.m.id] {
				continue
			}
			for _, h := range p.s.files.Files() {
				for b := range h.Layout().Blocks() {
					if h.Key.Task == task && h.Present[b/8]>>(b%8)&1 == 1 {
						out[blockOf{i, b}] = true
					}
				}
			}
		}
	}
	return out
}

// bossEvent kills a supernode, or brings it back.
func (c *chaos) bossEvent() {
	b := c.bosses[c.random.IntN(len(c.bosses))]
	c.change(supernodesDiffer, func() {
		if b.b == nil {
			c.note("supernode %s returns", b.m.id.ShortString())
			c.w.move(b.m, 0)
			b.b = b.m.newBoss(supernode.Config{})
			return
		}
		c.stats.supernodes++
		c.note("supernode %s is killed", b.m.id.ShortString())
		c.w.move(b.m, -1)
		c.must(b.b.stop())
		b.b = nil
	})
}

// seedEvent brings back the dead, or kills an elected seed of a file that is
// read, its disk with it in one of four times.
func (c *chaos) seedEvent() {
	if c.reviveAll() || c.apart {
		return
	}
	open := c.open()
	seeds := c.peers[0].s.seeds.Seeds(nil, c.tasks[open[max(0, len(open)-1-c.random.IntN(3))]])
	if len(seeds) == 0 {
		return
	}
	victim := seeds[c.random.IntN(len(seeds))].ID
	for _, p := range c.peers {
		if p.m.id != victim {
			continue
		}
		c.stats.kills++
		disk := c.random.IntN(4) == 0
		c.change(peersDiffer, func() {
			c.note("seed %s is killed, its disk lost: %t", p.m.id.ShortString(), disk)
			c.kill(p)
		})
		if disk {
			c.stats.disks++
			p.disk, p.signers = store.NewMemory(1<<30), nil
		}
	}
}

// halfEvent kills half of the peers at once.
func (c *chaos) halfEvent() {
	if c.reviveAll() || c.apart {
		return
	}
	c.stats.halves++
	c.change(peersDiffer, func() {
		c.note("half of the peers are killed")
		var wg sync.WaitGroup
		for _, i := range c.random.Perm(len(c.peers))[:len(c.peers)/2] {
			wg.Go(func() { c.kill(c.peers[i]) })
		}
		wg.Wait()
	})
}

func (c *chaos) reviveAll() bool {
	if !slices.ContainsFunc(c.peers, func(p *chaosPeer) bool { return p.s == nil }) {
		return false
	}
	c.change(peersDiffer, func() {
		for _, p := range c.peers {
			if p.s == nil {
				c.note("%s returns", p.m.id.ShortString())
				c.revive(p)
			}
		}
	})
	return true
}

// partitionEvent cuts the swarm in two, or joins it.
func (c *chaos) partitionEvent() {
	if !c.apart && c.reviveAll() {
		return
	}
	c.change(supernodesDiffer, func() {
		c.apart = !c.apart
		if c.apart {
			c.stats.partitions++
			c.note("a partition begins")
			c.partitions = append(c.partitions, [2]time.Time{time.Now(), time.Now().Add(never)})
		} else {
			c.note("the partition ends")
			c.partitions[len(c.partitions)-1][1] = time.Now()
		}
		for _, p := range c.peers {
			if p.side = 0; c.apart {
				p.side = c.random.IntN(2)
			}
			if p.s != nil {
				c.w.move(p.m, p.side)
			}
		}
		for _, b := range c.bosses {
			side := 0
			if c.apart {
				side = c.random.IntN(2)
			}
			if b.b != nil {
				c.w.move(b.m, side)
			}
		}
	})
}
