package node

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed"
	"github.com/p2pnode/p2pnode/seed/origin"
)

// Bounds of the fields, as Validate checks them.
const (
	// minCacheSize is one block: less could hold nothing.
	minCacheSize = 1 << 20
	// maxReplicas is the largest pool that a supernode publishes.
	maxReplicas = 256
	// maxLabel bounds Site and Swarm, which travel in every heartbeat and in
	// the topic's name.
	maxLabel = 64
)

// FieldError says which field of a configuration breaks which rule. Field is
// the name of the flag and of the YAML key.
type FieldError struct{ Field, Value, Rule string }

// Error is one line: the field, its value if that can be shown, the rule.
func (e *FieldError) Error() string {
	return fmt.Sprintf("%s: %s %s", e.Field, Shown(e.Value), e.Rule)
}

// Shown returns an argument in quotes for an error's text; one with an "@" is not
// shown, since a password may stand before it, in whatever form a URL was miswritten.
// An error of net/url about such an argument is not to be shown either: it quotes
// parts of it.
func Shown(arg string) string {
	if strings.Contains(arg, "@") {
		return "(not shown, as a secret may stand before its @)"
	}
	return strconv.Quote(arg)
}

// Validate checks a configuration with its defaults applied and returns a
// *FieldError for the first field that breaks its rule. It does no I/O: a port
// in use or a directory that cannot be written is found by New.
func (c Config) Validate() error {
	c = c.WithDefaults()
	return first(
		checkDataDir(c.DataDir),
		checkListen("listen", c.Listen, c.inSwarm()),
		checkPeers("supernode", c.Supernodes),
		checkMember(c),
		checkListen("supernode-listen", c.SupernodeListen, c.inSwarm()),
		checkPeers("bootstrap", c.Bootstrap),
		checkPeers("site-peer", c.SitePeers),
		checkProxy(c),
		checkRange("proxy-rate", int64(c.ProxyRate), 0, 1<<30),
		checkRange("proxy-requests", int64(c.ProxyRequests), 1, 1<<20),
		checkGrantLife(c.GrantLife),
		checkAdmin("admin", c.Admin),
		checkLabel("site", c.Site),
		checkRange("cache-size", c.CacheSize, minCacheSize, 1<<62),
		checkUplink(c.Uplink),
		checkFill(c.Fill),
		checkRange("fill-rate", c.FillRate, 0, 1<<50),
		checkRange("fill-tasks", int64(c.FillTasks), 1, 64),
		checkOrigins("origin-allow", c.OriginAllow),
		checkOrigins("origin-only", c.OriginOnly),
		checkRegistries(c.Registries),
		checkIntercept(c.Intercept),
		checkFilter(c.FilterQuery),
		checkRules(c.Rules),
		checkRange("replicas", int64(c.Replicas), 1, maxReplicas),
		checkRange("max-peers", int64(c.MaxPeers), 1, 1<<20),
		checkReachability(c.Reachability, c.RelayData),
		checkSwarm(c.Swarm),
	)
}

func checkFill(fill string) *FieldError {
	if fill != FillAsked && fill != FillWhole {
		return &FieldError{"fill", fill, "must be " + FillAsked + " or " + FillWhole}
	}
	return nil
}

// Validate is Config.Validate for a supernode.
func (c SupernodeConfig) Validate() error {
	c = c.WithDefaults()
	return first(
		checkDataDir(c.DataDir),
		checkListen("listen", c.Listen, c.inSwarm()),
		checkAdmin("admin", c.Admin),
		checkRange("replicas", int64(c.Replicas), 1, maxReplicas),
		checkShards(c.Shards),
		checkRange("max-peers", int64(c.MaxPeers), 1, 1<<20),
		checkRelayData(c.RelayData),
		checkFilter(c.FilterQuery),
		checkSwarm(c.Swarm),
	)
}

func checkShards(n int) *FieldError {
	if content.ValidShards(n) {
		return nil
	}
	return &FieldError{"shards", strconv.Itoa(n), fmt.Sprintf("must be a power of two up to %d", content.MaxShards)}
}

func checkGrantLife(d time.Duration) *FieldError {
	if d < time.Second || d > seed.MaxGrantLife {
		return &FieldError{"grant-lifetime", d.String(), "is not between 1s and " + seed.MaxGrantLife.String()}
	}
	return nil
}

// first returns the first error there is. It takes *FieldError and returns
// error, so that a nil one stays nil.
func first(errs ...*FieldError) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func checkDataDir(dir string) *FieldError {
	if dir == "" {
		return &FieldError{"data-dir", dir, "is empty: name a directory to keep the identity and the blocks in"}
	}
	return nil
}

// checkMember: the supernode that a member follows has a certificate of its own.
func checkMember(c Config) *FieldError {
	if c.member && !c.embedded && c.Join == "" && len(c.Supernodes) == 0 {
		return &FieldError{"supernode", "", "is needed in a swarm: name one that has a certificate (`p2pnode supernode --join`), or take another --data-dir for a node of its own"}
	}
	return nil
}

func checkListen(field string, addrs []string, inSwarm bool) *FieldError {
	for _, s := range addrs {
		a, err := multiaddr.NewMultiaddr(s)
		if err != nil {
			return &FieldError{field, s, "is no multiaddr: write one like " + DefaultListen()[0]}
		}
		if !isTCP(a) && !isQUIC(a) {
			return &FieldError{field, s, "is no address of TCP or QUIC: write one like " + strings.Join(DefaultListen(), " or ")}
		}
		if !inSwarm && !manet.IsIPLoopback(a) {
			return &FieldError{field, s, "is not on loopback: without a swarm anybody who reaches it would be served: take 127.0.0.1 or ::1, or --join a swarm"}
		}
	}
	return nil
}

// isTCP reports whether a is /ip/tcp and nothing more.
func isTCP(a multiaddr.Multiaddr) bool {
	return len(a) == 2 && isIP(a) && a[1].Protocol().Code == multiaddr.P_TCP
}

// isQUIC reports whether a is /ip/udp/quic-v1 and nothing more.
func isQUIC(a multiaddr.Multiaddr) bool {
	return len(a) == 3 && isIP(a) && a[1].Protocol().Code == multiaddr.P_UDP && a[2].Protocol().Code == multiaddr.P_QUIC_V1
}

func isIP(a multiaddr.Multiaddr) bool {
	code := a[0].Protocol().Code
	return code == multiaddr.P_IP4 || code == multiaddr.P_IP6
}

func checkPeers(field string, addrs []string) *FieldError {
	for _, s := range addrs {
		a, err := multiaddr.NewMultiaddr(s)
		if err != nil {
			return &FieldError{field, s, "is no multiaddr: write one like /ip4/127.0.0.1/tcp/65003/p2p/ID"}
		}
		info, err := peer.AddrInfoFromP2pAddr(a)
		if err != nil || len(info.Addrs) == 0 {
			return &FieldError{field, s, "is not an address that ends in /p2p/ID: copy one from that node's ready line"}
		}
	}
	return nil
}

func checkHostPort(field, s string) *FieldError {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return &FieldError{field, s, "is not host:port: write one like " + DefaultProxy}
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return &FieldError{field, s, "has no port from 0 to 65535"}
	}
	ip, err := netip.ParseAddr(host)
	if host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return &FieldError{field, s, "is not on loopback: it has no access control, take 127.0.0.1, ::1 or localhost"}
	}
	return nil
}

func checkOrigins(field string, allow []string) *FieldError {
	for _, s := range allow {
		if _, err := origin.NewPolicy([]string{s}); err != nil {
			return &FieldError{field, s, "is no host name, *.name, address or CIDR block: write it without scheme and port"}
		}
	}
	return nil
}

func checkLabel(field, s string) *FieldError {
	if len(s) > maxLabel || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return &FieldError{field, s, fmt.Sprintf("must be at most %d bytes of text without control characters", maxLabel)}
	}
	return nil
}

const (
	lower  = "abcdefghijklmnopqrstuvwxyz"
	digits = "0123456789"
)

func checkSwarm(s string) *FieldError {
	if len(s) > maxLabel || strings.Trim(s, lower+digits+"-") != "" {
		return &FieldError{"swarm", s, fmt.Sprintf("must be at most %d of a-z, 0-9 and hyphen", maxLabel)}
	}
	return nil
}

func checkRange(field string, v, low, high int64) *FieldError {
	if v < low || v > high {
		return &FieldError{field, strconv.FormatInt(v, 10), fmt.Sprintf("must be from %d to %d", low, high)}
	}
	return nil
}
