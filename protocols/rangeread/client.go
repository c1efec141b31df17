package rangeread

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/content"
)

// ClientConfig configures a Client.
type ClientConfig struct {
	Host host.Host
	// Trusted says whether a peer may sign blocks. Required.
	Trusted func(peer.ID) bool
	// Allow says whether files may be read over a connection; nil allows all. A
	// relay may be for less.
	Allow func(network.Conn) bool
	// Silence is how long a source may say nothing, not even WAIT, on any stream;
	// default 1 s, twice as long where Far, four times as long through a relay. On
	// one stream it may be eight times as long while others are heard: they may share
	// a thin link. It is told within an eighth of it. A dial may take twice as long.
	Silence time.Duration
	// Far reports whether a connection leaves the links of this machine: what is lost
	// on the way is sent again later. Nil: none does.
	Far func(network.Conn) bool
	// Silent hears of a source that was silent, or to which no stream could
	// be opened in time: its connection may be dead. It must not block. Nil for nobody.
	Silent func(peer.ID)
	// Patience is how long a source may say nothing but WAIT; default 3 minutes,
	// 20 times as long for files that are Meta.Sequential, and with
	// Request.FillOnly. Who reads for another gives up a sixth of it sooner, and
	// has that time left to serve him from elsewhere. It is told with the next
	// WAIT.
	Patience time.Duration
	// Registerer of the metrics; nil for none.
	Registerer prometheus.Registerer
}

// Client reads ranges from peers. Run must run while it is used: it finds the
// sources that are silent. All methods are safe for concurrent use.
type Client struct {
	cfg     ClientConfig
	metrics *clientMetrics
	// seals remembers checked signatures: a check costs more than a read.
	seals *lru.Cache[sealKey, struct{}]
	// clock counts silenceTicks for every Silence, from 1 on, while Run runs.
	clock atomic.Int64
	// received counts the verified bytes.
	received atomic.Int64

	mu sync.Mutex
	// mu guards the following.
	peers  map[peer.ID]*pool
	closed bool // Run has ended: streams are not kept
}

// Received returns how many verified bytes have come since the start.
func (c *Client) Received() int64 { return c.received.Load() }

// sealKey has the signature in it: a seal is stored and passed on with its own.
type sealKey struct {
	block  content.BlockName
	root   content.Root
	signer peer.ID
	sig    [ed25519.SignatureSize]byte
}

// maxSeals bounds the remembered signatures; the least used go.
const maxSeals = 16 << 10

// silenceTicks is how many times in the silence time the reads are looked at.
const silenceTicks = 8

// pool holds the streams to one peer. It lives while one is in use or idle.
type pool struct {
	slots chan struct{} // one element a running read
	heard atomic.Int64  // the client's clock when anything came from the peer last
	users int           // reads that run or wait; guarded by Client.mu
	idle  []*conn       // newest last; guarded by Client.mu
	conns map[*conn]struct{}
}

// NewClient returns a client; Run makes it find silent sources.
func NewClient(cfg ClientConfig) *Client {
	if cfg.Silence <= 0 {
		cfg.Silence = DefaultSilence
	}
	if cfg.Patience <= 0 {
		cfg.Patience = DefaultPatience
	}
	if cfg.Silent == nil {
		cfg.Silent = func(peer.ID) {}
	}
	seals, err := lru.New[sealKey, struct{}](maxSeals)
	if err != nil {
		panic("rangeread: " + err.Error()) // only for a size < 1
	}
	c := &Client{cfg: cfg, metrics: newClientMetrics(cfg.Registerer), seals: seals, peers: map[peer.ID]*pool{}}
	c.clock.Store(1)
	return c
}

// Run ends reads whose source is silent, and closes streams that are idle too
// long. When ctx ends it closes the idle ones; reads that still run go on, no
// longer watched. It may be called once.
func (c *Client) Run(ctx context.Context) error {
	t := time.NewTicker(c.cfg.Silence / silenceTicks)
	defer t.Stop()
	var resets sync.WaitGroup
	defer resets.Wait()
	swept := time.Now()
	for {
		select {
		case <-ctx.Done():
			c.mu.Lock()
			c.closed = true
			c.mu.Unlock()
			c.closeIdle(time.Now().Add(time.Hour))
			return nil
		case now := <-t.C:
			c.clock.Add(1)
			for _, cn := range c.silent() {
				if !cn.heardOfLate() { // else its connection lives, and is full
					c.cfg.Silent(cn.stream.Conn().RemotePeer())
				}
				resets.Go(func() { cn.kill(ErrSilent) })
			}
			if now.Sub(swept) >= readerIdle/4 {
				swept = now
				c.closeIdle(now.Add(-readerIdle))
			}
		}
	}
}

// silent returns the streams whose read is to be given up.
func (c *Client) silent() (out []*conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.peers {
		for cn := range p.conns {
			if cn.giveUp() {
				out = append(out, cn)
			}
		}
	}
	return out
}

func (c *Client) closeIdle(before time.Time) {
	var old []*conn
	c.mu.Lock()
	for id, p := range c.peers {
		n := 0
		for n < len(p.idle) && p.idle[n].since.Before(before) {
			delete(p.conns, p.idle[n])
			n++
		}
		old = append(old, p.idle[:n]...)
		p.idle = append([]*conn(nil), p.idle[n:]...)
		c.forget(id, p)
	}
	c.mu.Unlock()
	for _, cn := range old {
		_ = cn.stream.Close() // nothing was in flight on it
	}
}

// forget drops a pool that nobody uses. The caller holds mu.
func (c *Client) forget(id peer.ID, p *pool) {
	if p.users == 0 && len(p.idle) == 0 {
		delete(c.peers, id)
	}
}

// Open asks peer from for a range and returns when the header is there; the
// bytes come by Body.Next. It waits while MaxReads reads from that peer run.
// The caller closes the Body. Cancelling ctx ends the read at any time.
//
// Errors: *Error for a status other than OK, ErrSilent, ErrStalled, ErrProtocol, the cause
// of ctx, ErrConnection, and those of dialling.
func (c *Client) Open(ctx context.Context, from peer.ID, req Request) (*Body, error) {
	if len(req.Path) > MaxPath || len(req.Skip) > MaxPath {
		return nil, fmt.Errorf("read %s of %s: path or skip too long", req.Range, req.Task)
	}
	if ctx.Err() != nil { // an answer could be quicker than what ends the stream
		return nil, fmt.Errorf("read %s of %s from %s: %w", req.Range, req.Task, from, context.Cause(ctx))
	}
	p, err := c.enter(ctx, from)
	if err != nil {
		return nil, fmt.Errorf("wait to read from %s: %w", from, err)
	}
	req.sparse = !req.Small && req.Range.Len > content.LeafSize
	for {
		cn, reused, err := c.take(ctx, from, p, req.Brief)
		if err != nil {
			c.leave(from, p)
			return nil, fmt.Errorf("open stream to %s: %w", from, err)
		}
		b := &Body{client: c, pool: p, peer: from, conn: cn, req: req}
		b.stop = cn.killOn(ctx)
		heard, err := b.start()
		if err == nil {
			return b, nil
		}
		b.release()
		var answer *Error
		if errors.As(err, &answer) {
			c.metrics.answers.inc(answer.Status)
			c.leave(from, p)
			return nil, err
		}
		if reused && !heard && ctx.Err() == nil && !errors.Is(err, ErrSilent) {
			c.metrics.stale.Inc()
			continue // a pooled stream that the source had closed: nothing was lost
		}
		c.leave(from, p)
		c.count(err)
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("read %s of %s from %s: %w", req.Range, req.Task, from, err)
	}
}

func (c *Client) count(err error) {
	switch {
	case errors.Is(err, ErrSilent):
		c.metrics.silent.Inc()
	case errors.Is(err, ErrStalled):
		c.metrics.stalled.Inc()
	case errors.Is(err, ErrCorrupt):
		c.metrics.corrupt.Inc()
	case errors.Is(err, ErrProtocol):
		c.metrics.protocolViolations.Inc()
	}
}

// enter waits for one of the peer's slots.
func (c *Client) enter(ctx context.Context, id peer.ID) (*pool, error) {
	c.mu.Lock()
	p := c.peers[id]
	if p == nil {
		p = &pool{slots: make(chan struct{}, MaxReads), conns: map[*conn]struct{}{}}
		c.peers[id] = p
	}
	p.users++
	c.mu.Unlock()
	select {
	case p.slots <- struct{}{}:
		return p, nil
	case <-ctx.Done():
		c.mu.Lock()
		p.users--
		c.forget(id, p)
		c.mu.Unlock()
		return nil, context.Cause(ctx)
	}
}

// leave gives the slot back.
func (c *Client) leave(id peer.ID, p *pool) {
	<-p.slots
	c.mu.Lock()
	p.users--
	c.forget(id, p)
	c.mu.Unlock()
}

// take returns a stream of the pool, or a new one. The caller gives it back by
// put. brief is Request.Brief.
func (c *Client) take(ctx context.Context, id peer.ID, p *pool, brief time.Duration) (cn *conn, reused bool, err error) {
	for {
		c.mu.Lock()
		if n := len(p.idle); n > 0 {
			cn = p.idle[n-1]
			p.idle[n-1] = nil
			p.idle = p.idle[:n-1]
		}
		c.mu.Unlock()
		if cn == nil {
			break
		}
		if !c.superseded(id, cn) {
			return cn, true, nil
		}
		c.put(p, cn, false)
		cn = nil
	}
	limit, slow := 2*c.cfg.Silence, ErrSilent
	if brief > 0 && brief < limit {
		limit, slow = brief, ErrStalled // it may be there, for who has more time
	}
	dial, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s, err := c.cfg.Host.NewStream(network.WithAllowLimitedConn(dial, ServiceName), id, ProtocolID)
	if err != nil {
		if dial.Err() != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w: %w", slow, err)
			if errors.Is(slow, ErrSilent) {
				c.cfg.Silent(id)
			}
		}
		return nil, false, err
	}
	if c.cfg.Allow != nil && !c.cfg.Allow(s.Conn()) {
		_ = s.Reset()
		return nil, false, ErrConnection
	}
	if err := s.Scope().SetService(ServiceName); err != nil {
		_ = s.Reset()
		return nil, false, err
	}
	c.metrics.streams.Inc()
	cn = newConn(s, &c.clock, &p.heard)
	cn.far = c.cfg.Far != nil && c.cfg.Far(s.Conn())
	c.mu.Lock()
	p.conns[cn] = struct{}{}
	c.mu.Unlock()
	return cn, false, nil
}

// superseded reports whether a stream goes through a relay although there is a
// direct connection by now: a long read moves over with its next request.
func (c *Client) superseded(id peer.ID, cn *conn) bool {
	return cn.relayed && c.cfg.Host.Network().Connectedness(id) == network.Connected
}

// put gives a stream back; whole says that another request may follow on it.
func (c *Client) put(p *pool, cn *conn, whole bool) {
	c.mu.Lock()
	keep := whole && !c.closed
	if keep {
		cn.since = time.Now()
		p.idle = append(p.idle, cn)
	} else {
		delete(p.conns, cn)
	}
	c.mu.Unlock()
	switch {
	case keep:
	case whole:
		_ = cn.stream.Close()
	default:
		_ = cn.stream.Reset()
	}
}

// checkSeal checks the signature of a complete proof, once.
func (c *Client) checkSeal(from peer.ID, name content.BlockName, seal content.Seal) error {
	if !c.cfg.Trusted(seal.Signer) {
		return fmt.Errorf("%w: %s", ErrUntrusted, seal.Signer)
	}
	if seal.Signer == from {
		return nil // the authenticated channel stands for it
	}
	return c.VerifySeal(name, seal)
}

// VerifySeal checks the signature of a seal and remembers that it was good. It
// is for a caller who is about to store a block or to pass it on; the signer is
// trusted already.
func (c *Client) VerifySeal(name content.BlockName, seal content.Seal) error {
	key := sealKey{block: name, root: seal.Root, signer: seal.Signer}
	fits := copy(key.sig[:], seal.Sig) == len(seal.Sig) && len(seal.Sig) == len(key.sig)
	if fits && c.seals.Contains(key) {
		return nil
	}
	if err := seal.Verify(name); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if fits {
		c.seals.Add(key, struct{}{})
	}
	return nil
}
