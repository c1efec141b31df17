package rangeread

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
)

// readBuffer holds a small answer; most of larger ones bypasses it.
const readBuffer = 8 << 10

// conn is one stream to a source and what reading from it needs. One read at a
// time uses it.
type conn struct {
	stream  network.Stream
	br      *bufio.Reader
	scr     scratch
	relayed bool      // over a limited connection
	far     bool      // see ClientConfig.Far
	since   time.Time // when it became idle; guarded by Client.mu
	writing deadline
	out     []byte

	// clock is the client's; waiting is what it said when the running read of
	// the stream began: 0 for no read, given for one that was given up.
	// peer is what it said when anything came from the source last, on any stream.
	clock   *atomic.Int64
	peer    *atomic.Int64
	waiting atomic.Int64
	cause   atomic.Pointer[error] // why the stream was reset by ourselves

	// Reused by every answer on the stream.
	outboard []byte
	slice    []byte
	part     []byte
	signer   peer.ID
	// The last header and its bytes: the next one is the same, mostly.
	header    Header
	rawHeader []byte
}

// given marks a read that was given up.
const given = -1

func newConn(s network.Stream, clock, heard *atomic.Int64) *conn {
	cn := &conn{stream: s, clock: clock, peer: heard, relayed: s.Conn().Stat().Limited, writing: deadline{set: s.SetWriteDeadline, least: requestTimeout}}
	cn.br = bufio.NewReaderSize(cn, readBuffer)
	return cn
}

// Read reads from the stream, under the eyes of Client.Run.
func (cn *conn) Read(p []byte) (int, error) {
	began := cn.clock.Load()
	cn.waiting.Store(began)
	n, err := cn.stream.Read(p)
	if !cn.waiting.CompareAndSwap(began, 0) {
		return 0, ErrSilent
	}
	if n > 0 {
		cn.peer.Store(cn.clock.Load())
	}
	if err != nil {
		if cause := cn.cause.Load(); cause != nil {
			err = *cause
		}
	}
	return n, err
}

// leaf returns room for a part of n bytes that is hashed where it is.
func (cn *conn) leaf(n int) []byte {
	if cn.part == nil {
		cn.part = make([]byte, content.LeafSize)
	}
	return cn.part[:n]
}

const (
	// relayedPatience is how many times the silence time a source behind a relay may
	// say nothing: a relay that is at its limit holds bytes back.
	relayedPatience = 4
	// farPatience is the same of a source beyond a router: a sender that has lost all
	// that it had under way, as where many begin at once on a thin link, sends again
	// after a second where it does not know the round trip time yet (RFC 6298,
	// section 2), and later where that is long.
	farPatience = 2
	// streamPatience is how many times its silence time a source may say nothing on
	// one stream while it is heard on others. Reads that share a thin link wait for
	// one another: the windows of MaxReads streams fill some seconds of it.
	streamPatience = 8
)

// giveUp reports whether the source of a read is silent: it said nothing to
// anybody for all of silenceTicks, or nothing to this read for streamPatience
// times as long. It marks the read.
func (cn *conn) giveUp() bool {
	began, now, ticks := cn.waiting.Load(), cn.clock.Load(), cn.patience()
	if began <= 0 || now-max(began, cn.peer.Load()) <= ticks && now-began <= ticks*streamPatience {
		return false
	}
	return cn.waiting.CompareAndSwap(began, given)
}

// patience is how long the source may be silent on all streams, in ticks.
func (cn *conn) patience() int64 {
	switch {
	case cn.relayed:
		return silenceTicks * relayedPatience
	case cn.far:
		return silenceTicks * farPatience
	default:
		return silenceTicks
	}
}

// heardOfLate reports whether the source has said something within its patience, on
// whatever stream.
func (cn *conn) heardOfLate() bool { return cn.clock.Load()-cn.peer.Load() <= cn.patience() }

// kill resets the stream; who reads from it gets cause. It may block for as long
// as the connection takes no bytes.
func (cn *conn) kill(cause error) {
	cn.cause.CompareAndSwap(nil, &cause)
	_ = cn.stream.Reset()
}

// killOn makes the end of ctx kill the stream, until stop is called; stop
// reports false where it was too late.
func (cn *conn) killOn(ctx context.Context) (stop func() bool) {
	if ctx.Done() == nil {
		return func() bool { return true }
	}
	return context.AfterFunc(ctx, func() { cn.kill(context.Cause(ctx)) })
}

// send writes a request.
func (cn *conn) send(req *Request) error {
	const head = binary.MaxVarintLen32
	if cn.out == nil {
		cn.out = make([]byte, head, 256)
	}
	b, err := req.append(cn.out[:head])
	if err != nil {
		return err
	}
	cn.out = b
	n := len(b) - head
	if n > maxRequest {
		return fmt.Errorf("request of %d bytes: at most %d", n, maxRequest)
	}
	// The length goes right before the message.
	var length [head]byte
	l := binary.PutUvarint(length[:], uint64(n))
	b = b[head-l:]
	copy(b, length[:l])
	if err := cn.writing.extend(); err != nil {
		return err
	}
	if _, err = cn.stream.Write(b); err != nil {
		if cause := cn.cause.Load(); cause != nil {
			err = *cause
		}
	}
	return err
}
