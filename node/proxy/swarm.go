package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
)

const (
	headerSource      = "P2pnode-Source"
	headerSourceBytes = "P2pnode-Source-Bytes"
)

// carried reports whether a shared cache may answer a request (RFC 9111), as
// far as the request says: GET or HEAD without a body, not asking for another
// protocol, and with credentials, if any, of a usual size. Proxy-Authorization is
// not for the origin, and is never passed on.
func carried(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
		return false
	}
	if len(r.Header.Values("Upgrade")) > 0 || sizeOf(credentialsOf(r)) > maxCredentials {
		return false
	}
	return !refusesIdentity(r.Header)
}

// refusesIdentity reports whether the client wants no content without a coding,
// which is all that the swarm has.
func refusesIdentity(h http.Header) bool {
	for _, zero := range []string{"identity;q=0", "*;q=0"} {
		if hasToken(h, "Accept-Encoding", zero) {
			return true
		}
	}
	return false
}

// hasToken reports whether a list field has an element, in any case and with
// any white space.
func hasToken(h http.Header, name, token string) bool {
	for _, line := range h[textproto.CanonicalMIMEHeaderKey(name)] {
		for element := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.ReplaceAll(strings.TrimSpace(element), " ", ""), token) {
				return true
			}
		}
	}
	return false
}

// swarm answers from the swarm, for a client with these credentials. It reports
// false, with nothing sent, where the origin is to be read directly.
func (h *Handler) swarm(x *exchange, t target, task content.Task, w wants, credentials http.Header) bool {
	var specs []rangeSpec
	want := Want{Whole: true, Len: -1}
	if x.r.Method == http.MethodGet { // on HEAD a Range has no meaning (RFC 9110 section 14.2)
		if specs = parseRanges(x.r.Header.Values("Range")); len(specs) == 1 || len(specs) > 1 && !w.onlyIfCached {
			want = specs[0].want()
		}
	}
	if at, ok := h.written.Get(task.ID); ok {
		w.since(at)
	}
	file, err := h.cfg.Opener.Open(x.r.Context(), Request{
		Task: task, URL: t.raw, Want: want, MetaOnly: x.r.Method == http.MethodHead, Local: x.local,
		Demand: w.Demand, Held: w.onlyIfCached, Prefetch: w.prefetch, Credentials: credentials,
	})
	if err != nil {
		if denies(err) {
			h.deny(t, credentials)
		}
		return h.opened(x, task, err, w)
	}
	defer file.Close() //nolint:errcheck // reading: nothing is lost
	meta := file.Meta()
	x.asked.Size = meta.Size
	switch rule, _, decided := h.cfg.Rules.Decide(x.asked); {
	case !decided:
		return h.opened(x, task, fmt.Errorf("%w: a rule goes by its size, which is unknown", ErrPassThrough), w)
	case rule.Action == ActionBlock:
		x.fail(errBlocked)
		return true
	case rule.Action == ActionDirect:
		return h.opened(x, task, fmt.Errorf("%w: a rule takes files of %d bytes", ErrPassThrough, meta.Size), w)
	}
	s := &sending{x: x, file: file, meta: meta, r: content.Range{Len: meta.Size}, open: meta.Size < 0, status: http.StatusOK}
	if err := s.answer(specs); err != nil {
		return h.opened(x, task, err, w)
	}
	x.outcome = outcomeSwarm
	return true
}

// answer sends what the request's conditions and ranges make of the file (RFC
// 9110 section 13.2.2). Of an error, which it returns, nothing was sent.
func (s *sending) answer(specs []rangeSpec) error {
	x := s.x
	if status := precondition(x.r.Header, s.meta); status != 0 {
		s.bare(status)
		return nil
	}
	if len(specs) > 0 && !s.open && rangeApplies(x.r.Header, s.meta) {
		ranges := resolveAll(specs, s.meta.Size)
		switch len(ranges) {
		case 0:
			s.unsatisfiable()
			return nil
		case 1:
			s.r, s.status = ranges[0], http.StatusPartialContent
		default:
			return s.multipart(x.r.Context(), newParts(ranges, s.meta))
		}
	}
	if x.r.Method == http.MethodHead || s.r.Empty() && !s.open {
		s.begin()
		return nil
	}
	return s.body()
}

// opened deals with an error while nothing was sent: it answers it, or reports
// false where the origin is to be read directly.
func (h *Handler) opened(x *exchange, task content.Task, err error, w wants) bool {
	var origin *OriginError
	switch {
	case w.onlyIfCached && !errors.Is(err, ErrForbidden):
		x.fail(fmt.Errorf("%w: %w", ErrNotHeld, err))
		return true
	case errors.Is(err, ErrPassThrough):
		h.passes.Add(passKey{task.ID, len(credentialsOf(x.r)) > 0}, h.cfg.Now().Add(passMemory))
	case errors.Is(err, ErrPrivate):
	case errors.As(err, &origin) && origin.Status >= 300 && !origin.repeatable():
	default:
		x.fail(err)
		return true
	}
	x.err = err
	return false
}

// sending is the response of one file.
type sending struct {
	x      *exchange
	file   File
	meta   content.Meta
	r      content.Range
	open   bool // the size is not known: all of the file, to its end
	status int
	parts  *parts // where there are several
	set    setter // for the fields of the header
	begun  bool
}

// header sets what every response of a file has.
func (s *sending) header() http.Header {
	h := s.x.w.Header()
	age := max(0, s.file.Age())
	set := setter{h, make([]string, 0, 12)}
	set.field("Accept-Ranges", "bytes")
	set.field("Via", via(1, 1, s.x.h.cfg.Name))
	// When the origin said so: what a cache behind us computes with.
	set.field("Date", s.x.h.cfg.Now().Add(-age).UTC().Format(http.TimeFormat))
	set.field("Etag", s.meta.ETag)
	set.field("Last-Modified", s.meta.LastModified)
	set.field("Cache-Control", s.file.CacheControl())
	set.field(headerSource, s.file.Source())
	set.field("Age", strconv.FormatInt(int64(age/time.Second), 10))
	s.set = set
	return h
}

// setter sets header fields of one value each, whose names are in canonical form:
// as Header.Set, with one allocation for all of them.
type setter struct {
	h      http.Header
	values []string
}

// field sets a field that is not empty.
func (s *setter) field(name, value string) {
	if value == "" {
		return
	}
	s.values = append(s.values, value)
	s.h[name] = s.values[len(s.values)-1 : len(s.values) : len(s.values)]
}

// fields adds the origin's other fields. A 206 leaves out those that are about
// the content of a 200, a 304 those about the content but what updates a cache
// (RFC 9110 section 15.4.5), and what it says about its origin stays away from a
// gateway's own.
func (s *sending) fields(h http.Header) {
	for name, value := range s.meta.Fields.All() {
		name = http.CanonicalHeaderKey(name)
		switch {
		case name == "Date",
			s.status == http.StatusPartialContent && (name == "Content-Digest" || name == "Content-Md5"),
			s.status == http.StatusNotModified && strings.HasPrefix(name, "Content-") && name != "Content-Location",
			s.x.face != faceForward && slices.Contains(ofOrigin, name):
			continue
		}
		h.Add(name, value)
	}
}

// ofOrigin are fields that a browser would take for the gateway's.
var ofOrigin = []string{"Alt-Svc", "Clear-Site-Data", "Service-Worker-Allowed", "Strict-Transport-Security"}

func setIf(h http.Header, name, value string) {
	if value != "" {
		h.Set(name, value)
	}
}

// begin sends the header of a 200 or a 206.
func (s *sending) begin() {
	s.begun = true
	h := s.header()
	s.fields(h)
	h["Content-Type"] = nil // where the origin sent none, none is guessed
	s.set.field("Content-Type", s.meta.ContentType)
	if s.parts != nil {
		s.set.field("Content-Type", s.parts.mediaType())
	} else if s.status == http.StatusPartialContent {
		s.set.field("Content-Range", contentRange(s.r, s.meta.Size))
	}
	if !s.open {
		s.set.field("Content-Length", strconv.FormatInt(s.r.Len, 10))
	}
	if s.trailer() {
		h.Set("Trailer", headerSourceBytes)
		if s.x.r.ProtoMajor == 1 {
			h.Del("Content-Length")
		}
	}
	s.x.firstByte(sourceLabel(s.file.Source()))
	s.x.w.WriteHeader(s.status)
}

// trailer reports whether the response has one; see the package's doc.
func (s *sending) trailer() bool {
	if s.x.r.Method == http.MethodHead || s.r.Empty() && !s.open {
		return false
	}
	return s.x.r.ProtoMajor >= 2 || s.x.r.ProtoAtLeast(1, 1) && hasToken(s.x.r.Header, "Te", "trailers")
}

// bare sends a 304 or a 412.
func (s *sending) bare(status int) {
	h := s.header()
	if s.status = status; status == http.StatusNotModified {
		s.fields(h)
		s.x.outcome = outcomeSwarm
		s.x.w.WriteHeader(status)
		return
	}
	s.x.text(status, "p2pnode: the file is not the one that If-Match or If-Unmodified-Since names.\nAsk without them for the file as it is now.\n")
}

// unsatisfiable sends a 416.
func (s *sending) unsatisfiable() {
	h := s.header()
	size := strconv.FormatInt(s.meta.Size, 10)
	h.Set("Content-Range", "bytes */"+size)
	s.x.text(http.StatusRequestedRangeNotSatisfiable,
		"p2pnode: the range "+strconv.Quote(s.x.r.Header.Get("Range"))+" has no byte of this file of "+size+" bytes.\nAsk for a range within it.\n")
}

// body sends header and content. Of an error before the first byte, which it
// returns, nothing was sent; after it the response is cut short.
func (s *sending) body() error {
	ctx := s.x.r.Context()
	if err := s.file.Prime(ctx, s.r); err != nil {
		return err
	}
	n, err := s.file.Copy(ctx, s, s.r)
	if err == nil && !s.open && n != s.r.Len {
		err = io.ErrUnexpectedEOF
	}
	return s.sent(err)
}

// sent ends a response whose bytes were written, or fewer of them with an error.
// Of one before the first byte, which it returns, nothing was sent; after it the
// response is cut short.
func (s *sending) sent(err error) error {
	s.count()
	if err != nil && s.begun {
		s.x.abort(fmt.Errorf("cut short after %d bytes of a body of %d: %w", s.x.w.bytes, s.r.Len, err))
	}
	if err == nil && s.trailer() {
		local, peer, origin := s.file.Tally()
		s.x.w.Header().Set(headerSourceBytes, fmt.Sprintf("local=%d,peer=%d,origin=%d", local, peer, origin))
	}
	return err
}

// Write sends the header before the first byte.
func (s *sending) Write(p []byte) (int, error) {
	if !s.begun {
		s.begin()
	}
	return s.x.w.Write(p)
}

func (s *sending) count() {
	local, peer, origin := s.file.Tally()
	bytes := s.x.h.metrics.bytes
	bytes.WithLabelValues("local").Add(float64(local))
	bytes.WithLabelValues("peer").Add(float64(peer))
	bytes.WithLabelValues("origin").Add(float64(origin))
}

// sourceLabel keeps metric labels to the known ones.
func sourceLabel(source string) string {
	if slices.Contains([]string{"local", "peer", "origin"}, source) {
		return source
	}
	return "unknown"
}
