package node

import (
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/seed"
)

// Defaults of Config and SupernodeConfig.
const (
	DefaultProxy          = "127.0.0.1:65001"
	DefaultAdmin          = "127.0.0.1:65002"
	DefaultSupernodeAdmin = "127.0.0.1:65004"
	DefaultCacheSize      = 10 << 30
	DefaultFillTasks      = 2
	DefaultReplicas       = 2
	DefaultMaxPeers       = 1024
	DefaultProxyRequests  = 1024
	DefaultGrantLife      = seed.DefaultGrantLife
	DefaultSwarm          = "default"
	DefaultVersion        = "devel"
	DefaultRelayData      = "limited"
)

// What Config.Fill may be.
const (
	FillAsked = "asked"
	FillWhole = "whole"
)

// DefaultListen returns where a node listens for peers: loopback, TCP and QUIC.
func DefaultListen() []string { return loopback("65000") }

// DefaultSupernodeListen returns where a supernode listens, alone or embedded.
func DefaultSupernodeListen() []string { return loopback("65003") }

// DefaultSwarmListen returns where a member of a swarm listens: all interfaces.
func DefaultSwarmListen() []string { return everywhere("65000") }

// everywhere returns the TCP and the QUIC address of a port on all interfaces.
func everywhere(port string) []string {
	return []string{"/ip4/0.0.0.0/tcp/" + port, "/ip4/0.0.0.0/udp/" + port + "/quic-v1"}
}

// loopback returns the TCP and the QUIC address of a port on 127.0.0.1.
func loopback(port string) []string {
	return []string{"/ip4/127.0.0.1/tcp/" + port, "/ip4/127.0.0.1/udp/" + port + "/quic-v1"}
}

// Config says what a Node is. A zero field means its default, except the
// switches Seed, OriginFallback, PortMapping, MDNS and InferSite, which are what they say.
type Config struct {
	// DataDir holds the identity, the blocks and daemon.json; it is made if it
	// is missing. One process at a time. Required.
	DataDir string
	// Join is a join secret, as NewJoinSecret makes it, or @FILE for a file that
	// holds it: it is exchanged at a supernode for a certificate, which DataDir
	// keeps. With one, or with a certificate there, the node is a member of a
	// closed swarm; without, it is on loopback only. A member names Supernodes, or
	// is given the secret of its own embedded one (EmbeddedID), which then makes it
	// a member.
	Join string
	// OfflineGrace is how long certificates stay good after their end while no
	// supernode can be reached. Default DefaultOfflineGrace; negative for none.
	OfflineGrace time.Duration
	// Listen are the multiaddrs for peers, TCP or QUIC, on loopback where the
	// node is in no swarm. Port 0 takes a free one. Default DefaultListen, in a
	// swarm DefaultSwarmListen.
	Listen []string
	// Supernodes are multiaddrs that end in /p2p/ID; the IDs are trusted to
	// sign assignments. None: one is embedded.
	Supernodes []string
	// SupernodeListen is Listen of the embedded supernode. Default
	// DefaultSupernodeListen, in a swarm port 65003 of all interfaces, or port 0 of
	// loopback where every port of Listen is 0.
	SupernodeListen []string
	// Bootstrap are peers to join through besides the supernodes, as
	// multiaddrs that end in /p2p/ID.
	Bootstrap []string
	// Proxy and Admin are host:port of the HTTP faces, on loopback; Admin can also
	// be unix: and the absolute path of a socket, which is made for this user
	// alone (mode 0600), where other users of this machine must not reach it; Proxy also
	// elsewhere, where ProxyUsers, ProxyClientCA or ProxyOpen says who may use
	// it. Port 0 takes a free one. Default DefaultProxy, DefaultAdmin.
	Proxy, Admin string
	// ProxyUsers is a file of name:hash lines, as htpasswd -B writes them, of a cost
	// of 13 at most: who may use the proxy from another machine, by
	// Proxy-Authorization. It is read once.
	ProxyUsers string
	// ProxyCert and ProxyKey are PEM files; with them the proxy speaks TLS.
	// ProxyClientCA is one of the issuers of clients' certificates, without
	// which nobody gets in then.
	ProxyCert, ProxyKey, ProxyClientCA string
	// ProxyOpen lets everybody who can reach the proxy use it.
	ProxyOpen bool
	// ProxyRate is how many requests a second a client may begin, ProxyRequests
	// how many are served at once for all of them; others wait in turn. 0 is no
	// bound for the one, DefaultProxyRequests for the other.
	ProxyRate, ProxyRequests int
	// GrantLife is how long after its origin was asked a requester of a private
	// file is served without asking again, and so how long a revoked credential may
	// still be good; 1 s to an hour. It counts on seeds. Default DefaultGrantLife.
	GrantLife time.Duration
	// Site names the site at which the node stands with others, behind one uplink;
	// "" for none, or for what InferSite finds.
	Site string
	// InferSite lets a member of a swarm that was given no Site find out with whom
	// it has a public address or a LAN in common, and take a site's name from that.
	InferSite bool
	// SitePeers are peers of this node's site, as multiaddrs that end in /p2p/ID: it
	// keeps in touch with them, also while no supernode is reached.
	SitePeers []string
	// MDNS lets the members of a swarm that are on one LAN find one another by
	// multicast DNS, also while no supernode is reached. Without a swarm, and where
	// Listen is on loopback alone, it does nothing.
	MDNS bool
	// Uplink bounds what this node sends and gets beyond its site, by the time of
	// day. Default no bound.
	Uplink Uplink
	// Seed lets the supernode elect this node to read origins for others.
	Seed bool
	// CacheSize bounds the stored blocks, in bytes. Default DefaultCacheSize.
	CacheSize int64
	// Fill says how much of a file is brought in of which something was asked:
	// FillAsked, what was asked, or FillWhole, all of it where it fits into half of
	// CacheSize, behind all readers. Default FillAsked.
	Fill string
	// FillRate bounds what FillWhole brings in, in bytes a second; 0: any number.
	FillRate int64
	// FillTasks is how many files it brings in at a time. Default
	// DefaultFillTasks.
	FillTasks int
	// OriginAllow are hosts, addresses and CIDR blocks that a seed may fetch
	// from for its peers although they are private or loopback.
	OriginAllow []string
	// OriginOnly are, where it names any, the hosts that a seed may fetch from at
	// all, in the form of OriginAllow; it opens no private address.
	OriginOnly []string
	// Registries says where the registry mirror finds registries that are not
	// at https://NAME, as NAME=URL with a URL of scheme, host and port. Docker
	// Hub is known, and a port of loopback is http.
	Registries []string
	// Intercept are the hosts whose TLS the proxy opens for its clients, who have
	// to trust the authority: host names, *.name or IP addresses.
	Intercept []string
	// CACert and CAKey are the files of that authority, as GenerateCA writes
	// them. Default ca.pem and ca.key in DataDir.
	CACert, CAKey string
	// OriginCA is a file of certificates that are trusted of origins besides the
	// system's.
	OriginCA string
	// FilterQuery are query parameters, case-sensitive, that do not change what
	// a URL names: they are left out of a file's name, and asked of the origin as
	// they came. An embedded supernode publishes them, as one alone does those of
	// its own configuration; what supernodes publish counts before a node's own.
	// Where they publish none it must be the same on all nodes: peers with another
	// refuse to fetch for this one. None may be a credential: the file is served to
	// those without it. At most 256 names, 4 KiB together.
	FilterQuery []string
	// Rules say what goes through the swarm, what to the origin, and what
	// nowhere; the first that takes a request counts. Default: all that may be
	// shared goes through the swarm.
	Rules []Rule
	// OriginFallback lets this node read the origin itself, though it is no
	// seed of the task, when every source failed or none is known.
	OriginFallback bool
	// Replicas is the number of seeds of a task, for the embedded supernode; a
	// supernode tells it with the pool. Default DefaultReplicas.
	Replicas int
	// MaxPeers is the figure that the limits on connections and streams derive
	// from. Default DefaultMaxPeers.
	MaxPeers int
	// Reachability is "public", "punchable" or "relayed" where the node is not to
	// find out who can dial it; "" is to find out.
	Reachability string
	// PortMapping asks the router for ports, by UPnP and NAT-PMP.
	PortMapping bool
	// Relay lets peers behind NAT be reached through this node, which others must
	// be able to dial. Supernodes are relays anyway.
	Relay bool
	// RelayData is what a relay carries of files: "off", "limited" (8 MiB a second
	// for all), or "unlimited". Default DefaultRelayData.
	RelayData string
	// Swarm names the assignments topic. Default DefaultSwarm.
	Swarm string
	// Version is told to supernodes and in /v1/status. Default DefaultVersion.
	Version string
	// Beat is the heartbeat period; 0 is the protocol's. It is no flag: tests
	// shorten it.
	Beat time.Duration
	// HostOptions are given to libp2p after those that the node chooses. They are
	// no flag: simulations put a link of their own below the node by them.
	HostOptions []libp2p.Option
	// Logger gets all logs; nil discards them.
	Logger *slog.Logger
	// Registerer takes the metrics and Gatherer feeds /metrics. Nil for both
	// is a registry of the node's own.
	Registerer prometheus.Registerer
	Gatherer   prometheus.Gatherer

	member   bool // DataDir holds a certificate
	embedded bool // DataDir holds one of an embedded supernode
}

// SupernodeConfig says what a SupernodeNode is. A zero field means its default.
type SupernodeConfig struct {
	// DataDir holds the identity and daemon.json. It is not a daemon's: each
	// process locks its own. Required.
	DataDir string
	// Join is the certificate that NewJoinSecret makes for this supernode, or
	// @FILE for a file that holds it; DataDir keeps it. With one the supernode
	// serves the members of its swarm, and lets machines join; without, it is on
	// loopback only.
	Join string
	// OfflineGrace is how long after its end a certificate is still renewed.
	// Default DefaultOfflineGrace; negative for none.
	OfflineGrace time.Duration
	// Listen are the multiaddrs for peers, TCP or QUIC, on loopback where there
	// is no swarm. Default DefaultSupernodeListen, in a swarm port 65003 of all
	// interfaces.
	Listen []string
	// Admin is host:port of the admin face, on loopback, or a Unix socket as in
	// Config. Default DefaultSupernodeAdmin.
	Admin string
	// Replicas is the number of seeds of a task. Default DefaultReplicas.
	Replicas int
	// FilterQuery are the query parameters that all nodes leave out of files'
	// names, as in Config; the same on all supernodes of a swarm: of several the
	// one that started last counts. Default: each node has its own.
	FilterQuery []string
	// Shards is the number of shards in which assignments are published: a power
	// of two up to 256. With more than one, peers that cannot be elected hear of the shards that
	// they use alone. Default 1.
	Shards int
	// MaxPeers is the figure that all limits derive from. Default
	// DefaultMaxPeers.
	MaxPeers int
	// RelayData is what it carries of files between peers that reach one another
	// through it alone: "off", "limited" (8 MiB a second for all), or
	// "unlimited". Default DefaultRelayData.
	RelayData string
	// Swarm names the assignments topic. Default DefaultSwarm.
	Swarm string
	// Version is told in /v1/status. Default DefaultVersion.
	Version string
	// Beat is the heartbeat period that members are held to; 0 is the
	// protocol's.
	Beat time.Duration
	// Logger gets all logs; nil discards them.
	Logger *slog.Logger
	// Registerer takes the metrics and Gatherer feeds /metrics. Nil for both
	// is a registry of the supernode's own.
	Registerer prometheus.Registerer
	Gatherer   prometheus.Gatherer

	member bool // DataDir holds a certificate
}

// WithMembership returns c with a note of whether DataDir holds a certificate,
// which decides on the addresses to listen on. New does it.
func (c Config) WithMembership() Config {
	c.member = isMember(c.DataDir)
	c.embedded = isMember(embeddedDir(c.DataDir))
	return c
}

func (c Config) inSwarm() bool { return c.Join != "" || c.member }

func (c SupernodeConfig) inSwarm() bool { return c.Join != "" || c.member }

// WithDefaults returns c with every zero field set to its default, Logger,
// Registerer and Gatherer included. It shares no slice with c.
func (c Config) WithDefaults() Config {
	if c.inSwarm() {
		c.Listen = orList(c.Listen, DefaultSwarmListen())
	}
	c.Listen = orList(c.Listen, DefaultListen())
	c.OfflineGrace = or(c.OfflineGrace, DefaultOfflineGrace)
	embedded := DefaultSupernodeListen()
	switch {
	case allPortsZero(c.Listen):
		embedded = loopback("0")
	case c.inSwarm() && len(c.Supernodes) == 0:
		embedded = everywhere("65003")
	}
	c.SupernodeListen = orList(c.SupernodeListen, embedded)
	c.Supernodes = slices.Clone(c.Supernodes)
	c.Bootstrap = slices.Clone(c.Bootstrap)
	c.SitePeers = slices.Clone(c.SitePeers)
	c.OriginAllow = slices.Clone(c.OriginAllow)
	c.OriginOnly = slices.Clone(c.OriginOnly)
	c.Registries = slices.Clone(c.Registries)
	c.Intercept = slices.Clone(c.Intercept)
	c.CACert = or(c.CACert, filepath.Join(c.DataDir, caCertFile))
	c.CAKey = or(c.CAKey, filepath.Join(c.DataDir, caKeyFile))
	c.FilterQuery = slices.Clone(c.FilterQuery)
	c.Rules = slices.Clone(c.Rules)
	c.HostOptions = slices.Clone(c.HostOptions)
	c.Proxy = or(c.Proxy, DefaultProxy)
	c.Admin = or(c.Admin, DefaultAdmin)
	c.ProxyRequests = or(c.ProxyRequests, DefaultProxyRequests)
	c.GrantLife = or(c.GrantLife, DefaultGrantLife)
	c.CacheSize = or(c.CacheSize, DefaultCacheSize)
	c.Fill = or(c.Fill, FillAsked)
	c.FillTasks = or(c.FillTasks, DefaultFillTasks)
	c.Replicas = or(c.Replicas, DefaultReplicas)
	c.MaxPeers = or(c.MaxPeers, DefaultMaxPeers)
	c.RelayData = or(c.RelayData, DefaultRelayData)
	c.Swarm = or(c.Swarm, DefaultSwarm)
	c.Version = or(c.Version, DefaultVersion)
	c.Logger = orLogger(c.Logger)
	c.Registerer, c.Gatherer = orRegistry(c.Registerer, c.Gatherer)
	return c
}

// WithDefaults returns c with every zero field set to its default. It shares
// no slice with c.
func (c SupernodeConfig) WithDefaults() SupernodeConfig {
	if c.inSwarm() {
		c.Listen = orList(c.Listen, everywhere("65003"))
	}
	c.Listen = orList(c.Listen, DefaultSupernodeListen())
	c.OfflineGrace = or(c.OfflineGrace, DefaultOfflineGrace)
	c.FilterQuery = slices.Clone(c.FilterQuery)
	c.Admin = or(c.Admin, DefaultSupernodeAdmin)
	c.Replicas = or(c.Replicas, DefaultReplicas)
	c.Shards = or(c.Shards, 1)
	c.MaxPeers = or(c.MaxPeers, DefaultMaxPeers)
	c.RelayData = or(c.RelayData, DefaultRelayData)
	c.Swarm = or(c.Swarm, DefaultSwarm)
	c.Version = or(c.Version, DefaultVersion)
	c.Logger = orLogger(c.Logger)
	c.Registerer, c.Gatherer = orRegistry(c.Registerer, c.Gatherer)
	return c
}

// or returns v, or def where v is the zero value.
func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// orList returns a copy of v, or def where v is empty.
func orList(v, def []string) []string {
	if len(v) == 0 {
		return def
	}
	return slices.Clone(v)
}

func orLogger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

// orRegistry completes the pair: one registry for both where both are nil, and
// an empty one in the place of a missing Gatherer.
func orRegistry(r prometheus.Registerer, g prometheus.Gatherer) (prometheus.Registerer, prometheus.Gatherer) {
	if r == nil && g == nil {
		reg := prometheus.NewRegistry()
		return reg, reg
	}
	if g == nil {
		if both, ok := r.(prometheus.Gatherer); ok {
			return r, both
		}
		return r, prometheus.NewRegistry()
	}
	return r, g
}

// allPortsZero reports whether every address of a list asks for a free port.
func allPortsZero(addrs []string) bool {
	for _, a := range addrs {
		if !strings.Contains(a+"/", "/tcp/0/") && !strings.Contains(a+"/", "/udp/0/") {
			return false
		}
	}
	return true
}
