package node

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"net"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/node/control"
	"github.com/p2pnode/p2pnode/node/host"
	"github.com/p2pnode/p2pnode/node/limits"
	"github.com/p2pnode/p2pnode/node/locate"
	"github.com/p2pnode/p2pnode/node/prefetch"
	"github.com/p2pnode/p2pnode/node/proxy"
	"github.com/p2pnode/p2pnode/node/read"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed"
	"github.com/p2pnode/p2pnode/seed/origin"
	"github.com/p2pnode/p2pnode/seed/store"
)

// Node is one peer of a swarm with its HTTP faces. Make it with New, use it by
// Run, once.
type Node struct {
	cfg        Config
	self       peer.ID
	supernodes []peer.AddrInfo
	embedded   *supernodeHost
	member     *member              // nil without a swarm
	site       atomic.Pointer[site] // nil until one is inferred

	disk      *store.Disk
	host      *host.Host
	seeds     *locate.Map
	providers *locate.Providers
	files     *seed.Manager
	spool     string
	transfers transfers
	// background is nil where no files are wanted whole.
	background *prefetch.Background
	client     *rangeread.Client
	pace       pace
	server     *rangeread.Server
	limits     *limits.Limiter
	filler     *read.Filler
	origin     *origin.Client
	policy     *origin.Policy
	filters    *filters
	rules      *proxy.Rules
	access     proxy.Access
	proxyTLS   *tls.Config // nil for none
	control    *control.Control

	web                          web
	proxyListener, adminListener net.Listener
	info                         Info
	ready                        chan struct{}
	pooled                       chan struct{} // a pool has come
}

// New opens the data directory and binds the ports; nothing is served before
// Run. The errors of what it opens name it and say what to do.
func New(cfg Config) (*Node, error) {
	cfg = cfg.WithMembership()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg.WithDefaults(), ready: make(chan struct{}), pooled: make(chan struct{}, 1)}
	registerer := n.cfg.Registerer
	n.cfg.Registerer = part("node", registerer)
	if err := n.open(registerer); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// open makes the parts, from the disk up.
func (n *Node) open(registerer prometheus.Registerer) error {
	cfg := n.cfg
	var err error
	if n.policy, err = origin.NewPolicy(cfg.OriginAllow); err != nil {
		return err
	}
	if n.policy, err = n.policy.Within(cfg.OriginOnly, n.isOwn); err != nil {
		return err
	}
	if n.web, err = openWeb(cfg); err != nil {
		return err
	}
	if n.disk, err = store.OpenDisk(store.DiskConfig{
		Dir: cfg.DataDir, Capacity: cfg.CacheSize, Owned: n.owns, Evicted: n.evicted, Logger: cfg.Logger, Registerer: cfg.Registerer,
	}); err != nil {
		return err
	}
	if n.spool, err = openSpool(cfg.DataDir); err != nil {
		return err
	}
	key, self, err := identity(cfg.DataDir, identityFile)
	if err != nil {
		return err
	}
	n.self = self
	if n.access, err = cfg.proxyAccess(); err != nil {
		return err
	}
	if n.proxyTLS, err = cfg.proxyTLS(); err != nil {
		return err
	}
	if n.proxyListener, err = listen("proxy", cfg.Proxy); err != nil {
		return err
	}
	if n.adminListener, err = listenAdmin(cfg.Admin); err != nil {
		return err
	}
	if n.rules, err = proxy.NewRules(cfg.Rules); err != nil {
		return err
	}
	n.filters = newFilters(cfg)
	if len(cfg.Supernodes) == 0 {
		if n.embedded, err = openEmbedded(cfg, registerer); err != nil {
			return err
		}
	}
	gate, err := n.openMember()
	if err != nil {
		return err
	}
	cfg = n.cfg // a reader is no seed
	if err := n.openHost(key, gate); err != nil {
		return err
	}
	n.wire()
	if n.control, err = control.New(control.Config{
		Host: n.host, PubSub: n.host.PubSub, Supernodes: n.supernodes, Swarm: cfg.Swarm, Beat: n.beat,
		Interval: cfg.Beat, Map: seedMap{n.seeds, n.host, n.providers, n.filters, cfg.Seed, n.pooled, n.believes}, AllHeld: n.allHeld, Logger: cfg.Logger, Registerer: cfg.Registerer,
		Revocations: n.revocations(), Believed: n.believes,
	}); err != nil {
		return err
	}
	if n.member != nil {
		offline := func() bool { return !n.supernodeReached() }
		n.member.offline.Store(&offline)
	}
	n.describe()
	return nil
}

// openHost makes the libp2p host.
func (n *Node) openHost(key crypto.PrivKey, gate *host.Gate) error {
	cfg := n.cfg
	var err error
	if n.supernodes, err = host.ParseAddrInfos(cfg.Supernodes); err != nil {
		return err
	}
	if n.embedded != nil {
		n.supernodes = []peer.AddrInfo{{ID: n.embedded.host.ID(), Addrs: n.embedded.host.Addrs()}}
	}
	bootstrap, err := host.ParseAddrInfos(cfg.Bootstrap)
	if err != nil {
		return err
	}
	site, err := host.ParseAddrInfos(cfg.SitePeers)
	if err != nil {
		return err
	}
	addrs, err := multiaddrs(cfg.Listen)
	if err != nil {
		return err
	}
	if n.host, err = host.New(host.Config{
		Key: key, Listen: addrs, Bootstrap: append(n.supernodes, bootstrap...), MaxPeers: cfg.MaxPeers, DHTServer: true,
		SavedPeersFile: filepath.Join(cfg.DataDir, "peers.json"), Version: cfg.Version,
		Site: site, MDNS: n.mdnsService(), Moved: func() { n.origin.CloseIdle() }, NAT: cfg.nat(), Logger: cfg.Logger, Registerer: cfg.Registerer, Gate: gate, Options: cfg.HostOptions,
	}); err != nil {
		return err
	}
	for _, s := range append(site, n.supernodes...) {
		n.host.Peerstore().AddAddrs(s.ID, s.Addrs, peerstore.PermanentAddrTTL)
	}
	return nil
}

// wire makes the data path: the seed map, the files, and who reads and serves
// them.
func (n *Node) wire() {
	cfg := n.cfg
	var ids []peer.ID
	for _, s := range n.supernodes {
		ids = append(ids, s.ID)
	}
	n.seeds = locate.New(locate.Config{
		Self: n.self, SelfSeed: cfg.Seed, Site: cfg.Site, Supernodes: ids, Replicas: cfg.Replicas, Registerer: cfg.Registerer,
	})
	n.providers = locate.NewProviders(locate.ProvidersConfig{
		Router: n.host.DHT, Self: n.self, Logger: cfg.Logger, Registerer: cfg.Registerer,
	})
	n.client = rangeread.NewClient(rangeread.ClientConfig{Host: n.host, Allow: host.MayCarryFiles, Far: n.host.Far, Trusted: n.trustedSigner, Silent: n.host.Doubt, Registerer: cfg.Registerer})
	n.origin = origin.New(origin.Config{
		Policy: n.policy, Proxy: n.upstreamProxy, TLS: n.web.roots,
		UserAgent: "p2pnode/" + cfg.Version, Logger: cfg.Logger, Registerer: cfg.Registerer,
	})
	n.filler = read.NewFiller(read.FillerConfig{
		Self: n.self, Client: n.client, Origin: n.origin, Map: sources{n.seeds}, Health: n.seeds,
		Providers: providers{n.providers, n.host, n.seeds}, Seed: cfg.Seed, Fallback: cfg.OriginFallback, Start: poolWait,
		Again: reachWait, Redial: n.host.Redial, Pace: n.slowDown,
		Logger: cfg.Logger, Registerer: cfg.Registerer,
	})
	n.files = seed.New(seed.Config{
		Self: n.self, Key: n.host.Peerstore().PrivKey(n.self), Store: n.disk, Filler: n.filler, Owns: n.reads, VerifySeal: n.client.VerifySeal,
		Filter: n.filters.ByVersion, Authorizer: n.filler, MayGrant: n.mayGrant, GrantLife: cfg.GrantLife, Grace: n.grace, Seed: cfg.Seed, Spool: n.spool, Whole: cfg.Fill == FillWhole, Changed: n.changed,
		Reach: func(p peer.ID) (peer.AddrInfo, bool) { return reach(n.host, p) }, Far: n.seeds.Far, Logger: cfg.Logger, Registerer: cfg.Registerer,
	})
	n.transfers = n.newTransfers()
	if cfg.Fill == FillWhole || slices.ContainsFunc(cfg.Rules, func(r Rule) bool { return r.Prefetch == proxy.PrefetchWhole }) {
		n.background = prefetch.NewBackground(n.transfers.Prefetcher, cfg.FillTasks, cfg.FillRate, n.backgroundTurn)
	}
	n.limits = limits.New(counted{n.files, n}, n.seeds.Near)
	n.limits.SetUplink(n.cfg.Uplink.now().Rate)
	n.server = rangeread.NewServer(rangeread.ServerConfig{Host: n.host, Handler: n.limits, Pace: n.limits.Up, Logger: cfg.Logger, Registerer: cfg.Registerer})
}

// describe fills the ready line.
func (n *Node) describe() {
	n.info = Info{
		Event: "ready", Peer: n.self.String(), Addrs: addrStrings(n.host),
		Proxy: n.proxyURL(), Admin: adminURL(n.adminListener),
	}
	if n.proxyTLS != nil {
		sum := sha256.Sum256(n.proxyTLS.Certificates[0].Certificate[0])
		n.info.ProxyCert = hex.EncodeToString(sum[:])
	}
	if n.embedded != nil {
		n.info.Supernode = addrStrings(n.embedded.host)[0]
	}
}

// Info says where the node is reached.
func (n *Node) Info() Info { return n.info }
