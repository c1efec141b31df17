// Package heartbeat tells a supernode that a peer is alive and what it is, and
// tells the peer where the supernode's map stands.
//
// One stream is open as long as both live. The peer sends a beat every period,
// or at once when Nudge says that something changed; the supernode answers each
// with the cursor and the hash of its map, by which the peer finds what gossip
// lost. See SPEC.md for the wire.
package heartbeat

import (
	"crypto/sha256"
	"time"

	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"

	"github.com/p2pnode/p2pnode/internal/content"
)

// Protocol is the protocol's ID.
const Protocol protocol.ID = "/p2pnode/heartbeat/1.0.0"

// Defaults of the configurations.
const (
	// DefaultInterval is the period of the beats.
	DefaultInterval = 5 * time.Second
	// DefaultTimeout is how long an acknowledgement may take: less than a period,
	// in which a supernode that returns is to hear of everybody, also over
	// connections that do not know yet that they are dead.
	DefaultTimeout = 2 * time.Second
	// DefaultIdle is how long a server waits for a beat: three periods, a
	// tenth more each, and the time a stalled network takes to recover.
	DefaultIdle = 20 * time.Second
)

// Beat is what a peer says of itself.
type Beat struct {
	// Session differs after each restart of the peer; it tells a restart from
	// a lost connection. The Sender sets it.
	Session uint64
	// Seq counts the beats of a session to one supernode, from 1. The Sender
	// sets it.
	Seq uint64
	// Addrs are the peer's addresses, without /p2p. The first 16 are sent.
	Addrs []multiaddr.Multiaddr
	// Site is the peer's site; at most 128 bytes.
	Site string
	// Seed says that the peer is willing to be a seed.
	Seed bool
	// Capacity of the peer's cache in bytes, and how many of them it can store
	// before it evicts: fewer where its disk has fewer.
	Capacity, Free int64
	Load           Load
	Reachability   Reachability
	// Epoch is that of the newest update of the supernode that the peer has,
	// where the supernode may not know that it lived then; else 0.
	Epoch uint64
	// Version of the program; at most 64 bytes.
	Version string
	// RevokedSum sums up the revocations that the peer knows; 0 for none. Revoked
	// are some that the supernode may lack; see BeatRevoked.
	RevokedSum uint64
	Revoked    [][]byte
	// Prefixes are those of the tasks whose assignments the peer follows: the
	// answer's MapHash is over these. Nil: all.
	Prefixes *content.Prefixes
	// Goodbye says that the peer leaves. The Sender sets it; a Sink never sees
	// it.
	Goodbye bool
}

// Load is how busy a peer is. It never decides ownership.
type Load struct {
	// Uploads is the number of bulk uploads in progress.
	Uploads int
	// UploadRate and DownloadRate are bytes a second to and from peers.
	UploadRate, DownloadRate int64
	// CPU is the busy part of the machine's processors, 0 to 1; 0 where it is not
	// measured.
	CPU float64
}

// Reachability says how a peer can be dialled. The numbers are the wire's.
type Reachability uint8

// What a peer knows of its reachability.
const (
	ReachabilityUnknown Reachability = iota
	// ReachabilityPublic: at its addresses, by everybody.
	ReachabilityPublic
	// ReachabilityPrivate: through a relay or a punched hole.
	ReachabilityPrivate
	// ReachabilityRelayed: through a relay alone, as a rule.
	ReachabilityRelayed
)

// String returns the lower-case word.
func (r Reachability) String() string {
	switch r {
	case ReachabilityPublic:
		return "public"
	case ReachabilityPrivate:
		return "private"
	case ReachabilityRelayed:
		return "relayed"
	default:
		return "unknown"
	}
}

// Cursor is the supernode's last published update.
type Cursor struct {
	// Epoch is the supernode's start in Unix milliseconds, Seq the number of
	// its last update in it, 0 before the first.
	Epoch, Seq uint64
}

// Ack answers a beat.
type Ack struct {
	// Seq is the beat's. The Server sets it.
	Seq uint64
	// Cursor is where the supernode's map stands, MapHash what the map of a
	// peer that has everything up to it hashes to (assignment.Hash), of the tasks
	// that the beat names.
	Cursor  Cursor
	MapHash [sha256.Size]byte
	// Revoked are signed revocations; at most 64 of 1 KiB, 14 KiB in all.
	// RevokedSum sums up those that the supernode knows; 0 for none.
	Revoked    [][]byte
	RevokedSum uint64
	// Time is the supernode's clock when it answered, to the microsecond; zero where
	// it does not say. The Server sets it.
	Time time.Time
	// RTT is how long the answer took, from the writing of the beat on. The Sender
	// sets it; it is not sent.
	RTT time.Duration
}

// BeatRevoked returns those of a list of signed revocations that fit a Beat: the
// newest, which are the last, and with each round those before them, in turns.
func BeatRevoked(all [][]byte, round int) (out [][]byte) {
	for i := range min(len(all), maxBeatRevoked) {
		out = append(out, all[len(all)-1-(round*maxBeatRevoked+i)%len(all)])
	}
	return out
}
