package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/p2pnode/p2pnode/node/admin"
	"github.com/p2pnode/p2pnode/node/host"
	"github.com/p2pnode/p2pnode/seed/store"
	"github.com/p2pnode/p2pnode/supernode"
)

// supernodeHost is a supernode on a libp2p host of its own.
type supernodeHost struct {
	host      *host.Host
	member    *member           // nil without a swarm, as the next
	issuer    *supernode.Issuer // of its certificates
	supernode *supernode.Supernode
}

// supernodeParams are what an embedded supernode and one alone differ in.
type supernodeParams struct {
	// File names below dataDir; memberDir is where its membership is kept.
	dataDir, keyFile, savedPeers, snapshot string
	memberDir                              string
	listen                                 []string
	join                                   string
	grace                                  time.Duration
	swarm, version, relayData              string
	replicas, shards, maxPeers             int
	filterQuery                            []string
	beat                                   time.Duration
	logger                                 *slog.Logger
	registerer                             prometheus.Registerer
}

// part labels the metrics of a node or of a supernode: one process can be both,
// and they share packages.
func part(name string, r prometheus.Registerer) prometheus.Registerer {
	return prometheus.WrapRegistererWith(prometheus.Labels{"part": name}, r)
}

func openSupernode(p supernodeParams) (*supernodeHost, error) {
	p.registerer = part("supernode", p.registerer)
	key, _, err := identity(p.dataDir, p.keyFile)
	if err != nil {
		return nil, err
	}
	addrs, err := multiaddrs(p.listen)
	if err != nil {
		return nil, err
	}
	m, gate, issuer, err := p.openMember(key)
	if err != nil {
		return nil, err
	}
	h, err := host.New(host.Config{
		Key: key, Gate: gate, Listen: addrs, MaxPeers: p.maxPeers, DHTServer: true, Version: p.version,
		NAT:            supernodeNAT(p.listen, p.relayData),
		SavedPeersFile: filepath.Join(p.dataDir, p.savedPeers), Logger: p.logger, Registerer: p.registerer,
	})
	if err != nil && p.keyFile == embeddedFile {
		err = fmt.Errorf("%w: --supernode-listen names its addresses", err)
	}
	if err != nil {
		return nil, err
	}
	s, err := supernode.New(supernode.Config{
		Host: h, PubSub: h.PubSub, Key: key, Swarm: p.swarm, Replicas: p.replicas, Shards: p.shards, FilterQuery: p.filterQuery, Beat: p.beat, MaxPeers: p.maxPeers,
		SnapshotFile: filepath.Join(p.dataDir, p.snapshot), Logger: p.logger, Registerer: p.registerer,
		MaySeed: m.maySeed(), Revocations: m.told(),
	})
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return &supernodeHost{host: h, member: m, issuer: issuer, supernode: s}, nil
}

// order gives an operator's order; it implements admin.Orders.
func (s *supernodeHost) order(id, order string) error {
	of, err := peer.Decode(id)
	if err != nil {
		return fmt.Errorf("peer %q: %w", id, err)
	}
	return s.supernode.Order(of, supernode.Order(order))
}

// run serves until ctx ends.
func (s *supernodeHost) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.host.Run(ctx, nil) })
	g.Go(func() error { return s.supernode.Run(ctx) })
	return g.Wait()
}

// embeddedDir is where an embedded supernode keeps its membership.
func embeddedDir(dataDir string) string { return filepath.Join(dataDir, "supernode") }

// openEmbedded opens the supernode of a node that has no other.
func openEmbedded(cfg Config, registerer prometheus.Registerer) (*supernodeHost, error) {
	dir := embeddedDir(cfg.DataDir)
	if cfg.Join != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("embedded supernode: %w", err)
		}
	}
	s, err := openSupernode(supernodeParams{
		memberDir: dir, join: cfg.Join, grace: max(0, cfg.OfflineGrace),
		dataDir: cfg.DataDir, keyFile: embeddedFile, savedPeers: "supernode-peers.json", snapshot: "supernode.snapshot", listen: cfg.SupernodeListen,
		swarm: cfg.Swarm, version: cfg.Version, relayData: cfg.RelayData, replicas: cfg.Replicas, filterQuery: cfg.FilterQuery, maxPeers: cfg.MaxPeers, beat: cfg.Beat,
		logger: cfg.Logger.With("part", "supernode"), registerer: registerer,
	})
	if err != nil {
		return nil, fmt.Errorf("embedded supernode (there is no --supernode): %w", err)
	}
	return s, nil
}

// SupernodeNode is a supernode alone. Make it with NewSupernode, use it by Run,
// once.
type SupernodeNode struct {
	cfg   SupernodeConfig
	lock  *store.DirLock
	s     *supernodeHost
	admin net.Listener
	info  Info
	ready chan struct{}
}

// NewSupernode opens the data directory and binds the ports; nothing is served
// before Run.
func NewSupernode(cfg SupernodeConfig) (*SupernodeNode, error) {
	cfg.member = isMember(cfg.DataDir)
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.WithDefaults()
	n := &SupernodeNode{cfg: cfg, ready: make(chan struct{})}
	var err error
	if n.lock, err = store.LockDir(cfg.DataDir); err != nil {
		return nil, err
	}
	if n.admin, err = listenAdmin(cfg.Admin); err != nil {
		n.close()
		return nil, err
	}
	if n.s, err = openSupernode(supernodeParams{
		dataDir: cfg.DataDir, keyFile: identityFile, savedPeers: "peers.json", snapshot: "supernode.snapshot", listen: cfg.Listen, swarm: cfg.Swarm,
		memberDir: cfg.DataDir, join: cfg.Join, grace: max(0, cfg.OfflineGrace),
		version: cfg.Version, relayData: cfg.RelayData, replicas: cfg.Replicas, shards: cfg.Shards, filterQuery: cfg.FilterQuery, maxPeers: cfg.MaxPeers, beat: cfg.Beat,
		logger: cfg.Logger, registerer: cfg.Registerer,
	}); err != nil {
		n.close()
		return nil, err
	}
	n.info = Info{
		Event: "ready", Peer: n.s.host.ID().String(), Addrs: addrStrings(n.s.host),
		Admin: adminURL(n.admin),
	}
	return n, nil
}

// Ready is closed once Run serves.
func (n *SupernodeNode) Ready() <-chan struct{} { return n.ready }

// Info says where the supernode is reached.
func (n *SupernodeNode) Info() Info { return n.info }

// Run serves until ctx ends, and returns when all has ended.
func (n *SupernodeNode) Run(ctx context.Context) error {
	defer n.close()
	if err := n.info.announce(n.cfg.DataDir); err != nil {
		return err
	}
	defer withdraw(n.cfg.DataDir)
	api := admin.New(admin.Config{
		Status: func() any { return n.status() }, Orders: n.s.order, Revoke: n.s.revoke(), Gatherer: n.cfg.Gatherer,
		Hosts: hostNames(n.cfg.Admin), Logger: n.cfg.Logger,
	})
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.s.run(gctx) })
	g.Go(func() error { return admin.NewServer(n.admin, api, n.cfg.Logger).Run(gctx) })
	close(n.ready)
	err := g.Wait()
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}

func (n *SupernodeNode) close() {
	if n.s != nil {
		if err := n.s.host.Close(); err != nil {
			n.cfg.Logger.Warn("part did not close well", "part", "host", "err", err)
		}
	}
	if n.admin != nil {
		_ = n.admin.Close() // its server may have closed it
	}
	if n.lock != nil {
		_ = n.lock.Close()
	}
}

// multiaddrs reads the listen addresses.
func multiaddrs(list []string) ([]multiaddr.Multiaddr, error) {
	var out []multiaddr.Multiaddr
	for _, s := range list {
		a, err := multiaddr.NewMultiaddr(s)
		if err != nil {
			return nil, fmt.Errorf("listen address %q: %w", s, err)
		}
		out = append(out, a)
	}
	return out, nil
}

// addrStrings returns the host's addresses, each with /p2p/ID.
func addrStrings(h *host.Host) []string {
	var out []string
	for _, a := range host.Addrs(h) {
		out = append(out, a.String())
	}
	return out
}

// hostNames returns the host part of a listen address where it is a name.
func hostNames(addr string) []string {
	name, _, err := net.SplitHostPort(addr)
	if err != nil || name == "" || strings.HasPrefix(addr, UnixPrefix) {
		return nil
	}
	return []string{name}
}
