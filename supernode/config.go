package supernode

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// leasePeriods is how many heartbeats a member may miss.
const leasePeriods = 3

// Revocations is a set of signed revocations.
type Revocations interface {
	// All returns all of them, in the order in which they came.
	All() [][]byte
	// Sum is heartbeat's revoked_sum of them.
	Sum() uint64
	// Hear takes in what a member tells of, up to the first that is not the swarm
	// key's. It may write to the disk where one is new.
	Hear([][]byte)
}

// Config says how a supernode runs. Host, PubSub and Key are needed; of all
// else the zero value is the default.
type Config struct {
	// Host is where members reach the supernode. It stays the caller's.
	Host host.Host
	// PubSub of Host; nobody else may join the swarm's topic on it.
	PubSub *pubsub.PubSub
	// Key is the host's; it signs what is published.
	Key crypto.PrivKey
	// Swarm is the swarm's name; default "default".
	Swarm string
	// Replicas is the number of seeds a task; default 2, at most
	// assignment.MaxSeeds.
	Replicas int
	// FilterQuery are the query parameters that do not change what a URL names,
	// within the bounds of content.Filter: they are published with the pool, and
	// all nodes go by them. Default: nothing is said, each node has its own.
	FilterQuery []string
	// Shards is the number of shards of the tasks, by the first bits of their IDs,
	// in which assignments are published: peers that may not be elected hear of
	// those alone that they use. A power of two up to content.MaxShards; default 1.
	// It is for swarms of thousands: a message for each shard is sent where one
	// would do.
	Shards int
	// Demand says when a task gets more seeds than Replicas, and when fewer
	// again; its Replicas is not looked at.
	Demand Policy
	// Beat is the period in which members beat; default 5 s. A member's lease
	// is three of it.
	Beat time.Duration
	// MaxPeers bounds the members; default 1024, some 2 KiB each.
	MaxPeers int
	// MaxTasks bounds the tasks known; default 65,536, some 1 KiB each. At it,
	// whoever reported most of them loses the one of the oldest news.
	// Nodes keep 100,000, withdrawn ones among them.
	MaxTasks int
	// Lease is how long an assignment binds its seeds; default 10 min. It is
	// renewed when half of it is over, while anybody holds the task or reads it.
	Lease time.Duration
	// Batch is how often updates are published; default 200 ms.
	Batch time.Duration
	// PoolInterval is the least time between two changes of the pool; default
	// 5 s. JoinInterval is the same for joins to a small pool; default 200 ms,
	// growing with the pool.
	PoolInterval, JoinInterval time.Duration
	// MaySeed reports whether a peer may be elected; what others say of
	// themselves does not count. Nil allows all.
	MaySeed func(peer.ID) bool
	// Revocations are those that members are told of, and tell of; nil for none.
	Revocations Revocations
	// SnapshotFile keeps what was published, and the orders, over restarts:
	// written every minute and at the end, with each order at once, some 300
	// bytes a task. A file that cannot be read is warned of and left out of
	// account. Empty: nothing is kept, and peers are asked what they remember.
	SnapshotFile string
	// Now is the clock of leases; nil is time.Now.
	Now func() time.Time
	// Logger; nil is slog.Default().
	Logger *slog.Logger
	// Registerer of the metrics; nil for none.
	Registerer prometheus.Registerer
}

// Validate names the field that cannot be, and the rule it breaks.
func (c Config) Validate() error {
	switch {
	case c.Host == nil:
		return errors.New("supernode: Host is needed")
	case c.PubSub == nil:
		return errors.New("supernode: PubSub is needed")
	case c.Key == nil:
		return errors.New("supernode: Key is needed")
	case !c.Host.ID().MatchesPrivateKey(c.Key):
		return fmt.Errorf("supernode: Key is not that of host %s", c.Host.ID())
	case c.Replicas < 0 || c.Replicas > assignment.MaxSeeds:
		return fmt.Errorf("supernode: Replicas is %d, must be 0 to %d", c.Replicas, assignment.MaxSeeds)
	case !content.NewFilter(c.FilterQuery).Valid():
		return fmt.Errorf("supernode: FilterQuery %q has what is no name of a query parameter, or too many", c.FilterQuery)
	case c.Shards != 0 && !content.ValidShards(c.Shards):
		return fmt.Errorf("supernode: Shards is %d, must be a power of two up to %d", c.Shards, content.MaxShards)
	case c.Demand.MaxReplicas < 0 || c.Demand.MaxReplicas > assignment.MaxSeeds:
		return fmt.Errorf("supernode: Demand.MaxReplicas is %d, must be 0 to %d", c.Demand.MaxReplicas, assignment.MaxSeeds)
	case c.Demand.ReadersPerSeed < 0 || c.Demand.RatePerSeed < 0 || c.Demand.SiteReaders < 0 || c.Demand.MaxSites < 0 || c.Demand.Calm < 0:
		return errors.New("supernode: no field of Demand may be negative")
	case c.MaxPeers < 0:
		return fmt.Errorf("supernode: MaxPeers is %d, must not be negative", c.MaxPeers)
	case c.MaxTasks < 0:
		return fmt.Errorf("supernode: MaxTasks is %d, must not be negative", c.MaxTasks)
	case c.Lease < 0 || c.Lease > assignment.MaxLease:
		return fmt.Errorf("supernode: Lease is %s, must be 0 to %s", c.Lease, assignment.MaxLease)
	case c.Beat < 0 || c.Batch < 0 || c.PoolInterval < 0 || c.JoinInterval < 0:
		return errors.New("supernode: Beat, Batch, PoolInterval and JoinInterval must not be negative")
	}
	return nil
}

func (c Config) withDefaults() Config {
	c.FilterQuery = content.NewFilter(c.FilterQuery).Query
	setDefault(&c.Replicas, 2)
	setDefault(&c.Shards, 1)
	setDefault(&c.Beat, 5*time.Second)
	setDefault(&c.MaxPeers, 1024)
	setDefault(&c.MaxTasks, 65_536)
	setDefault(&c.Lease, 10*time.Minute)
	setDefault(&c.Batch, 200*time.Millisecond)
	setDefault(&c.PoolInterval, 5*time.Second)
	setDefault(&c.JoinInterval, 200*time.Millisecond)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// policy returns what demand asks for, complete.
func (c Config) policy() Policy {
	p := c.Demand
	p.Replicas = c.Replicas
	return p.withDefaults()
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
