package host

import (
	"net/netip"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/libp2p/go-libp2p/x/rate"

	"github.com/p2pnode/p2pnode/protocols/membership"
)

const (
	// streamMemory is what yamux reserves for a stream before any byte flows.
	streamMemory = 256 << 10
	// peerStreams is the number of streams one peer may have open, in each
	// direction: twice the 1,000 concurrent range reads that must all succeed.
	peerStreams = 2048
	// peerConns allows for both transports, dialled from both sides at once.
	peerConns = 8
)

// newResourceManager bounds what all peers, one peer, one protocol and one
// source address may take. All figures derive from maxPeers; nothing that a
// peer alone can reach stops the others.
func newResourceManager(maxPeers int) (network.ResourceManager, error) {
	perSource := max(64, maxPeers/4)
	return rcmgr.NewResourceManager(
		rcmgr.NewFixedLimiter(limits(maxPeers)),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: perSource}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: perSource}, {PrefixLength: 48, ConnCount: 4 * perSource}},
		),
		rcmgr.WithConnRateLimiters(connRate(perSource)),
	)
}

// connRate limits new connections by source address, since a whole site may
// stand behind one: it may come back at once after an outage. Loopback is free.
func connRate(perSource int) *rate.Limiter {
	limit := rate.Limit{RPS: float64(perSource) / 10, Burst: 2 * perSource}
	return &rate.Limiter{
		NetworkPrefixLimits: []rate.PrefixLimit{
			{Prefix: netip.MustParsePrefix("127.0.0.0/8")},
			{Prefix: netip.MustParsePrefix("::1/128")},
		},
		SubnetRateLimiter: rate.SubnetLimiter{
			IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: limit}},
			IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: limit}},
			GracePeriod:      time.Minute,
		},
	}
}

// transientStreams is how many inbound streams of members may be without a
// protocol at once.
func transientStreams(maxPeers int) int { return peerStreams + maxPeers }

// limits returns the bounds of each scope. A protocol that declares none of its
// own may use what its peer may.
func limits(maxPeers int) rcmgr.ConcreteLimitConfig {
	conns := 2*maxPeers + 64
	system := streams(4*peerStreams + 16*maxPeers)
	system.Conns = rcmgr.LimitVal(conns)
	system.ConnsInbound, system.ConnsOutbound, system.FD = system.Conns, system.Conns, system.Conns
	// Inbound streams are transient until their protocol is known. A gate keeps
	// strangers to what comes on top of the members'.
	transient := streams(transientStreams(maxPeers) + strangerStreams*maxPending(maxPeers))
	transient.Conns = rcmgr.LimitVal(maxPeers + 64)
	transient.ConnsInbound, transient.ConnsOutbound, transient.FD = transient.Conns, transient.Conns, transient.Conns
	onePeer := streams(peerStreams)
	onePeer.Conns, onePeer.ConnsInbound, onePeer.ConnsOutbound, onePeer.FD = peerConns, peerConns, peerConns, peerConns

	oneConn := rcmgr.ResourceLimits{
		Conns: 1, ConnsInbound: 1, ConnsOutbound: 1, FD: 1, Memory: 32 << 20,
		Streams: rcmgr.BlockAllLimit, StreamsInbound: rcmgr.BlockAllLimit, StreamsOutbound: rcmgr.BlockAllLimit,
	}
	oneStream := rcmgr.ResourceLimits{
		Streams: 1, StreamsInbound: 1, StreamsOutbound: 1, Memory: 32 << 20,
		Conns: rcmgr.BlockAllLimit, ConnsInbound: rcmgr.BlockAllLimit, ConnsOutbound: rcmgr.BlockAllLimit, FD: rcmgr.BlockAllLimit,
	}
	all, each := small(maxPeers)
	return rcmgr.PartialLimitConfig{
		System: system, Transient: transient,
		ServiceDefault: system, ServicePeerDefault: onePeer,
		ProtocolDefault: system, ProtocolPeerDefault: onePeer,
		PeerDefault: onePeer,
		Conn:        oneConn, Stream: oneStream,
		Protocol: all, ProtocolPeer: each,
		Service:     map[string]rcmgr.ResourceLimits{identify.ServiceName: all[identify.ID], ping.ServiceName: all[ping.ID]},
		ServicePeer: map[string]rcmgr.ResourceLimits{identify.ServiceName: each[identify.ID], ping.ServiceName: each[ping.ID]},
	}.Build(rcmgr.InfiniteLimits)
}

// small returns the limits of the protocols that need few streams, over all
// peers and for each.
func small(maxPeers int) (all, each map[protocol.ID]rcmgr.ResourceLimits) {
	perPeer := map[protocol.ID]int{
		identify.ID:              16,
		identify.IDPush:          16,
		ping.ID:                  4,
		membership.Protocol:      membership.StreamsPerPeer,
		dhtPrefix + "/kad/1.0.0": 64,
		pubsub.GossipSubID_v13:   8,
		pubsub.GossipSubID_v12:   8,
		pubsub.GossipSubID_v11:   8,
		pubsub.GossipSubID_v10:   8,
	}
	all, each = map[protocol.ID]rcmgr.ResourceLimits{}, map[protocol.ID]rcmgr.ResourceLimits{}
	for id, n := range perPeer {
		each[id] = streams(n)
		all[id] = streams(2*maxPeers + n*maxPending(maxPeers)) // the latter is what strangers can take
	}
	return all, each
}

// streams allows n streams in each direction, with their initial memory.
func streams(n int) rcmgr.ResourceLimits {
	return rcmgr.ResourceLimits{
		Streams:         rcmgr.LimitVal(2 * n),
		StreamsInbound:  rcmgr.LimitVal(n),
		StreamsOutbound: rcmgr.LimitVal(n),
		Memory:          rcmgr.LimitVal64(2 * n * streamMemory),
	}
}
