package origin

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed/origin/registry"
)

// Config tunes a Client. The zero value works.
type Config struct {
	// Policy says where requests may go. nil admits public addresses alone.
	Policy *Policy
	// ConnectTimeout bounds the dial, and again the TLS handshake, and, on Linux, the
	// time until the origin's machine acknowledges what it was sent. Default 5 s.
	ConnectTimeout time.Duration
	// FirstByteTimeout bounds the wait for the answer's header. Default 30 s.
	FirstByteTimeout time.Duration
	// ProgressTimeout bounds each wait for more of a body, and is the time of
	// waiting after which Limits.MinRate must have been met. Time in which the
	// caller does not read does not count. Default 30 s.
	ProgressTimeout time.Duration
	// MaxConcurrent bounds the requests to one origin at once, from sending to
	// the end of the body; more wait, first come, first served. That many
	// connections are kept for the next ones. Default 64.
	MaxConcurrent int
	// Limits bound what a failing origin is asked.
	Limits Limits
	// IdleTimeout closes connections that were not used for so long.
	// Default 90 s.
	IdleTimeout time.Duration
	// UserAgent is sent with every request. Default "p2pnode".
	UserAgent string
	// Proxy chooses the upstream proxy of a request, nil for none. Default
	// http.ProxyFromEnvironment. Where a proxy is used the target's name is
	// resolved and checked here before it is handed on.
	Proxy func(*http.Request) (*url.URL, error)
	// Dial connects to origins and upstream proxies in the place of a dialer of
	// the kernel's sockets, for networks that exist in memory. The policy does not
	// see the addresses that it resolves names to. Default: that dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// TLS configures connections to origins, for example with roots of an
	// organisation. nil means the system's roots.
	TLS *tls.Config
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Logger gets one Debug line a request. Default: discard.
	Logger *slog.Logger
	// Registerer gets the metrics. nil: none.
	Registerer prometheus.Registerer
}

func (c Config) withDefaults() Config {
	orDefault(&c.Policy, &Policy{})
	orDefault(&c.ConnectTimeout, 5*time.Second)
	orDefault(&c.FirstByteTimeout, 30*time.Second)
	orDefault(&c.ProgressTimeout, 30*time.Second)
	orDefault(&c.MaxConcurrent, 64)
	orDefault(&c.IdleTimeout, 90*time.Second)
	orDefault(&c.UserAgent, "p2pnode")
	orDefault(&c.Logger, slog.New(slog.DiscardHandler))
	if c.Proxy == nil {
		c.Proxy = http.ProxyFromEnvironment
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Limits = c.Limits.withDefaults()
	return c
}

func orDefault[T comparable](p *T, def T) {
	var zero T
	if *p == zero {
		*p = def
	}
}

// Client asks origins. It is safe for concurrent use; use one for all origins,
// since it holds their idle connections and knows how they failed.
type Client struct {
	cfg     Config
	metrics *metrics
	ledger  *ledger
	gates   *gates
	tokens  *registry.Tokens
	// direct dials targets under the policy; proxied dials upstream proxies,
	// which the operator chose and which may well be private.
	direct, proxied *http.Transport
}

// New returns a client. It starts nothing; call CloseIdle when done with it.
func New(cfg Config) *Client {
	cfg = cfg.withDefaults()
	dialer := &net.Dialer{Timeout: cfg.ConnectTimeout, KeepAliveConfig: keepAlive}
	m := newMetrics(cfg.Registerer)
	c := &Client{cfg: cfg, metrics: m, ledger: newLedger(cfg.Limits, cfg.Now, m), tokens: registry.NewTokens(cfg.Now)}
	c.gates = newGates(cfg.Limits, cfg.MaxConcurrent, cfg.Now, m)
	showBreakers(cfg.Registerer, c.gates.unreachable)
	direct, proxied := hearing(cfg.Policy.DialContext(dialer), cfg.ConnectTimeout), hearing(dialer.DialContext, cfg.ConnectTimeout)
	if cfg.Dial != nil {
		direct, proxied = cfg.Dial, cfg.Dial
	}
	c.direct = cfg.transport(direct, nil)
	c.proxied = cfg.transport(proxied, chosenProxy)
	return c
}

func (c Config) transport(dial dialFunc, proxy func(*http.Request) (*url.URL, error)) *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return &http.Transport{
		DialContext:            dial,
		Proxy:                  proxy,
		Protocols:              &protocols,
		TLSClientConfig:        c.TLS.Clone(),
		TLSHandshakeTimeout:    c.ConnectTimeout,
		ResponseHeaderTimeout:  c.FirstByteTimeout,
		IdleConnTimeout:        c.IdleTimeout,
		MaxIdleConnsPerHost:    c.MaxConcurrent,
		MaxIdleConns:           4 * c.MaxConcurrent,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // a decoded body has other offsets than the file
		ReadBufferSize:         64 << 10,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
	}
}

// CloseIdle closes the connections that no request is using.
func (c *Client) CloseIdle() {
	c.direct.CloseIdleConnections()
	c.proxied.CloseIdleConnections()
}

// Request says what to read of which file.
type Request struct {
	// Task names the file in the budgets. Zero: the digest, or the URL without
	// its query.
	Task content.TaskID
	// URL is the full URL, with what the canonical task URL leaves out.
	URL string
	// Header may hold the requester's Authorization and Cookie. Other fields
	// are ignored.
	Header http.Header
	// Range is what to read. Len <= 0 asks for the whole file.
	Range content.Range
	// Expect is the generation that the answer must have; zero: any.
	Expect content.Generation
	// Known is a generation that the caller has: of it Head asks no more than
	// whether it is current. Zero: none.
	Known content.Generation
	// Size is that of the file of generation Expect or Known, which an origin may
	// not tell; it counts only with one of them. 0: not known.
	Size int64
	// Digest is that of a digest task, whose generation is the digest,
	// and whose redirects are followed. Where a registry answers 401 to a
	// request without credentials, an anonymous token is got of the server that
	// it names. Empty otherwise.
	Digest string

	head    bool // the metadata alone is wanted
	resumed bool // the rest of a body that broke is
}

// Response is an origin's answer to Get or Head.
type Response struct {
	// Meta has Size -1, and a generation that stands for that, where the origin
	// does not tell the length: of a body in chunks, or of HTTP/2, with a strong
	// ETag or of a digest task. It is Sequential then.
	Meta content.Meta
	// CacheControl is the origin's header field, verbatim.
	CacheControl string
	// Age of the answer when it came (RFC 9111 section 4.2.3): more than a
	// moment where it comes from a cache before the origin.
	Age time.Duration
	// Range is what Body holds: the asked range cut at the file's end, or the
	// whole file where the origin did not honour the range, which ends at
	// content.OpenSize where its size is not known. Empty for Head.
	Range content.Range
	// Body yields exactly Range.Len bytes and io.EOF, or fails before; with a Size
	// of -1 io.EOF tells the file's end. Where an
	// answer ends early, breaks or comes too slowly, the rest is asked for, as
	// often as Limits allow, and must be of the same generation. After that it
	// fails with io.ErrUnexpectedEOF, ErrUnreachable, *BudgetError, or what else
	// Get returns. The caller must close it, which stops the transfer and does
	// not wait for it.
	Body io.ReadCloser
}

// Get asks the origin for a range of a file. It returns when the answer's
// header has come and was found good; failures that may pass it tries again, as
// often as Limits allow. Errors: *StatusError, *ChangedError, ErrUncacheable,
// ErrForbiddenTarget, ErrUnreachable, the context's, and *BudgetError, at once,
// where the origin is to be left alone; it wraps one of the others.
//
// An origin that answers 200 to a range has its Meta marked Sequential, and
// Response.Range then begins at 0; the caller reads from there. A range that
// begins at or behind the file's end is a StatusError 416, but an empty file is
// an empty Response.
func (c *Client) Get(ctx context.Context, r Request) (*Response, error) {
	started := c.cfg.Now()
	resp, err := c.stream(ctx, r)
	c.observe(ctx, http.MethodGet, r, started, err)
	return resp, err
}

// Head asks for a file's metadata alone: by HEAD, or by GET of the first byte
// where HEAD is refused (403, as for URLs signed for GET, 405, 501) or tells
// neither the length nor, of a generation that is not Known, that there are
// ranges. Errors are those of Get.
func (c *Client) Head(ctx context.Context, r Request) (*Response, error) {
	started := c.cfg.Now()
	r.head = true
	resp, err := c.newRetry().do(ctx, r, c.askMeta)
	c.observe(ctx, http.MethodHead, r, started, err)
	return resp, err
}
