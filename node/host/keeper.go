package host

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

const (
	// maxDials bounds the keeper's dials under way, dialTimeout each of them.
	maxDials    = 16
	dialTimeout = 10 * time.Second
	// The pause after the n-th failed dial in a row is firstPause doubled n-1
	// times, at most maxPause, each ±50 %.
	firstPause    = 500 * time.Millisecond
	maxPause      = 15 * time.Second
	maxSavedPause = 5 * time.Minute
	// maxSavedDials is the number of saved peers that are kept connected at a
	// time; one that failed savedTries times gives its place to the next.
	maxSavedDials = 8
	savedTries    = 3

	keepTag = "p2pnode/keep"
)

// keeper decides whom to dial when. It belongs to Run's goroutine.
type keeper struct {
	h       *Host
	wanted  func() []peer.AddrInfo
	saved   []peer.AddrInfo // the first maxSavedDials are targets
	targets map[peer.ID]*target
	done    chan dialed // room for all dials under way
	dialing int
}

// target is a peer that the host keeps a connection to.
type target struct {
	info    peer.AddrInfo
	saved   bool // only for having been met: no loss if it is gone
	dialing bool
	fails   int // dials failed since it was last connected
	next    time.Time
}

// dialed is the outcome of a dial.
type dialed struct {
	id  peer.ID
	err error
}

// step brings the targets up to date and returns those to dial now.
func (k *keeper) step(now time.Time) []peer.AddrInfo {
	k.aim()
	var due []peer.AddrInfo
	for id, t := range k.targets {
		switch {
		case k.h.connected(id):
			if t.fails > 0 {
				k.h.log.Info("peer is reached again", "peer", id)
			}
			t.fails, t.next = 0, time.Time{}
		case !t.dialing && !now.Before(t.next) && k.dialing < maxDials:
			t.dialing = true
			k.dialing++
			due = append(due, t.info)
		}
	}
	return due
}

// aim makes targets of the wanted, the bootstrap and the first saved peers, and
// forgets all others. Targets are not trimmed by the connection manager.
func (k *keeper) aim() {
	keep := map[peer.ID]bool{}
	add := func(infos []peer.AddrInfo, saved bool) {
		for _, info := range infos {
			if info.ID == k.h.ID() || keep[info.ID] {
				continue
			}
			keep[info.ID] = true
			t := k.targets[info.ID]
			if t == nil {
				t = &target{}
				k.targets[info.ID] = t
				k.h.ConnManager().Protect(info.ID, keepTag)
			}
			if !containsAll(t.info.Addrs, info.Addrs) {
				t.next = time.Time{} // it may be somewhere else now
			}
			t.info, t.saved = info, saved
		}
	}
	if k.wanted != nil {
		add(k.wanted(), false)
	}
	add(k.h.cfg.Bootstrap, false)
	add(k.saved[:min(len(k.saved), maxSavedDials)], true)
	for id := range k.targets {
		if !keep[id] {
			delete(k.targets, id)
			k.h.ConnManager().Unprotect(id, keepTag)
		}
	}
}

func containsAll(all, some []multiaddr.Multiaddr) bool {
	return !slices.ContainsFunc(some, func(a multiaddr.Multiaddr) bool { return !multiaddr.Contains(all, a) })
}

// dialed notes the end of a dial.
func (k *keeper) dialed(r dialed, now time.Time) {
	k.dialing--
	result := "ok"
	if r.err != nil {
		result = "failed"
	}
	k.h.metrics.dials.WithLabelValues(result).Inc()
	t := k.targets[r.id]
	if t == nil {
		return // no longer wanted
	}
	t.dialing = false
	if r.err == nil {
		return // step sees the connection
	}
	t.fails++
	if t.fails == 1 && !t.saved {
		k.h.log.Warn("cannot reach peer, will keep trying", "peer", r.id, "addrs", t.info.Addrs, "err", r.err)
	} else {
		k.h.log.Debug("cannot reach peer", "peer", r.id, "tries", t.fails, "err", r.err)
	}
	t.next = now.Add(pause(t.fails, t.saved))
	if t.saved && t.fails%savedTries == 0 {
		k.demote(r.id)
	}
}

// demote puts a saved peer last.
func (k *keeper) demote(id peer.ID) {
	i := slices.IndexFunc(k.saved, func(o peer.AddrInfo) bool { return o.ID == id })
	if i >= 0 {
		info := k.saved[i]
		k.saved = append(slices.Delete(k.saved, i, i+1), info)
	}
}

// pause returns how long to wait after so many failed dials.
func pause(fails int, saved bool) time.Duration {
	limit := maxPause
	if saved {
		limit = maxSavedPause
	}
	d := firstPause << min(fails-1, 16)
	return time.Duration((0.5 + rand.Float64()) * float64(min(d, limit)))
}
