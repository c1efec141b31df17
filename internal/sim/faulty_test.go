package sim

import (
	"context"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// faults are what happens to messages between hosts. What happens to the n-th
// message of a protocol from one host to another depends on the seed alone, not
// on the order in which goroutines run.
type faults struct {
	seed uint64
	// lose, double and delay are the parts of the messages that this happens to.
	// A delayed message is overtaken by those behind it.
	lose, double, delay float64
	longest             time.Duration // delay

	mu sync.Mutex
	// mu guards the following.
	on    bool
	flows map[flow]*rand.Rand
	count tolls
}

// tolls are numbers of messages by their fate.
type tolls struct{ passed, lost, doubled, delayed int }

func (t tolls) plus(o tolls) tolls {
	return tolls{t.passed + o.passed, t.lost + o.lost, t.doubled + o.doubled, t.delayed + o.delayed}
}

// flow is all that one host sends to another by one protocol.
type flow struct {
	from, to peer.ID
	protocol protocol.ID
}

// fate is what happens to one message.
type fate struct {
	copies int
	delay  time.Duration
}

func (f *faults) decide(of flow) fate {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.on {
		f.count.passed++
		return fate{copies: 1}
	}
	r := f.flows[of]
	if r == nil {
		h := fnv.New64a()
		_, _ = h.Write([]byte(string(of.from) + string(of.to) + string(of.protocol)))
		r = rand.New(rand.NewPCG(f.seed, h.Sum64()))
		f.flows[of] = r
	}
	switch p := r.Float64(); {
	case p < f.lose:
		f.count.lost++
		return fate{}
	case p < f.lose+f.double:
		f.count.doubled++
		return fate{copies: 2}
	case p < f.lose+f.double+f.delay:
		f.count.delayed++
		return fate{copies: 1, delay: time.Duration(r.Float64() * float64(f.longest))}
	}
	f.count.passed++
	return fate{copies: 1}
}

// stop ends the faults and returns what they did; what is delayed is still on
// its way.
func (f *faults) stop() tolls {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on = false
	return f.count
}

// faultyHost is a host whose streams lose, double and delay messages: what is
// written in one call is one message, as the control protocols and GossipSub do
// it.
type faultyHost struct {
	host.Host
	faults *faults
}

// NewStream implements host.Host.
func (h *faultyHost) NewStream(ctx context.Context, to peer.ID, protocols ...protocol.ID) (network.Stream, error) {
	s, err := h.Host.NewStream(ctx, to, protocols...)
	if err != nil {
		return nil, err
	}
	return newFaultyStream(h, s), nil
}

// SetStreamHandler implements host.Host.
func (h *faultyHost) SetStreamHandler(id protocol.ID, handler network.StreamHandler) {
	h.Host.SetStreamHandler(id, func(s network.Stream) { handler(newFaultyStream(h, s)) })
}

// faultyStream is a stream with faults in what it writes, and with the read
// deadlines that streams in memory lack.
type faultyStream struct {
	network.Stream
	faults *faults
	flow   flow
	chunks chan []byte // as read from Stream; closed at its end
	ended  chan struct{}

	mu sync.Mutex
	// mu guards the following.
	rest     []byte
	err      error // of reading, once chunks is closed
	deadline time.Time
	changed  chan struct{} // closed when deadline changes
	once     sync.Once
}

func newFaultyStream(h *faultyHost, s network.Stream) *faultyStream {
	f := &faultyStream{
		Stream: s, faults: h.faults, flow: flow{h.ID(), s.Conn().RemotePeer(), s.Protocol()},
		chunks: make(chan []byte), ended: make(chan struct{}), changed: make(chan struct{}),
	}
	go f.pump()
	return f
}

// pump reads the stream, so that Read can wait for it and for its deadline.
func (f *faultyStream) pump() {
	defer close(f.chunks)
	for {
		p := make([]byte, 4096)
		n, err := f.Stream.Read(p)
		if n > 0 {
			select {
			case f.chunks <- p[:n]:
			case <-f.ended:
				return
			}
		}
		if err != nil {
			f.mu.Lock()
			f.err = err
			f.mu.Unlock()
			return
		}
	}
}

// Read implements network.Stream.
func (f *faultyStream) Read(p []byte) (int, error) {
	for {
		f.mu.Lock()
		if len(f.rest) > 0 {
			n := copy(p, f.rest)
			f.rest = f.rest[n:]
			f.mu.Unlock()
			return n, nil
		}
		deadline, changed := f.deadline, f.changed
		f.mu.Unlock()
		var late <-chan time.Time
		if !deadline.IsZero() {
			if !time.Now().Before(deadline) {
				return 0, os.ErrDeadlineExceeded
			}
			late = time.After(time.Until(deadline))
		}
		select {
		case chunk, ok := <-f.chunks:
			f.mu.Lock()
			if !ok {
				err := f.err
				f.mu.Unlock()
				if err == nil {
					err = io.ErrClosedPipe
				}
				return 0, err
			}
			f.rest = chunk
			f.mu.Unlock()
		case <-changed:
		case <-late:
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// Write implements network.Stream: p is one message.
func (f *faultyStream) Write(p []byte) (int, error) {
	what := f.faults.decide(f.flow)
	if what.delay > 0 {
		late := append([]byte(nil), p...)
		go func() {
			select {
			case <-time.After(what.delay):
				_, _ = f.Stream.Write(late) // the stream may be over by then
			case <-f.ended:
			}
		}()
		return len(p), nil
	}
	for range what.copies {
		if n, err := f.Stream.Write(p); err != nil {
			return n, err
		}
	}
	return len(p), nil
}

// SetDeadline implements network.Stream; writes do not block for long.
func (f *faultyStream) SetDeadline(t time.Time) error { return f.SetReadDeadline(t) }

// SetReadDeadline implements network.Stream.
func (f *faultyStream) SetReadDeadline(t time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deadline = t
	close(f.changed)
	f.changed = make(chan struct{})
	return nil
}

func (f *faultyStream) end() { f.once.Do(func() { close(f.ended) }) }

// Close implements network.Stream.
func (f *faultyStream) Close() error {
	f.end()
	return f.Stream.Close()
}

// Reset implements network.Stream.
func (f *faultyStream) Reset() error {
	f.end()
	return f.Stream.Reset()
}

// ResetWithError implements network.Stream.
func (f *faultyStream) ResetWithError(code network.StreamErrorCode) error {
	f.end()
	return f.Stream.ResetWithError(code)
}
