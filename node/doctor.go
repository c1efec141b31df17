package node

import (
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/p2pnode/p2pnode/node/control"
	"github.com/p2pnode/p2pnode/node/host"
)

// Finding is one thing that Diagnose looked at.
type Finding struct {
	// Check names it in one word.
	Check string `json:"check"`
	// Problem says that something is to be done.
	Problem bool `json:"problem"`
	// Says is what was found, Do what to do about it, empty for nothing.
	Says string `json:"says"`
	Do   string `json:"do,omitempty"`
}

// Machine is what Diagnose looks at besides a daemon's status.
type Machine struct {
	Now   time.Time
	Built time.Time // when the program was made; zero where it does not say
	// MTU is the least of the interfaces that are up, loopback aside; 0 for none.
	MTU int
	// PathMTU is, by a supernode's address in the status, the largest packet in
	// bytes, headers of IP included, that this machine's kernel sends there in one
	// piece: the MTU of the route's interface, or less where a router on the way has
	// refused larger ones. Nothing is sent to find out. Linux alone tells it.
	PathMTU map[string]int
}

// What QUIC's first packets need of a path, in bytes: quic-go fills them to 1280,
// and the headers of UDP and of IPv4, or IPv6, come before that.
const (
	minMTU4 = 1280 + 8 + 20
	minMTU6 = 1280 + 8 + 40
)

// maxClockOff is from where on a clock that differs is a problem: by half of what
// those may differ by who grant and serve private files.
const maxClockOff = 30 * time.Second

// lowDisk is how little room for blocks is a problem, in bytes.
const lowDisk = 64 << 20

// Diagnose explains how a node stands in the network, from its status. to is a
// peer to look at closely, empty for none.
func Diagnose(s Status, m Machine, to peer.ID) []Finding {
	out := []Finding{reachFinding(s), natFinding(s.Network), relayFinding(s.Network), udpFinding(s)}
	out = append(out, supernodeFindings(s)...)
	if to != "" {
		out = append(out, pathFinding(s.Network, to))
	}
	return append(out, clockFinding(s, m), diskFinding(s), mtuFinding(s, m))
}

func reachFinding(s Status) Finding {
	f := Finding{Check: "reachability"}
	switch host.Reachability(s.Network.Reachability) {
	case host.ReachPublic:
		f.Says = "public: all peers can dial this node"
	case host.ReachPunchable:
		f.Says = "behind NAT: peers come through a relay and then by a hole that both punch"
	case host.ReachRelayed:
		f.Says, f.Problem = "behind a NAT that takes a port for each destination: peers come through a relay, and stay there", true
		f.Do = "forward the node's port on the router (TCP and UDP), or set its NAT to endpoint-independent mapping"
	default:
		f.Says = "not known: nothing speaks for a NAT, and nobody has confirmed an address from outside; right for a LAN or loopback"
	}
	return f
}

func natFinding(n host.Network) Finding {
	f := Finding{Check: "nat", Says: fmt.Sprintf("TCP ports %s, UDP ports %s", mapping(n.TCP), mapping(n.UDP))}
	if len(n.Outside) > 0 {
		f.Says += "; seen from outside as " + strings.Join(n.Outside, ", ")
	}
	if len(n.Outside) > 1 {
		f.Do = "several outside addresses: a router that balances over uplinks hinders hole punching"
	}
	return f
}

func mapping(m host.Mapping) string {
	switch m {
	case host.MapNone:
		return "not translated"
	case host.MapSame:
		return "the same for all destinations"
	case host.MapPerDestination:
		return "another one for each destination"
	default:
		return "seen by too few peers to tell"
	}
}

func relayFinding(n host.Network) Finding {
	f := Finding{Check: "relays", Says: fmt.Sprintf("reserved at %d", len(n.Relays))}
	natted := n.Reachability == string(host.ReachPunchable) || n.Reachability == string(host.ReachRelayed)
	switch {
	case n.Relay:
		f.Says = "this node is a relay itself"
	case !natted:
		f.Says = "none needed"
	case len(n.Relays) == 0:
		f.Problem, f.Do = true, "nobody can reach this node: let it connect to a supernode, or name a daemon with --relay by --bootstrap"
	case len(n.Relays) == 1:
		f.Do = "a second supernode, or a daemon with --relay named by --bootstrap, keeps this node reachable when the first is down"
	}
	return f
}

// udpFinding looks for QUIC: supernodes that are public are dialled over it
// first.
func udpFinding(s Status) Finding {
	f := Finding{Check: "udp", Says: "no connection beyond this network to tell by"}
	quic, tcp := 0, 0
	for _, p := range s.Network.Paths {
		if p.How == host.Relayed || !publicAddr(p.Addr) {
			continue
		}
		if p.Transport == "quic" {
			quic++
		} else {
			tcp++
		}
	}
	switch {
	case quic > 0:
		f.Says = fmt.Sprintf("passes: %d connections over QUIC", quic)
	case tcp > 0:
		f.Says, f.Problem = fmt.Sprintf("seems blocked: %d connections beyond this network, none over QUIC", tcp), true
		f.Do = "let UDP out on the firewall: QUIC dials faster, and holes open more often"
	}
	return f
}

func supernodeFindings(s Status) []Finding {
	var out []Finding
	for _, n := range s.Supernodes {
		f := Finding{Check: "supernode"}
		way := ""
		if i := slices.IndexFunc(s.Network.Paths, func(p host.Path) bool { return p.Peer == n.Supernode }); i >= 0 {
			way = fmt.Sprintf(" (%s over %s)", s.Network.Paths[i].How, s.Network.Paths[i].Transport)
		}
		switch {
		case n.AckMs < 0:
			f.Says, f.Problem = fmt.Sprintf("%s has never answered%s", n.Supernode, way), true
			f.Do = "check the address behind --supernode, its port on the firewalls between, and this node's membership"
		case !n.Connected:
			f.Says, f.Problem = fmt.Sprintf("%s is silent for %d s%s", n.Supernode, n.AckMs/1000, way), true
			f.Do = "see whether it runs; reads go on without"
		default:
			f.Says = fmt.Sprintf("%s answered %.1f s ago%s, in %.1f ms", n.Supernode, float64(n.AckMs)/1000, way, n.RTTMs)
		}
		out = append(out, f)
	}
	return out
}

func pathFinding(n host.Network, to peer.ID) Finding {
	f := Finding{Check: "peer"}
	i := slices.IndexFunc(n.Paths, func(p host.Path) bool { return p.Peer == to })
	if i < 0 {
		f.Says, f.Problem = fmt.Sprintf("%s is not connected", to), true
		f.Do = "a node connects to its supernodes, to a few others, and to those that it reads from: read something from it, and look again"
		return f
	}
	p := n.Paths[i]
	switch p.How {
	case host.Punched:
		f.Says = fmt.Sprintf("%s: a hole was punched over %s, %d ms after the first contact", to, p.Transport, p.DirectAfterMs)
	case host.Direct:
		f.Says = fmt.Sprintf("%s: direct over %s, no hole was needed", to, p.Transport)
	default:
		f.Problem = true
		f.Says = fmt.Sprintf("%s: through relay %s, %d holes tried from here", to, p.Relay, p.Attempts)
		if p.LastError != "" {
			f.Says += ", the last: " + strings.ReplaceAll(p.LastError, "\n", " ")
		}
		f.Do = "one of the two needs a NAT that keeps its ports, or a forwarded port: run doctor on the other side too"
	}
	return f
}

// clockFinding compares the clock with the program's date and with those of the
// supernodes, as far as the time that an answer takes lets it.
func clockFinding(s Status, m Machine) Finding {
	if !m.Built.IsZero() && m.Now.Before(m.Built) {
		return Finding{Check: "clock", Problem: true, Says: fmt.Sprintf("it is %s, before this program was made", m.Now.UTC().Format(time.RFC3339)), Do: "set the clock, by NTP: certificates are not checked against a wrong one"}
	}
	f := Finding{Check: "clock", Says: m.Now.UTC().Format(time.RFC3339)}
	told := 0
	for _, n := range s.Supernodes {
		if n.ClockMs == nil || !n.Connected {
			continue
		}
		told++
		ahead, within := *n.ClockMs, n.RTTMs/2
		way := "ahead"
		if ahead < 0 {
			way = "behind"
		}
		f.Says += fmt.Sprintf("; that of %s is %.1f ms %s, give or take %.1f", n.Supernode, math.Abs(ahead), way, within)
		if math.Abs(ahead)-within > float64(maxClockOff.Milliseconds()) {
			f.Problem = true
			f.Do = "set the clocks, by NTP: where they differ by a minute private files are refused, by an hour all connections"
		}
	}
	if told == 0 {
		f.Says += "; no supernode has told its own"
	}
	return f
}

func diskFinding(s Status) Finding {
	f := Finding{Check: "disk", Says: fmt.Sprintf("%d MiB free of %d MiB for blocks", s.Store.Free>>20, s.Store.Capacity>>20)}
	if s.Store.Free < lowDisk && s.Store.Used < s.Store.Capacity-lowDisk {
		f.Problem, f.Do = true, "the disk is full before the cache is: free some of it, or lower --cache-size"
	}
	return f
}

// mtuFinding looks at the interfaces, and at the paths to supernodes as far as the
// kernel knows them.
func mtuFinding(s Status, m Machine) Finding {
	f := Finding{Check: "mtu", Says: "no interface but loopback is up"}
	least := 0
	if m.MTU > 0 {
		f.Says, least = fmt.Sprintf("%d bytes, the least of the interfaces", m.MTU), minMTU4
	}
	small := m.MTU > 0 && m.MTU < minMTU4
	for _, n := range s.Supernodes {
		i := slices.IndexFunc(s.Network.Paths, func(p host.Path) bool { return p.Peer == n.Supernode && p.How != host.Relayed })
		if i < 0 || m.PathMTU[s.Network.Paths[i].Addr] == 0 {
			continue
		}
		path, needs := m.PathMTU[s.Network.Paths[i].Addr], minMTU4
		if strings.HasPrefix(s.Network.Paths[i].Addr, "/ip6/") {
			needs = minMTU6
		}
		f.Says += fmt.Sprintf("; to %s %d, by what the kernel knows of the path", n.Supernode, path)
		if path < needs {
			small, least = true, max(least, needs)
		}
	}
	if small {
		f.Problem, f.Do = true, fmt.Sprintf("QUIC needs %d: raise the MTU of the interface or the tunnel on the way; until then connections are TCP's", least)
	}
	return f
}

// publicAddr reports whether a multiaddr leads beyond private networks.
func publicAddr(s string) bool {
	a, err := multiaddr.NewMultiaddr(s)
	return err == nil && manet.IsPublicAddr(a)
}

// ThisMachine looks at the machine that it runs on, and what that knows of the
// paths to the supernodes of a daemon there. A build without a date has none.
func ThisMachine(s Status) Machine {
	m := Machine{Now: time.Now(), Built: built(), PathMTU: map[string]int{}}
	for _, p := range s.Network.Paths {
		if p.How == host.Relayed || !slices.ContainsFunc(s.Supernodes, func(n control.Status) bool { return n.Supernode == p.Peer }) {
			continue
		}
		if addr, err := multiaddr.NewMultiaddr(p.Addr); err == nil {
			if ip, err := manet.ToIP(addr); err == nil {
				m.PathMTU[p.Addr] = pathMTU(ip)
			}
		}
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return m
	}
	for _, i := range interfaces {
		up := i.Flags&net.FlagUp != 0 && i.Flags&net.FlagLoopback == 0
		if up && (m.MTU == 0 || i.MTU < m.MTU) {
			m.MTU = i.MTU
		}
	}
	return m
}
