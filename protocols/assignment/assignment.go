// Package assignment is the map that supernodes publish: which peers are the
// seeds of a task, and who is in the seed pool.
//
// An Update is signed once, by the supernode whose step it is, and travels as
// Signed, byte for byte: over GossipSub to everybody, and in the answers of the
// fetch protocol from anybody. Order is that of a Cursor, for each supernode by
// itself; it lives in the receiver's map, so this package keeps no state but
// the window in which a subscriber recognises what it has seen.
//
// Hash sums up a map in 32 bytes, in any order and step by step, so that a node
// finds in one heartbeat whether gossip lost something.
package assignment

import (
	"cmp"
	"errors"
	"strconv"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/internal/frame"
)

// Errors that callers branch on.
var (
	// ErrUntrusted: the signer is no trusted supernode.
	ErrUntrusted = errors.New("signer is no trusted supernode")
	// ErrSignature: the signature is not the supernode's over these bytes.
	ErrSignature = errors.New("bad signature")
	// ErrTooLarge and ErrMalformed: the update breaks a bound or a rule.
	ErrTooLarge  = frame.ErrTooLarge
	ErrMalformed = frame.ErrMalformed
)

// Cursor is a place in the updates of one supernode.
type Cursor struct {
	Supernode peer.ID
	// Epoch is the supernode's start in Unix milliseconds. Seq counts the
	// updates of an epoch from 1.
	Epoch, Seq uint64
}

// Compare orders two places of one supernode: by epoch, then by number.
func (c Cursor) Compare(o Cursor) int {
	return cmp.Or(cmp.Compare(c.Epoch, o.Epoch), cmp.Compare(c.Seq, o.Seq))
}

// Assign names the seeds of one task. A later one replaces an earlier one.
type Assign struct {
	Task content.TaskID
	// URL is the canonical task URL; at most 8 KiB.
	URL string
	// Generation is zero where it is not known.
	Generation content.Generation
	// Size of the file in bytes, -1 where it is not known.
	Size int64
	// Sequential says that the origin serves no ranges.
	Sequential bool
	// Seeds are the task's seeds, the head first where it is elected; at most
	// MaxSeeds, each once.
	Seeds []peer.ID
	// Excluded says for each seed, in their order, which stripes it leaves to
	// the others: a seed that was added while others had begun owns only what
	// was not begun. Nil where every seed may own every stripe. Where all leave
	// a stripe to the others, none is left out.
	Excluded []Runs
	// Whole says for each seed, in their order, whether it held the whole file
	// when this was issued, so that any of them serves any stripe as well as its
	// owner. Nil where nothing is said.
	Whole []bool
	// Lease is how long the seeds' duty lasts after Update.Issued, on the wire
	// in milliseconds, at most MaxLease. 0 withdraws the assignment.
	Lease time.Duration
}

// Member is a peer of the seed pool.
type Member struct {
	ID peer.ID
	// Addrs are without /p2p; at most 16.
	Addrs []multiaddr.Multiaddr
	Site  string
	// Weight is static and quantised: all nodes rank by it.
	Weight float64
	// Cordoned members take no new duty: they are no seeds of a task without an
	// assignment, and keep the duties and the weight that they have.
	Cordoned bool
}

// Update is one step of a supernode's map. It has Assigns, or a Pool, or
// neither (then it only moves the cursor); never both.
type Update struct {
	Cursor
	// Issued is when the supernode signed it, to the millisecond.
	Issued time.Time
	// Floor withdraws every assignment of this supernode whose last update has
	// a lower number than Floor, or an earlier epoch: so a withdrawal that was
	// lost, and is no longer in anybody's log, takes effect. 0 says nothing.
	// Assignments of the update itself are above any floor.
	Floor   uint64
	Assigns []Assign
	Pool    *PoolPage
}

// PoolVersion names the pool that a page belongs to: the sequence number of
// its first page, since the pages of one pool have consecutive numbers. Pages
// with the same epoch and version make one pool. It is 0 without a page.
func (u Update) PoolVersion() uint64 {
	if u.Pool == nil {
		return 0
	}
	return u.Seq - uint64(u.Pool.Page)
}

// PoolPage is one of the pages of a whole pool.
type PoolPage struct {
	// Page counts from 0 to Pages-1.
	Page, Pages int
	Members     []Member
	// Replicas is the number of seeds of a task that has no assignment, the same
	// for the whole swarm; 0 leaves it to the reader.
	Replicas int
	// FilterQuery are the query parameters that do not change what a URL names,
	// sorted, each once, within the bounds of content.Filter; on page 0 alone.
	// None: nothing is said of them.
	FilterQuery []string
	// Shards is the number of shards of this supernode's assignments, which have
	// a topic each: content.ValidShards, or 0 for one.
	Shards int
}

// Bounds of an update. What breaks them is neither signed nor accepted.
const (
	// MaxUpdate bounds an encoded update in bytes, so that it fits a gossip
	// message with its signature.
	MaxUpdate = 15 << 10
	// MaxBatch bounds a gossip message in bytes.
	MaxBatch = 16 << 10
	// MaxAssigns bounds the assignments in one update.
	MaxAssigns = 256
	// MaxSeeds bounds the seeds of one task. An assignment with as many, and
	// the longest URL, still fits an update.
	MaxSeeds = 64
	// MaxPool bounds the members of a pool, and so its pages.
	MaxPool = 256
	// MaxLease bounds a lease.
	MaxLease = 7 * 24 * time.Hour
	// MaxWeight bounds a member's weight.
	MaxWeight = 1 << 40

	maxSignature = 128
)

// Topic returns the GossipSub topic of a swarm's assignments. An empty name is
// the swarm "default".
func Topic(swarm string) string {
	return "/p2pnode/" + cmp.Or(swarm, "default") + "/assignments/1"
}

// ShardTopic returns the topic of the assignments of one of several shards.
func ShardTopic(swarm string, shards, shard int) string {
	return Topic(swarm) + "/" + strconv.Itoa(shards) + "/" + strconv.Itoa(shard)
}
