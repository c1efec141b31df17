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
	// times, at most maxPause, each ±50 %; of a saved peer at most maxSavedPause; of
	// one of the site, or while the host is connected to nobody beyond its links,
	// at most urgentPause: then it is this host's uplink that is gone, and each
	// second counts when it is back.
	firstPause    = 500 * time.Millisecond
	urgentPause   = 4 * time.Second
	maxPause      = 15 * time.Second
	maxSavedPause = 5 * time.Minute
	// backPause spreads the dials to all others once a lost peer is reached again.
	backPause = 500 * time.Millisecond
	// maxSavedDials is the number of saved peers that are kept connected at a
	// time, and of peers found on the LAN; one that failed savedTries times gives
	// its place to the next.
	maxSavedDials = 8
	savedTries    = 3

	keepTag = "p2pnode/keep"
)

// keeper decides whom to dial when. It belongs to Run's goroutine.
type keeper struct {
	h       *Host
	wanted  func() []peer.AddrInfo
	saved   []peer.AddrInfo // the first maxSavedDials are targets
	found   []peer.AddrInfo // on the LAN, the last first; likewise
	targets map[peer.ID]*target
	done    chan dialed // room for all dials under way
	dialing int
}

// target is a peer that the host keeps a connection to.
type target struct {
	info    peer.AddrInfo
	limit   time.Duration // of the pause
	spare   bool          // only for having been met or found: no loss if it is gone
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
	for id, t := range k.targets {
		if !k.h.connected(id) {
			continue
		}
		if t.fails > 0 {
			k.h.log.Info("peer is reached again", "peer", id)
			k.hurry(now)
		}
		t.fails, t.next = 0, time.Time{}
	}
	var due []peer.AddrInfo
	for id, t := range k.targets {
		switch {
		case k.h.connected(id):
		case !t.dialing && !now.Before(t.next) && k.dialing < maxDials:
			t.dialing = true
			k.dialing++
			due = append(due, t.info)
		}
	}
	return due
}

// hurry has all others tried soon: what kept this host from one may have kept it
// from them.
func (k *keeper) hurry(now time.Time) {
	for _, t := range k.targets {
		if soon := now.Add(time.Duration(rand.Float64() * float64(backPause))); t.next.After(soon) {
			t.next = soon
		}
	}
}

// meet takes in a peer that was found on the LAN: it is there now.
func (k *keeper) meet(info peer.AddrInfo) {
	k.found = slices.DeleteFunc(k.found, func(o peer.AddrInfo) bool { return o.ID == info.ID })
	k.found = slices.Insert(k.found, 0, info)
	k.found = k.found[:min(len(k.found), maxMet)]
	if t := k.targets[info.ID]; t != nil {
		t.next = time.Time{}
	}
}

// aim makes targets of the wanted, the bootstrap, the site's and the first found
// and saved peers, and forgets all others. Targets are not trimmed by the connection manager.
func (k *keeper) aim() {
	keep := map[peer.ID]bool{}
	add := func(infos []peer.AddrInfo, limit time.Duration, spare bool) {
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
			t.info, t.limit, t.spare = info, limit, spare
		}
	}
	add(k.h.cfg.Site, urgentPause, false)
	if k.wanted != nil {
		add(k.wanted(), maxPause, false)
	}
	add(k.h.cfg.Bootstrap, maxPause, false)
	add(k.found[:min(len(k.found), maxSavedDials)], maxPause, true)
	add(k.saved[:min(len(k.saved), maxSavedDials)], maxSavedPause, true)
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
	if t.fails == 1 && !t.spare {
		k.h.log.Warn("cannot reach peer, will keep trying", "peer", r.id, "addrs", t.info.Addrs, "err", r.err)
	} else {
		k.h.log.Debug("cannot reach peer", "peer", r.id, "tries", t.fails, "err", r.err)
	}
	limit := t.limit
	if limit == maxPause && k.h.cutOff() {
		limit = urgentPause
	}
	t.next = now.Add(pause(t.fails, limit))
	if t.spare && t.fails%savedTries == 0 {
		demote(k.saved, r.id)
		demote(k.found, r.id)
	}
}

// demote puts a peer last.
func demote(list []peer.AddrInfo, id peer.ID) {
	i := slices.IndexFunc(list, func(o peer.AddrInfo) bool { return o.ID == id })
	if i >= 0 {
		info := list[i]
		copy(list[i:], list[i+1:])
		list[len(list)-1] = info
	}
}

// cutOff reports whether the host is connected to nobody beyond the links of
// this machine.
func (h *Host) cutOff() bool {
	return !slices.ContainsFunc(h.Network().Conns(), h.Far)
}

// pause returns how long to wait after so many failed dials.
func pause(fails int, limit time.Duration) time.Duration {
	d := firstPause << min(fails-1, 16)
	return time.Duration((0.5 + rand.Float64()) * float64(min(d, limit)))
}
