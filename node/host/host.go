package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	routedhost "github.com/libp2p/go-libp2p/p2p/host/routed"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	dhtPrefix protocol.ID = "/p2pnode"
	// providerValidity is how long a provider record lives; seeds provide again
	// three times in it.
	providerValidity = time.Hour
	// gossipQueue is the number of messages that wait for one peer. The default
	// of 32 drops bursts of assignments silently.
	gossipQueue = 256
	// gossipChecks is the number of received messages that wait for their
	// signature to be checked. Past the default of 32 they are dropped silently.
	gossipChecks = 1024
	// floodPeers is the most peers to all of which a host publishes by itself. It
	// gains a tenth of a second and costs a copy of each message a peer: among
	// 10,000 that is 33 MB/s for 10 new files a second, against 2 MB/s.
	floodPeers = 2048
	// maxGossip is the largest gossip message. Larger ones are lost on the way.
	maxGossip = 64 << 10
	// connGrace is how long a new connection is not trimmed.
	connGrace = 30 * time.Second
)

// Host is a libp2p host with the swarm's DHT and GossipSub. NewStream and
// Connect look peers without known addresses up in the DHT.
type Host struct {
	host.Host
	// DHT is the swarm's Kademlia, /p2pnode/kad/1.0.0: provider records and
	// peers' addresses, no values.
	DHT *dht.IpfsDHT
	// PubSub is GossipSub with signed messages of at most 64 KiB.
	PubSub *pubsub.PubSub

	cfg        Config
	log        *slog.Logger
	metrics    *metrics
	nat        *traversal // nil for none
	paths      *paths
	alive      *alive
	near       *near // nil for none
	links      interfaces
	stopGossip context.CancelFunc
	close      func() error
}

// New returns a host that listens and answers; the caller runs Run to have it
// join others, and closes it. An address that cannot be listened on is an error
// that names it, whatever the others do.
func New(cfg Config) (*Host, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	var nat *traversal
	if cfg.NAT != nil {
		nat = newTraversal(*cfg.NAT)
	}
	base, err := newBase(cfg, nat)
	if err != nil {
		return nil, fmt.Errorf("make libp2p host: %w", err)
	}
	h := &Host{cfg: cfg, log: cfg.Logger, nat: nat, paths: newPaths(base.Network()), alive: newAlive(cfg.Logger)}
	base.Network().Notify(h.paths)
	base.Network().Notify(h.alive)
	h.close = sync.OnceValue(func() error { return h.closeAll(base) })
	if err := h.start(base); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	h.metrics = newMetrics(cfg.Registerer, h)
	if cfg.MDNS != "" {
		h.near = newNear(h, cfg.MDNS)
	}
	return h, nil
}

// newBase makes the host without listeners: what gates its streams is in place
// before the first one comes.
func newBase(cfg Config, nat *traversal) (host.Host, error) {
	limits, err := newResourceManager(cfg.MaxPeers)
	if err != nil {
		return nil, err
	}
	conns, err := connmgr.NewConnManager(cfg.MaxPeers*3/4, cfg.MaxPeers, connmgr.WithGracePeriod(connGrace))
	if err != nil {
		return nil, errors.Join(err, limits.Close())
	}
	var lan interfaces
	rank := func(addrs []multiaddr.Multiaddr) []network.AddrDelay { return rankDials(addrs, lan.onLink) }
	overTCP := []any{tcp.DisableReuseport()}
	traverse := []libp2p.Option{libp2p.DisableRelay()}
	if nat != nil {
		overTCP = nil // holes are punched from the port that listens
		traverse = nat.options()
	}
	var gate []libp2p.Option
	if cfg.Gate != nil {
		limits = cfg.Gate.wrap(limits, cfg.MaxPeers)
		gate = append(gate, libp2p.ConnectionGater(cfg.Gate))
	}
	return libp2p.New(slices.Concat(gate, []libp2p.Option{
		libp2p.Identity(cfg.Key),
		libp2p.NoListenAddrs,
		libp2p.Transport(tcp.NewTCPTransport, overTCP...),
		libp2p.Transport(quic.NewTransport, quic.WithTLSIdentityOption(withoutDates)),
		libp2p.Security(libp2ptls.ID, newTLS),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport), // receive windows grow to 16 MiB
		libp2p.SwarmOpts(swarm.WithDialRanker(rank)),
		libp2p.ResourceManager(limits),
		libp2p.ConnectionManager(conns),
		libp2p.UserAgent("p2pnode/" + cfg.Version),
		libp2p.DisableMetrics(),
	}, traverse, cfg.Options)...)
}

// start adds the DHT, GossipSub and the listeners, in this order.
func (h *Host) start(base host.Host) error {
	var err error
	if h.cfg.Gate != nil {
		if err = h.cfg.Gate.start(base); err != nil {
			return err
		}
	}
	if h.DHT, err = newDHT(base, h.cfg); err != nil {
		return fmt.Errorf("make DHT: %w", err)
	}
	found, err := newFinder(h.DHT, base)
	if err != nil {
		return err
	}
	h.Host = routedhost.Wrap(base, found)
	ctx, cancel := context.WithCancel(context.Background())
	h.stopGossip = cancel
	if h.PubSub, err = newGossip(ctx, base, h.cfg.MaxPeers <= floodPeers); err != nil {
		return fmt.Errorf("make GossipSub: %w", err)
	}
	if h.nat != nil {
		if err := h.nat.start(h, base); err != nil {
			return err
		}
	}
	for _, a := range h.cfg.Listen {
		if err := listen(base, a, h.nat != nil); err != nil {
			return err
		}
	}
	return nil
}

// listen listens on an address; shared says that TCP listens with SO_REUSEPORT.
func listen(h host.Host, a multiaddr.Multiaddr, shared bool) error {
	if shared && isTCP(a) {
		if err := unused(a); err != nil {
			return err
		}
	}
	// Not Network().Listen, which succeeds when one address of several does and
	// hides the cause.
	err := h.Network().(*swarm.Swarm).AddListenAddr(a)
	return listenError(a, err)
}

func listenError(a multiaddr.Multiaddr, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("listen on %s: another process uses this port: stop it or choose another one (0 takes any): %w", a, err)
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w", a, err)
	}
	return nil
}

// unused reports that nobody listens at a TCP address, by listening there
// itself for a moment: with SO_REUSEPORT two processes share a port unnoticed.
func unused(a multiaddr.Multiaddr) error {
	network, addr, err := manet.DialArgs(a)
	if err != nil {
		return listenError(a, err)
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), network, addr)
	if err != nil {
		return listenError(a, err)
	}
	return l.Close()
}

func newDHT(h host.Host, cfg Config) (*dht.IpfsDHT, error) {
	mode := dht.ModeClient // never ModeAuto: it finds nobody on private addresses
	switch {
	case cfg.DHTServer && cfg.NAT != nil:
		mode = dht.ModeAutoServer // a client while traversal says that nobody can dial it
	case cfg.DHTServer:
		mode = dht.ModeServer
	}
	return dht.New(h,
		dht.ProtocolPrefix(dhtPrefix),
		dht.Mode(mode),
		dht.DisableValues(),
		dht.ProviderManagerOpts(records.ProvideValidity(providerValidity), records.ProviderAddrTTL(providerValidity)),
		// Private and loopback addresses are as good as others here, and one
		// address may stand for a whole site.
		dht.AddressFilter(nil),
		dht.QueryFilter(func(any, peer.AddrInfo) bool { return true }),
		dht.RoutingTableFilter(func(any, peer.ID) bool { return true }),
		dht.RoutingTablePeerDiversityFilter(nil),
	)
}

// newGossip makes GossipSub. A host that floods publishes to all peers that it
// is connected to, else to a few, who pass it on.
func newGossip(ctx context.Context, h host.Host, flood bool) (*pubsub.PubSub, error) {
	params := pubsub.DefaultGossipSubParams()
	params.Dlo = 4            // a small swarm connects each node to about four others
	params.HistoryLength = 10 // what a mesh lost is offered again for so many seconds
	params.HistoryGossip = 5
	return pubsub.NewGossipSub(ctx, h,
		pubsub.WithGossipSubParams(params),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictSign),
		pubsub.WithPeerOutboundQueueSize(gossipQueue),
		pubsub.WithValidateQueueSize(gossipChecks),
		pubsub.WithMaxMessageSize(maxGossip),
		pubsub.WithFloodPublish(flood),
	)
}

// Met returns the peers of the DHT's routing table that the host is connected
// to: some of all there are, from near and far in the space of IDs.
func (h *Host) Met() []peer.AddrInfo {
	var out []peer.AddrInfo
	for _, id := range h.DHT.RoutingTable().ListPeers() {
		if h.connected(id) {
			out = append(out, h.Peerstore().PeerInfo(id))
		}
	}
	return out
}

// closeTime is what a libp2p host gets to close.
const closeTime = 5 * time.Second

// Close ends the DHT, GossipSub and all connections, in this order, and waits
// for them, for the connections at most 5 s: libp2p's parts can wait for one
// another for ever where peers push their addresses meanwhile. Run must have
// ended. It may be called again.
func (h *Host) Close() error { return h.close() }

func (h *Host) closeAll(base host.Host) error {
	var errs []error
	if h.DHT != nil {
		errs = append(errs, h.DHT.Close())
	}
	if h.nat != nil {
		errs = append(errs, h.nat.close())
	}
	if h.stopGossip != nil {
		h.stopGossip()
	}
	if h.cfg.Gate != nil {
		h.cfg.Gate.close()
	}
	h.alive.end()
	errs = append(errs, h.closeWithin(closeTime, closing(func() error {
		err := base.Close()
		h.alive.wait()
		return err
	})))
	return errors.Join(errs...)
}

// closing is an io.Closer.
type closing func() error

// Close implements io.Closer.
func (f closing) Close() error { return f() }

// closeWithin closes c, and waits for that no longer than limit: what is left is
// for the end of the process, and in the log.
func (h *Host) closeWithin(limit time.Duration, c io.Closer) error {
	closed := make(chan error, 1)
	go func() { closed <- c.Close() }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-closed:
		return err
	case <-timer.C:
		h.log.Warn("the host did not close in time, left as it is", "limit", limit)
		return nil
	}
}
