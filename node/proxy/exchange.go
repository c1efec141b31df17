package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
)

// Outcomes of a request, as metric labels.
const (
	outcomeSwarm  = "swarm"  // answered through the swarm
	outcomeDirect = "direct" // answered by the origin, untouched
	outcomeTunnel = "tunnel" // tunnelled to its end
	// outcomeIntercepted is that of a connection; its requests count as well.
	outcomeIntercepted = "intercepted"
	outcomeRefused     = "refused" // a 4xx of our own, or a loop
	outcomeFailed      = "failed"  // a 5xx of our own
	outcomeAborted     = "aborted" // cut short, or the client went away
)

var (
	errCrossSite = errors.New("a page of another site asked for this")
	errTunnels   = errors.New("too many tunnels are open")
	errBlocked   = errors.New("a rule of this node blocks this URL")
)

// exchange is one request and its response. One goroutine uses it.
type exchange struct {
	h     *Handler
	w     *response
	r     *http.Request
	face  face
	host  string
	asked Asked // what the rules are asked
	local bool
	start time.Time
	// client is who asks, for the gate.
	client string
	// leave gives back the request's place; it may be called more than once. Nil
	// where the request has none.
	leave func()
	// transport, where set, carries the request to its origin.
	transport http.RoundTripper
	// outcome stays at outcomeAborted until a face has answered in full, so
	// that a panic counts as what it is.
	outcome string
	err     error
}

func (h *Handler) begin(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{
		h: h, r: r, face: faceNone, outcome: outcomeAborted, start: time.Now(),
		w: &response{ResponseWriter: w, rc: http.NewResponseController(w), tunnels: h.tunnels, http2: r.ProtoMajor == 2},
	}
	h.metrics.inFlight.Inc()
	for _, name := range credentialFields {
		if hasToken(r.Header, "Connection", name) { // it is for this node, which has no use for it
			r.Header.Del(name)
		}
	}
	if hasBody(r) {
		// Of a body that nobody reads net/http reads the rest, with no deadline of its own.
		_ = x.w.rc.SetReadDeadline(time.Now().Add(clientStall)) // not every connection can
	}
	return x
}

// end counts and logs the request, however it ended.
func (x *exchange) end() {
	x.w.finish()
	m := x.h.metrics
	m.inFlight.Dec()
	m.requests.WithLabelValues(string(x.face), x.outcome).Inc()
	log := x.h.cfg.Logger
	if !log.Enabled(x.r.Context(), slog.LevelDebug) {
		return
	}
	log.Debug("request done", "face", x.face, "method", x.r.Method, "host", x.host,
		"status", x.w.status, "outcome", x.outcome, "bytes", x.w.bytes,
		"duration", time.Since(x.start), "err", x.err)
}

// firstByte records how long the client waited.
func (x *exchange) firstByte(source string) {
	x.h.metrics.firstByte.WithLabelValues(source).Observe(time.Since(x.start).Seconds())
}

// abort cuts the response short, after what was already delivered to us: the
// client can resume behind it. It does not return.
func (x *exchange) abort(err error) {
	x.err = err
	if x.w.status != 0 && x.r.Context().Err() == nil {
		_ = x.w.rc.Flush() // the response ends here either way
	}
	panic(http.ErrAbortHandler)
}

// fail answers an error, while nothing of the response was sent yet. It panics
// where the client is gone, since nobody would see the answer.
func (x *exchange) fail(err error) {
	if x.w.status != 0 || x.r.Context().Err() != nil {
		x.abort(err)
	}
	x.err = err
	status := statusOf(err)
	var origin *OriginError
	if errors.As(err, &origin) && origin.RetryAfter > 0 {
		x.w.Header().Set("Retry-After", strconv.FormatInt(int64((origin.RetryAfter+time.Second-1)/time.Second), 10))
	}
	switch {
	case status == http.StatusProxyAuthRequired:
		x.w.Header().Set("Proxy-Authenticate", `Basic realm="p2pnode", charset="UTF-8"`)
	case errors.Is(err, errTooFew), errors.Is(err, errBusy):
		x.w.Header().Set("Retry-After", "1")
	}
	x.text(status, fmt.Sprintf("p2pnode: %s %.200s: %v\n%s\n", x.r.Method, withoutQuery(x.r.RequestURI), err, advice(status, err)))
}

// help answers a request that is for no face.
func (x *exchange) help() {
	x.text(http.StatusNotFound, "p2pnode: nothing is served at "+strconv.Quote(x.r.URL.Path)+`.
This port is an HTTP proxy: set http_proxy to it, or run curl -x http://HOST:PORT http://example.com/file
Tools without proxy settings can ask it for /url/https://example.com/file instead.
`)
}

func (x *exchange) text(status int, body string) {
	if x.face == faceMirror {
		x.json(status, registryError(status, body))
		return
	}
	x.body(status, "text/plain; charset=utf-8", body)
}

func (x *exchange) body(status int, contentType, body string) {
	header := x.w.Header()
	header.Set("Content-Type", contentType)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	x.outcome = outcomeRefused
	if status >= 500 && status != http.StatusLoopDetected {
		x.outcome = outcomeFailed
	}
	x.w.WriteHeader(status)
	if x.r.Method != http.MethodHead {
		_, _ = x.w.Write([]byte(body)) // the client is gone, then
	}
}

func statusOf(err error) int {
	var origin *OriginError
	switch {
	case errors.As(err, &origin) && origin.repeatable():
		return origin.Status
	case errors.Is(err, content.ErrURL):
		return http.StatusBadRequest
	case errors.Is(err, errNoRegistryPath):
		return http.StatusNotFound
	case errors.Is(err, errMisdirected):
		return http.StatusMisdirectedRequest
	case errors.Is(err, ErrForbidden), errors.Is(err, errCrossSite), errors.Is(err, errBlocked):
		return http.StatusForbidden
	case errors.Is(err, ErrLoop):
		return http.StatusLoopDetected
	case errors.Is(err, errLogin):
		return http.StatusProxyAuthRequired
	case errors.Is(err, errTooFew):
		return http.StatusTooManyRequests
	case errors.Is(err, errTunnels), errors.Is(err, errBusy):
		return http.StatusServiceUnavailable
	case isTimeout(err), errors.Is(err, ErrNotHeld):
		return http.StatusGatewayTimeout
	default:
		return http.StatusBadGateway
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &t) && t.Timeout()
}

// advice says what the client's user can do about a status of our own.
func advice(status int, err error) string {
	if errors.Is(err, errCrossSite) {
		return "The gateway serves tools, not web pages; open the URL itself in the browser."
	}
	if errors.Is(err, errBlocked) {
		return "See the rules in its configuration, and p2pnode config check --url."
	}
	if errors.Is(err, ErrNotHeld) {
		return "Ask without only-if-cached to have it fetched."
	}
	switch status {
	case http.StatusNotFound:
		return "Ask for /v2/NAME/manifests/TAG, /v2/NAME/blobs/DIGEST or the like."
	case http.StatusProxyAuthRequired:
		return "Send them as Proxy-Authorization, as in curl --proxy-user NAME:PASSWORD."
	case http.StatusBadRequest:
		return "Ask for an absolute http:// or https:// URL."
	case http.StatusForbidden:
		return "Allow the destination on this node (--origin-allow), or ask from the node's own machine."
	case http.StatusMisdirectedRequest:
		return "Open a connection of its own to that host."
	case http.StatusLoopDetected:
		return "Name the origin server in the URL, not this node, and check the proxy settings between them."
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		return "Try again later."
	case http.StatusGatewayTimeout:
		return "The origin or its network is slow or down; try again later."
	default:
		return "Check the URL and that this node can reach the origin, then try again."
	}
}

// response is the client's end: it notes what was sent, and cuts off a client
// that accepts nothing for clientStall.
type response struct {
	http.ResponseWriter
	rc      *http.ResponseController
	tunnels chan struct{}
	// http2 says that the client speaks it. There a deadline ends the stream when it
	// comes, also while there is nothing to write.
	http2 bool
	// status is 0 until the final header was sent.
	status int
	bytes  int64
	// onHeader, where set, runs before the final header is sent.
	onHeader func()
	hijacked bool
	// upgraded, where set, hears that the connection is taken over for another
	// protocol, and returns what is to be used in its place.
	upgraded func(net.Conn) net.Conn
	// full is set where there was no room for one more tunnel.
	full bool
}

// Unwrap serves http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader sends the final header.
func (w *response) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
		if w.onHeader != nil {
			w.onHeader()
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write sends p without keeping a copy.
func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.expect()
	n, err := w.ResponseWriter.Write(p)
	w.accepted()
	w.bytes += int64(n)
	return n, err
}

// FlushError sends what was written.
func (w *response) FlushError() error {
	w.expect()
	err := w.rc.Flush()
	w.accepted()
	return err
}

// expect gives the client clientStall to accept what is written next.
func (w *response) expect() { _ = w.rc.SetWriteDeadline(time.Now().Add(clientStall)) } // not every writer can

// accepted says that it was.
func (w *response) accepted() {
	if w.http2 {
		_ = w.rc.SetWriteDeadline(time.Time{})
	}
}

// Hijack hands out the connection of a tunnel or of an upgraded request, while
// there is room for one more; errTunnels otherwise.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	select {
	case w.tunnels <- struct{}{}:
	default:
		w.full = true
		return nil, nil, errTunnels
	}
	conn, buf, err := w.rc.Hijack()
	if err != nil {
		<-w.tunnels
		return nil, nil, fmt.Errorf("take over the connection: %w", err)
	}
	w.hijacked, w.status = true, http.StatusSwitchingProtocols
	if w.upgraded != nil {
		conn = w.upgraded(conn)
	}
	return conn, buf, nil
}

// finish gives back the connection as it came, and the tunnel's place.
func (w *response) finish() {
	if w.hijacked {
		<-w.tunnels
		return
	}
	_ = w.rc.SetWriteDeadline(time.Time{}) // not every writer can
}
