package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/p2pnode/p2pnode/node"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// common are the settings of the daemon and of the supernode.
type common struct {
	config, dataDir, admin, swarm string
	relayData                     string
	join                          string
	grace                         time.Duration
	listen, filterQuery           []string
	replicas, maxPeers            count
	logLevel                      level
	logFormat                     format
}

// bind declares the common flags; only their defaults differ by command.
func (c *common) bind(f *pflag.FlagSet, dataDir, admin, port string) {
	c.replicas, c.maxPeers, c.logFormat = node.DefaultReplicas, node.DefaultMaxPeers, "text"
	f.StringVar(&c.config, "config", "", "YAML `file` with these flags as keys")
	f.StringVar(&c.dataDir, "data-dir", dataDir, "`directory` of the identity and the data, one process at a time")
	f.StringArrayVar(&c.listen, "listen", nil, "`multiaddr` to listen on for peers, TCP or QUIC (default port "+port+" of loopback, in a swarm of all interfaces); repeatable")
	f.StringVar(&c.join, "join", "", "join `secret` of a swarm, or @FILE for a file with it: needed once")
	f.DurationVar(&c.grace, "offline-grace", node.DefaultOfflineGrace, "how long certificates are good after their end while no supernode is reached, and can be renewed")
	f.StringVar(&c.admin, "admin", admin, "`host:port` of the admin API and metrics, on loopback, or unix:PATH, a socket for this user alone")
	f.Var(&c.replicas, "replicas", "seeds of a task; a daemon takes it from its supernode")
	f.Var(&c.maxPeers, "max-peers", "peers to expect; all limits derive from it")
	f.StringArrayVar(&c.filterQuery, "filter-query", nil, "query `parameter` that does not change what a URL names; a daemon takes them from its supernode, where that has any; repeatable")
	f.StringVar(&c.relayData, "relay-data", node.DefaultRelayData, "`off|limited|unlimited`: what a relay carries of files; limited is 8 MiB a second for all")
	f.StringVar(&c.swarm, "swarm", node.DefaultSwarm, "`name` of the swarm")
	f.Var(&c.logLevel, "log-level", "debug, info, warn or error")
	f.Var(&c.logFormat, "log-format", "how logs are written to stderr")
}

// grace makes of none what a Config calls none.
func grace(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// daemonSettings are the flags of the daemon.
type daemonSettings struct {
	common
	cfg   node.Config
	cache size
	// fillRate is --fill-rate.
	fillRate size
}

// bind declares the flags.
func (d *daemonSettings) bind(a *app, f *pflag.FlagSet) {
	d.cache = node.DefaultCacheSize
	cfg := &d.cfg
	d.common.bind(f, a.dataDir("p2pnode"), node.DefaultAdmin, "65000")
	f.StringArrayVar(&cfg.Supernodes, "supernode", nil, "`multiaddr/p2p/ID` of a supernode to follow; repeatable")
	f.StringArrayVar(&cfg.SupernodeListen, "supernode-listen", nil, "`multiaddr` of the embedded supernode (default port 65003 on loopback, or a free port where --listen takes free ones); repeatable")
	f.StringArrayVar(&cfg.Bootstrap, "bootstrap", nil, "`multiaddr/p2p/ID` of a peer to join through; repeatable")
	f.StringVar(&cfg.Proxy, "proxy", node.DefaultProxy, "`host:port` of the proxy and gateway; elsewhere than on loopback with one of the three that follow")
	f.StringVar(&cfg.ProxyUsers, "proxy-users", "", "`file` of name:hash lines, as htpasswd -B writes them: who may use the proxy from elsewhere")
	f.StringVar(&cfg.ProxyClientCA, "proxy-client-ca", "", "PEM `file`: who has a certificate of this issuer may use the proxy, and nobody else")
	toggleVar(f, &cfg.ProxyOpen, "proxy-open", false, "everybody who reaches the proxy may use it")
	f.StringVar(&cfg.ProxyCert, "proxy-cert", "", "PEM `file`: the proxy speaks TLS with this certificate")
	f.StringVar(&cfg.ProxyKey, "proxy-key", "", "PEM `file`: its key")
	f.IntVar(&cfg.ProxyRate, "proxy-rate", 0, "`requests` a second that one client may begin, 0 for any number")
	f.IntVar(&cfg.ProxyRequests, "proxy-requests", node.DefaultProxyRequests, "`requests` that are served at once, others wait in turn")
	f.StringVar(&cfg.Reachability, "reachability", "", "`public|punchable|relayed`: who can dial this node, where it is not to find out")
	toggleVar(f, &cfg.PortMapping, "port-mapping", true, "ask the router for a port, by UPnP and NAT-PMP")
	toggleVar(f, &cfg.Relay, "relay", false, "let peers behind NAT be reached through this node, which all can dial")
	f.DurationVar(&cfg.GrantLife, "grant-lifetime", node.DefaultGrantLife, "how long after asking the origin a reader of a private file is let in")
	f.StringVar(&cfg.Site, "site", "", "`name` shared by machines near one another")
	toggleVar(f, &cfg.InferSite, "infer-site", true, "without --site, take the site from the public address or the LAN that the node shares")
	f.StringArrayVar(&cfg.SitePeers, "site-peer", nil, "`multiaddr/p2p/ID` of a peer of the site, to be kept in touch with; repeatable")
	toggleVar(f, &cfg.MDNS, "mdns", true, "find the members on the same LAN by multicast DNS")
	toggleVar(f, &cfg.Seed, "seed", true, "may be elected to read origins for others")
	f.Var(&d.cache, "cache-size", "bound of the stored data")
	f.StringVar(&cfg.Fill, "fill", node.FillAsked, "`asked|whole`: what is brought in of a file of which a part is read; whole files behind all readers")
	f.Var(&d.fillRate, "fill-rate", "bound of what --fill whole brings in a second (default none)")
	f.IntVar(&cfg.FillTasks, "fill-tasks", node.DefaultFillTasks, "`files` that it brings in at a time")
	f.StringArrayVar(&cfg.OriginAllow, "origin-allow", nil, "private `host|CIDR` that a seed may fetch from; repeatable")
	f.StringArrayVar(&cfg.OriginOnly, "origin-only", nil, "`host|CIDR` that a seed may fetch from, and from no other; repeatable")
	f.StringArrayVar(&cfg.Registries, "registry", nil, "where the mirror finds a registry, as `NAME=URL`, if not at https://NAME; repeatable")
	f.StringArrayVar(&cfg.Intercept, "intercept", nil, "`host` whose HTTPS the proxy opens, *.name for all below; repeatable")
	f.StringVar(&cfg.CACert, "ca-cert", "", "`file` of the authority for --intercept (default ca.pem in --data-dir, where gen-ca puts it)")
	f.StringVar(&cfg.CAKey, "ca-key", "", "`file` of its key (default ca.key in --data-dir)")
	f.StringVar(&cfg.OriginCA, "origin-ca", "", "`file` of certificates to trust of origins, besides the system's")
	toggleVar(f, &cfg.OriginFallback, "origin-fallback", true, "read the origin when no seed and no peer can serve")
	f.Var(ruleList{&cfg.Rules}, "rules", "")
	f.Var(uplinkValue{&cfg.Uplink}, "uplink", "")
	for _, name := range []string{"rules", "uplink"} {
		_ = f.MarkHidden(name) // it is there: in the file alone
	}
}

// config returns what the flags come to.
func (d *daemonSettings) config(log *slog.Logger) (node.Config, error) {
	cfg := d.cfg
	if len(cfg.Supernodes) > 0 && len(cfg.SupernodeListen) > 0 {
		return cfg, usagef("--supernode-listen with --supernode: a daemon that follows a supernode has none of its own to listen: leave out one of the two")
	}
	cfg.Join, cfg.OfflineGrace = d.join, grace(d.grace)
	cfg.DataDir, cfg.Listen, cfg.Admin, cfg.Swarm = d.dataDir, d.listen, d.admin, d.swarm
	cfg.Replicas, cfg.MaxPeers, cfg.CacheSize, cfg.FillRate = int(d.replicas), int(d.maxPeers), int64(d.cache), int64(d.fillRate)
	cfg.RelayData, cfg.FilterQuery = d.relayData, d.filterQuery
	cfg.Version, cfg.Logger = buildVersion(), log
	return cfg, nil
}

func (a *app) daemonCmd() *cobra.Command {
	var d daemonSettings
	command := &cobra.Command{
		Use:   "daemon",
		Short: "Run a node, with an embedded supernode where none is named",
		Long: `Run a node. Clients read through its proxy port; it prints one line of JSON on
stdout once it serves. Every flag is also a variable (P2PNODE_DATA_DIR for
--data-dir, lists separated by commas) and a key of the --config file.`,
		Args: noArgs,
	}
	d.bind(a, command.Flags())
	command.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.serve(cmd, &d.common, func(log *slog.Logger) (runner, error) {
			cfg, err := d.config(log)
			if err != nil {
				return nil, err
			}
			return a.newNode(cfg)
		})
	}
	return command
}

func (a *app) supernodeCmd() *cobra.Command {
	var (
		c       common
		shards  = count(1)
		command = &cobra.Command{
			Use:   "supernode",
			Short: "Run a supernode alone",
			Long: `Run a supernode: it hears what peers hold, elects seeds and publishes who they
are. No data flows through it. Its directory and ports are not a daemon's, so
that both run on one machine.`,
			Args: noArgs,
		}
	)
	command.AddCommand(a.orderCmds()...)
	command.AddCommand(a.supernodeRevokeCmd())
	command.Flags().Var(&shards, "shards", "shards of the files, of which peers that cannot be elected follow those they use: a power of two up to 256; for thousands of peers")
	c.bind(command.Flags(), a.dataDir("p2pnode-supernode"), node.DefaultSupernodeAdmin, "65003")
	command.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.serve(cmd, &c, func(log *slog.Logger) (runner, error) {
			return a.newSupernode(node.SupernodeConfig{
				DataDir: c.dataDir, Listen: c.listen, Admin: c.admin, Swarm: c.swarm,
				Replicas: int(c.replicas), Shards: int(shards), MaxPeers: int(c.maxPeers), Join: c.join, OfflineGrace: grace(c.grace), RelayData: c.relayData, FilterQuery: c.filterQuery,
				Version: buildVersion(), Logger: log,
			})
		})
	}
	return command
}

// serve fills the settings, starts what they describe, prints the ready line
// and waits for the end. It returns nil when ctx ended it in time.
func (a *app) serve(cmd *cobra.Command, c *common, start func(*slog.Logger) (runner, error)) error {
	set, err := a.fill(cmd)
	if err == nil {
		err = set.needDataDir(c.dataDir)
	}
	if err != nil {
		return err
	}
	keepToOwner()
	log := a.logger(c.logLevel, c.logFormat)
	r, err := start(log)
	if err != nil {
		return set.explain(err)
	}
	ctx := cmd.Context()
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	select {
	case err := <-done:
		return ended(ctx, err)
	case <-r.Ready():
	}
	if err := json.NewEncoder(a.stdout).Encode(r.Info()); err != nil {
		log.Warn("cannot print the ready line", "err", err)
	}
	a.notify(log, "READY=1")
	select {
	case err := <-done:
		return ended(ctx, err)
	case <-ctx.Done():
	}
	a.notify(log, "STOPPING=1")
	log.Info("stopping")
	limit := time.NewTimer(a.stopLimit)
	defer limit.Stop()
	select {
	case err := <-done:
		return ended(ctx, err)
	case <-limit.C:
		return fmt.Errorf("did not stop within %v: what was not written is fetched again", a.stopLimit)
	}
}

// ended tells an end that was asked for from a failure.
func ended(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)):
		return nil
	case err == nil:
		return errors.New("ended by itself: see the log above")
	}
	return err
}

// noArgs refuses arguments and names the first.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unexpected argument %q: see %s --help", args[0], cmd.CommandPath())
	}
	return nil
}
