package host

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/prometheus/client_golang/prometheus"
)

// defaultMaxPeers is Config.MaxPeers where it is 0.
const defaultMaxPeers = 1024

// Config says what New makes. Only Key has no default.
type Config struct {
	// Key is the host's identity; see LoadOrCreateKey.
	Key crypto.PrivKey
	// Listen are the addresses to listen on, port 0 for any; none for a host
	// that only dials. Without a Gate they must be loopback addresses, or
	// AllowPublic set.
	Listen []multiaddr.Multiaddr
	// AllowPublic lets Listen name other addresses than loopback also without a
	// Gate: for labs, since whoever reaches the port is served.
	AllowPublic bool
	// Gate lets the members of a swarm in, and nobody else; nil for no swarm,
	// where everybody is served. It is for this host alone.
	Gate *Gate
	// Bootstrap are peers that Run joins through and keeps connections to.
	Bootstrap []peer.AddrInfo
	// Site are peers that stand where this host does: Run keeps connections to
	// them, and tries again after 4 s at most when they are lost.
	Site []peer.AddrInfo
	// MDNS is the name of the service under which Run finds hosts on the same
	// links, and is found by them, by multicast DNS, such as _name._udp; "" for not
	// at all. It keeps connections to the eight that it heard of last.
	MDNS string
	// MaxPeers is the number of connected peers the host is made for, 0 for
	// 1024. All limits derive from it; a peer costs up to 90 KiB of memory.
	// Above it the least used connections are closed. A host made for more than
	// 2,048 publishes over GossipSub to a few peers and not to all.
	MaxPeers int
	// DHTServer makes the host store records of others and answer for them:
	// for hosts that others can reach.
	DHTServer bool
	// NAT is what the host does about hosts that others cannot dial, itself
	// included; nil is nothing: for hosts on loopback and in simulations.
	NAT *NAT
	// Moved hears that the machine's addresses have changed, or that it slept; it
	// must not block. Run calls it. Nil for nobody.
	Moved func()
	// SavedPeersFile is where Run keeps the peers it has met, "" for nowhere.
	SavedPeersFile string
	// Version is what peers are told, "" for that of the build.
	Version string
	// Logger is nil for slog.Default.
	Logger *slog.Logger
	// Registerer is nil for no metrics. Two hosts in one process need
	// registerers that differ in a label (prometheus.WrapRegistererWith).
	Registerer prometheus.Registerer
	// Options are given to libp2p after those that New chooses: a simulation
	// puts its own network in the place of the kernel's sockets by them.
	Options []libp2p.Option
}

// Validate names the first field that breaks a rule.
func (c Config) Validate() error {
	if c.Key == nil {
		return errors.New("host config: key is missing")
	}
	if c.MaxPeers < 0 {
		return fmt.Errorf("host config: max peers is %d, want 0 (for %d) or more", c.MaxPeers, defaultMaxPeers)
	}
	if c.NAT != nil {
		if err := c.NAT.Validate(); err != nil {
			return fmt.Errorf("host config: %w", err)
		}
	}
	for _, a := range c.Listen {
		if err := c.validateListen(a); err != nil {
			return err
		}
	}
	return nil
}

func (c Config) validateListen(a multiaddr.Multiaddr) error {
	if !isTCP(a) && !isQUIC(a) {
		return fmt.Errorf("listen address %s: want TCP or QUIC, such as /ip4/127.0.0.1/tcp/65000 or /ip4/127.0.0.1/udp/65000/quic-v1", a)
	}
	if c.Gate == nil && !c.AllowPublic && !manet.IsIPLoopback(a) {
		return fmt.Errorf("listen address %s: only loopback addresses (127.0.0.1, ::1) are allowed without a swarm: anybody who reaches another one would be served", a)
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.MaxPeers == 0 {
		c.MaxPeers = defaultMaxPeers
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Version == "" {
		c.Version = "devel"
		if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" && b.Main.Version != "(devel)" {
			c.Version = b.Main.Version
		}
	}
	return c
}
