package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/node/locate"
)

// What Status.SiteFrom says.
const (
	siteGiven  = "site"                 // --site
	siteUplink = "uplink"               // the public address that peers see
	siteLAN    = "lan"                  // the neighbours on the LAN
	siteNone   = ""                     // nothing speaks for one
	autoUplink = locate.Inferred + "u-" // begins names that were made from a public address,
	autoLAN    = locate.Inferred + "l-" // and those of a LAN
	autoDigits = 12                     // of the hash that follows
	settleTick = time.Second
)

// site is where this node stands, and how that is known.
type site struct{ name, from string }

// sight is what speaks for a site.
type sight struct {
	swarm  peer.ID
	self   peer.ID
	uplink netip.Addr         // the zero value for none
	near   []peer.ID          // members that are connected over the LAN, or are named as of the site
	names  map[peer.ID]string // the sites of the pool's members
}

// infer names the site of a node that was not given one. Neighbours on the LAN
// are of one site: the name that one of them was given is taken over. Else who has
// the same public address has the same name. Where there is no NAT the neighbours
// agree on a name by taking the smallest that one of them has; the first takes one
// from its ID. A name that there is stays as long as nothing speaks for another.
//
// The names are hashes with the swarm's ID: who is in no swarm with the node
// learns nothing from them, and members no more than they see anyway.
func (s sight) infer(now site) site {
	var given, lan, uplink []string
	for _, id := range s.near {
		switch name := s.names[id]; {
		case name == "":
		case strings.HasPrefix(name, autoLAN):
			lan = append(lan, name)
		case strings.HasPrefix(name, autoUplink):
			uplink = append(uplink, name)
		default:
			given = append(given, name)
		}
	}
	// What this node has taken over counts as its neighbours' word does: two that
	// each took the other's would swap for ever.
	if strings.HasPrefix(now.name, autoUplink) && len(uplink)+len(lan) > 0 {
		uplink = append(uplink, now.name)
	} else if len(given) > 0 && now.from == siteLAN && !strings.HasPrefix(now.name, autoLAN) {
		given = append(given, now.name)
	}
	switch {
	case len(given) > 0:
		return site{slices.Min(given), siteLAN}
	case s.uplink.IsValid():
		return site{s.auto(autoUplink, s.uplink.AsSlice()), siteUplink}
	case len(uplink) > 0: // they have been seen from outside, which may no longer be
		return site{slices.Min(uplink), siteLAN}
	case strings.HasPrefix(now.name, autoLAN):
		return site{slices.Min(append(lan, now.name)), siteLAN}
	case len(lan) > 0:
		return site{slices.Min(lan), siteLAN}
	case now.from == siteNone && len(s.near) > 0:
		return site{s.auto(autoLAN, []byte(min(s.self, slices.Min(s.near)))), siteLAN}
	}
	return now
}

func (s sight) auto(prefix string, of []byte) string {
	sum := sha256.Sum256(slices.Concat([]byte("p2pnode site\x00"+string(s.swarm)+"\x00"), of))
	return prefix + hex.EncodeToString(sum[:])[:autoDigits]
}

// standsAt returns this node's site.
func (n *Node) standsAt() site {
	if s := n.site.Load(); s != nil {
		return *s
	}
	if n.cfg.Site != "" {
		return site{n.cfg.Site, siteGiven}
	}
	return site{}
}

// settle finds out where this node stands, until ctx ends.
func (n *Node) settle(ctx context.Context) error {
	tick := time.NewTicker(settleTick)
	defer tick.Stop()
	for {
		before := n.standsAt()
		if s := n.sight().infer(before); s != before {
			n.cfg.Logger.Info("this node's site", "site", s.name, "from", s.from)
			n.site.Store(&s)
			n.seeds.Settle(s.name)
			n.control.Nudge()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (n *Node) sight() sight {
	s := sight{swarm: n.member.swarm, self: n.self, near: n.host.Near(), names: map[peer.ID]string{}}
	s.uplink, _ = n.host.Uplink() // the zero value for none
	if len(s.near) > 0 {
		for _, m := range n.seeds.Pool() {
			s.names[m.ID] = m.Site
		}
	}
	return s
}

// infersSite reports whether this node is to find out where it stands.
func (n *Node) infersSite() bool {
	return n.cfg.InferSite && n.cfg.Site == "" && n.member != nil && !allLoopback(n.cfg.Listen)
}
