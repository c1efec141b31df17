//go:build linux

package netlab

import (
	"fmt"
	"strconv"
	"strings"
)

// NAT is a NAT box with a LAN behind it.
type NAT struct {
	// Box is the box itself: its Dev is the side of the public segment, IP its
	// address there.
	Box *Namespace

	lab   *Lab
	kind  Kind
	lan   int // the second byte of the LAN's addresses
	hosts int
}

// NAT returns a box of any kind but Public.
func (l *Lab) NAT(name string, kind Kind) *NAT {
	l.t.Helper()
	l.lans++
	b := &NAT{Box: l.space(name), lab: l, kind: kind, lan: l.lans}
	n := b.Box
	n.Dev, n.IP = "wan", l.join(n, "wan")
	n.must("sysctl", "-qw", "net.ipv4.ip_forward=1")
	n.must("ip", "link", "add", "lan", "type", "bridge")
	n.must("ip", "link", "set", "lan", "up")
	n.must("ip", "addr", "add", b.addr(1)+"/24", "dev", "lan")
	b.filter()
	return b
}

func (b *NAT) addr(host int) string { return fmt.Sprintf("10.%d.0.%d", b.lan, host) }

// filter sets the box's tables.
func (b *NAT) filter() {
	b.lab.t.Helper()
	masquerade := []string{"-t", "nat", "-A", "POSTROUTING", "-o", "wan", "-j", "MASQUERADE"}
	if b.kind == Symmetric {
		masquerade = append(masquerade, "--random-fully")
	}
	b.table(masquerade...)
	b.table("-P", "FORWARD", "DROP")
	b.table("-P", "INPUT", "DROP")
	if b.kind == FullCone {
		for _, proto := range []string{"tcp", "udp"} {
			b.table("-t", "nat", "-A", "PREROUTING", "-i", "wan", "-p", proto, "--dport", strconv.Itoa(Port), "-j", "DNAT", "--to-destination", b.addr(2)+":"+strconv.Itoa(Port))
		}
	}
	// What stays on the LAN passes the box's tables too where the kernel has
	// br_netfilter.
	b.table("-A", "FORWARD", "-i", "lan", "-o", "lan", "-j", "ACCEPT")
	if b.kind == UDPBlocked {
		b.table("-A", "FORWARD", "-p", "udp", "-j", "DROP")
	}
	b.table("-A", "FORWARD", "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT")
	b.table("-A", "FORWARD", "-i", "lan", "-o", "wan", "-j", "ACCEPT")
	b.table("-A", "FORWARD", "-i", "wan", "-m", "conntrack", "--ctstate", "DNAT", "-j", "ACCEPT")
	b.table("-A", "INPUT", "-i", "lan", "-j", "ACCEPT")
	b.table("-A", "INPUT", "-i", "lo", "-j", "ACCEPT")
	b.table("-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT")
}

func (b *NAT) table(args ...string) {
	b.lab.t.Helper()
	b.Box.must("iptables", append([]string{"-w"}, args...)...)
}

// Host returns a namespace on the LAN; the first is the one to which a FullCone
// forwards.
func (b *NAT) Host(name string) *Namespace {
	b.lab.t.Helper()
	b.hosts++
	n := b.lab.space(name)
	port := "h" + strconv.Itoa(b.hosts)
	b.lab.link(n, "eth0", b.Box, port)
	b.Box.must("ip", "link", "set", port, "master", "lan")
	n.Dev, n.Outside = "eth0", b.Box.IP
	b.Readdress(n, 1+b.hosts)
	return n
}

// Readdress gives a host of the LAN another address there, its last byte, as a
// new lease would.
func (b *NAT) Readdress(n *Namespace, host int) {
	b.lab.t.Helper()
	n.must("ip", "addr", "flush", "dev", n.Dev)
	n.IP = b.addr(host)
	n.must("ip", "addr", "add", n.IP+"/24", "dev", n.Dev)
	n.must("ip", "route", "replace", "default", "via", b.addr(1))
}

// Limit bounds the box's uplink in both directions to a rate in the words of tc,
// such as 20mbit.
func (b *NAT) Limit(rate string) {
	b.lab.t.Helper()
	for n, dev := range map[*Namespace]string{b.Box: "wan", b.lab.hub: b.Box.port} {
		n.must("tc", "qdisc", "replace", "dev", dev, "root", "tbf", "rate", rate, "burst", "256k", "latency", "50ms")
	}
}

// Cut takes the uplink away, and Heal brings it back.
func (b *NAT) Cut() { b.Box.must("ip", "link", "set", "wan", "down") }

// Heal undoes Cut.
func (b *NAT) Heal() { b.Box.must("ip", "link", "set", "wan", "up") }

// Received returns the bytes that came down the uplink so far, with the headers
// of all packets.
func (b *NAT) Received() int64 { return b.Box.counter("rx_bytes") }

// Sent returns the bytes that went up.
func (b *NAT) Sent() int64 { return b.Box.counter("tx_bytes") }

// counter reads one of the interface's counters.
func (n *Namespace) counter(name string) int64 {
	n.lab.t.Helper()
	out, err := n.run("cat", "/sys/class/net/"+n.Dev+"/statistics/"+name)
	if err != nil {
		n.lab.t.Fatal(err)
	}
	v, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	if err != nil {
		n.lab.t.Fatalf("counter %s of %s: %v", name, n.name, err)
	}
	return v
}
