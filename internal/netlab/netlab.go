//go:build linux

package netlab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Kind says how a NAT box maps and filters.
type Kind string

// The kinds of a place in the network.
const (
	// Public is no NAT: the host itself is on the public segment.
	Public Kind = "public"
	// PortPreserving keeps the source port, the same for all destinations, and
	// lets in what answers: RFC 4787's endpoint-independent mapping with address
	// and port-dependent filtering. Most home routers.
	PortPreserving Kind = "port-preserving"
	// Symmetric takes a random port for each destination.
	Symmetric Kind = "symmetric"
	// FullCone is PortPreserving and forwards port 65000 to the first host.
	FullCone Kind = "full-cone"
	// UDPBlocked is PortPreserving that passes no UDP.
	UDPBlocked Kind = "udp-blocked"
)

// Kinds are all kinds, in the order of the tables.
var Kinds = []Kind{Public, PortPreserving, Symmetric, FullCone, UDPBlocked}

// Port is what a FullCone forwards, TCP and UDP.
const Port = 65000

const (
	// prefix begins the names of all namespaces, the process's ID follows.
	prefix = "p2plab"
	// commandLimit bounds each of the small commands that build the lab.
	commandLimit = 20 * time.Second
	netnsDir     = "/run/netns"
)

// labs counts the labs of this process, for the names.
var labs struct {
	sync.Mutex
	n int
}

// Lab is a public segment and what hangs on it. It ends with its test.
type Lab struct {
	t    testing.TB
	name string // begins the names of the lab's namespaces
	hub  *Namespace

	ports, lans, public int
	spaces              []*Namespace
}

// Need skips the test, with the reason, where a lab cannot be made here.
func Need(t testing.TB) {
	t.Helper()
	if err := Usable(); err != nil {
		t.Skipf("no network lab: %v", err)
	}
}

// Usable says what is missing for a lab; nil for nothing.
func Usable() error {
	if os.Geteuid() != 0 {
		return errors.New("it needs root")
	}
	for _, tool := range []string{"ip", "bridge", "iptables", "tc", "sysctl"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w: install iproute2, iptables and procps", err)
		}
	}
	probe := fmt.Sprintf("%s%d-probe", prefix, os.Getpid())
	defer func() { _, _ = command("ip", "netns", "del", probe) }()
	if _, err := command("ip", "netns", "add", probe); err != nil {
		return fmt.Errorf("network namespaces are not allowed here: %w", err)
	}
	if _, err := command("ip", "netns", "exec", probe, "iptables", "-t", "nat", "-A", "POSTROUTING", "-j", "MASQUERADE", "--random-fully"); err != nil {
		return fmt.Errorf("NAT is not allowed here: %w", err)
	}
	if _, err := command("ip", "netns", "exec", probe, "tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "1mbit", "burst", "32k", "latency", "50ms"); err != nil {
		return fmt.Errorf("the kernel has no tbf: %w", err)
	}
	return nil
}

// Start makes an empty lab; it skips the test where that cannot be.
func Start(t testing.TB) *Lab {
	t.Helper()
	Need(t)
	sweep()
	labs.Lock()
	labs.n++
	l := &Lab{t: t, name: fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), labs.n)}
	labs.Unlock()
	t.Cleanup(l.close)
	l.hub = l.space("hub")
	l.hub.must("ip", "link", "add", "br0", "type", "bridge")
	l.hub.must("ip", "link", "set", "br0", "up")
	return l
}

// sweep removes the namespaces, and what runs in them, of labs whose process is
// gone.
func sweep() {
	found, _ := filepath.Glob(filepath.Join(netnsDir, prefix+"*"))
	for _, path := range found {
		name := filepath.Base(path)
		id, _, _ := strings.Cut(strings.TrimPrefix(name, prefix), "-")
		pid, err := strconv.Atoi(id)
		if err != nil || pid == os.Getpid() || syscall.Kill(pid, 0) == nil {
			continue
		}
		remove(name)
	}
}

// remove ends the processes of a namespace and takes it away.
func remove(name string) {
	pids, _ := command("ip", "netns", "pids", name)
	for _, s := range strings.Fields(pids) {
		if pid, err := strconv.Atoi(s); err == nil && pid != os.Getpid() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	_, _ = command("ip", "netns", "del", name)
}

func (l *Lab) close() {
	for i := len(l.spaces) - 1; i >= 0; i-- {
		remove(l.spaces[i].name)
	}
}

// space makes a namespace with its loopback up.
func (l *Lab) space(name string) *Namespace {
	l.t.Helper()
	n := &Namespace{lab: l, name: l.name + "-" + name}
	if _, err := command("ip", "netns", "add", n.name); err != nil {
		l.t.Fatal(err)
	}
	l.spaces = append(l.spaces, n)
	n.must("ip", "link", "set", "lo", "up")
	n.must("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
	return n
}

// link connects two namespaces by a pair of interfaces, both up.
func (l *Lab) link(a *Namespace, ifA string, b *Namespace, ifB string) {
	l.t.Helper()
	if _, err := command("ip", "link", "add", ifA, "netns", a.name, "type", "veth", "peer", "name", ifB, "netns", b.name); err != nil {
		l.t.Fatal(err)
	}
	a.must("ip", "link", "set", ifA, "up")
	b.must("ip", "link", "set", ifB, "up")
}

// join puts an interface of a namespace on the public segment and returns its
// address.
func (l *Lab) join(n *Namespace, dev string) string {
	l.t.Helper()
	l.ports++
	l.public++
	port := "p" + strconv.Itoa(l.ports)
	l.link(n, dev, l.hub, port)
	l.hub.must("ip", "link", "set", port, "master", "br0")
	l.hub.must("bridge", "link", "set", "dev", port, "mcast_flood", "off")
	ip := fmt.Sprintf("11.11.%d.%d", l.public/200, 10+l.public%200)
	n.must("ip", "addr", "add", ip+"/16", "dev", dev)
	n.port = port
	return ip
}

// Host returns a namespace with a public address.
func (l *Lab) Host(name string) *Namespace {
	l.t.Helper()
	n := l.space(name)
	n.Dev, n.IP = "eth0", l.join(n, "eth0")
	n.Outside = n.IP
	n.must("ip", "route", "add", "default", "dev", "eth0")
	return n
}

// Place returns a host at a place of a kind: on the public segment, or alone
// behind a NAT box of its own.
func (l *Lab) Place(name string, kind Kind) *Namespace {
	l.t.Helper()
	if kind == Public {
		return l.Host(name)
	}
	return l.NAT(name+"-nat", kind).Host(name)
}

// command runs a command and returns its output; the error has what it said.
func command(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
