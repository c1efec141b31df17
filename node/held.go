package node

import (
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/node/locate"
	"github.com/p2pnode/p2pnode/protocols/report"
	"github.com/p2pnode/p2pnode/seed"
	"github.com/p2pnode/p2pnode/seed/store"
)

// owns reports whether this node is who reads a stripe of a held file from the
// origin.
func (n *Node) owns(key store.Key, stripe int64) bool {
	f, err := n.disk.Open(key)
	if err != nil {
		return false
	}
	if f.Info().Sequential {
		stripe = 0 // the head's, as all of the file
	}
	return n.reads(key.Task, stripe, nil)
}

// reads reports whether this node is who reads a stripe from the origin, the peers
// in skip left out.
func (n *Node) reads(task content.TaskID, stripe int64, skip []peer.ID) bool {
	owner, ok := n.seeds.Owner(task, stripe, false, skip)
	return ok && owner == n.self && n.cfg.Seed
}

// evicted hears of each stripe that made room for another.
func (n *Node) evicted(key store.Key, _ int64, _ bool) { n.files.Evicted(key.Task) }

// changed hears of each block that was stored, evicted or discarded: supernodes
// and the DHT are told.
func (n *Node) changed(h seed.Held) {
	if h.Blocks == 0 {
		if n.mayReport() {
			n.control.Dropped(h.Key.Task)
		}
		n.providers.Remove(h.Key.Task, locate.Duty|locate.Whole)
		return
	}
	if n.mayReport() {
		n.control.Report(heldReport(h))
	}
	n.provide(h)
}

// provide announces in the DHT what this node holds as a seed, or whole.
func (n *Node) provide(h seed.Held) {
	if n.seeds.IsSeed(h.Key.Task) {
		n.providers.Add(h.Key.Task, locate.Duty)
	}
	if h.Blocks == h.Layout().Blocks() && n.believed(h) {
		n.providers.Add(h.Key.Task, locate.Whole)
	} else {
		n.providers.Remove(h.Key.Task, locate.Whole)
	}
}

// believed reports whether peers would take all blocks of a file from this node:
// they believe no signature of a node that is no seed, which signs what it reads
// from the origin itself, or imports.
func (n *Node) believed(h seed.Held) bool {
	if n.cfg.Seed {
		return true
	}
	f, err := n.disk.Open(h.Key)
	if err != nil {
		return false
	}
	for i := range h.Blocks {
		if rec, err := f.Record(i); err != nil || rec.Signer == n.self {
			return false
		}
	}
	return true
}

// allHeld is what supernodes are told when they have to be told anew.
func (n *Node) allHeld() []report.Held {
	var out []report.Held
	if !n.mayReport() {
		return out
	}
	for _, h := range n.files.Current() {
		out = append(out, heldReport(h))
	}
	return out
}

func heldReport(h seed.Held) report.Held {
	return report.Held{
		Task: h.Key.Task, URL: h.URL, Generation: h.Key.Generation, Size: h.Size, Sequential: h.Sequential,
		Present: h.Present,
	}
}
