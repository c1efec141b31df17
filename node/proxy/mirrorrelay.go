package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed/origin/registry"
)

// maxRefusal bounds what is kept of the body of a 401.
const maxRefusal = 64 << 10

// relay streams the registry's own answer. A client without credentials gets
// what anybody can have, with a token that the mirror fetches; else the
// registry's challenge, so that it can get its own.
func (h *Handler) relay(x *exchange, t target) {
	x.transport = h.anonymous(x)
	h.direct(x, t)
}

// anonymous returns the transport to registries of an exchange.
func (h *Handler) anonymous(x *exchange) http.RoundTripper {
	return anonymousTransport{h: h, base: h.transport(x)}
}

// anonymousTransport adds anonymous tokens to requests without credentials.
type anonymousTransport struct {
	h    *Handler
	base http.RoundTripper // to the registry, which the client has named
}

// RoundTrip implements http.RoundTripper.
func (a anonymousTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("Authorization") != "" {
		return a.base.RoundTrip(r)
	}
	if kept, ok := a.h.mirror.tokens.Authorization(r.URL); ok {
		res, err := a.base.RoundTrip(withAuthorization(r, kept))
		if err != nil || res.StatusCode != http.StatusUnauthorized {
			return res, err
		}
		res.Body.Close()
	}
	refused, err := a.base.RoundTrip(r)
	if err != nil || refused.StatusCode != http.StatusUnauthorized {
		return refused, err
	}
	challenge, ok := registry.ParseChallenge(refused.Header)
	if !ok {
		return refused, nil
	}
	body, err := io.ReadAll(io.LimitReader(refused.Body, maxRefusal))
	refused.Body.Close()
	if err != nil {
		return nil, err
	}
	refused.Body = io.NopCloser(bytes.NewReader(body))
	token, err := a.h.mirror.tokens.Fetch(r.Context(), r.URL, challenge, a.get(r.URL))
	if err != nil {
		return refused, nil //nolint:nilerr // the client may have credentials of its own
	}
	res, err := a.base.RoundTrip(withAuthorization(r, token))
	if err != nil || res.StatusCode != http.StatusUnauthorized && res.StatusCode != http.StatusForbidden {
		return res, err
	}
	res.Body.Close()
	return refused, nil
}

// get returns what asks for a token that a registry wants.
func (a anonymousTransport) get(from *url.URL) registry.Do {
	return func(ctx context.Context, realm *url.URL) (*http.Response, error) {
		transport, err := a.toRealm(from, realm)
		if err != nil {
			return nil, err
		}
		req := &http.Request{Method: http.MethodGet, URL: realm, Host: realm.Host, Header: http.Header{"Accept": {"application/json"}, "Via": {via(1, 1, a.h.cfg.Name)}}}
		return transport.RoundTrip(req.WithContext(ctx))
	}
}

// toRealm returns what carries the request for a token. Where it is had is the
// registry's word, not the client's, who has not even seen it: the host that the
// client has named is asked as he could ask it, on any of its ports, all others
// as for a remote client, under the policy. A registry with a certificate is the
// host of that name for https alone, since the name may lead elsewhere by the next
// connection (DNS rebinding). Where a token is not had so, the client gets the
// challenge, and may follow it himself.
func (a anonymousTransport) toRealm(from, realm *url.URL) (http.RoundTripper, error) {
	named, err := content.NewTask(from.String(), content.Filter{})
	if err != nil {
		return nil, err
	}
	task, err := content.NewTask(realm.String(), content.Filter{})
	if err != nil {
		return nil, err
	}
	if a.h.cfg.Self(hostPort(task.URL)) {
		return nil, ErrLoop
	}
	asked := Asked{Method: http.MethodGet, URL: task.URL, Host: HostOf(task.URL), Size: SizeNone}
	if rule, _, _ := a.h.cfg.Rules.Decide(asked); rule.Action == ActionBlock {
		return nil, errBlocked
	}
	if asked.Host == HostOf(named.URL) && (realm.Scheme == from.Scheme || realm.Scheme == "https") {
		return a.base, nil
	}
	return a.h.cfg.DirectRemote, nil
}

func withAuthorization(r *http.Request, field string) *http.Request {
	out := r.Clone(r.Context())
	out.Header.Set("Authorization", field)
	return out
}

// mirrored makes what a registry's answer refers to stay on the mirror: a
// relative reference would lead the client to another registry. Absolute ones,
// to the servers that hold the blobs, are left as they are.
func (x *exchange) mirrored(res *http.Response, t target) {
	ns := x.r.URL.Query().Get("ns")
	if loc := res.Header.Get("Location"); loc != "" {
		res.Header.Set("Location", mirrorReference(t.url, loc, ns))
	}
	for i, field := range res.Header["Link"] {
		res.Header["Link"][i] = rewriteLinks(field, func(ref string) string { return mirrorReference(t.url, ref, ns) })
	}
}

// rewriteLinks replaces the references of a Link field (RFC 8288 section 3), of
// which it may have several. All else stays as it is, also what is no link.
func rewriteLinks(field string, to func(reference string) string) string {
	var out strings.Builder
	for field != "" {
		rest := strings.TrimLeft(field, " \t,")
		out.WriteString(field[:len(field)-len(rest)])
		if reference, params, ok := strings.Cut(rest, ">"); ok && strings.HasPrefix(reference, "<") {
			out.WriteString("<" + to(reference[1:]) + ">")
			rest = params
		}
		end := endOfLink(rest)
		out.WriteString(rest[:end])
		field = rest[end:]
	}
	return out.String()
}

// endOfLink returns where the parameters of a link end: at a comma that no quoted
// string holds (RFC 9110 section 5.6.4).
func endOfLink(params string) int {
	quoted := false
	for i := 0; i < len(params); i++ {
		switch c := params[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case c == ',' && !quoted:
			return i
		}
	}
	return len(params)
}

// mirrorReference turns a reference without a host, relative to a URL of a
// registry, into one that means the same to a client of the mirror.
func mirrorReference(base *url.URL, reference, ns string) string {
	ref, err := url.Parse(reference)
	if err != nil || ref.IsAbs() || ref.Host != "" || ref.User != nil {
		return reference
	}
	plain := *base
	plain.Opaque = ""
	to := plain.ResolveReference(ref)
	if ns == "" || !strings.HasPrefix(to.Path, "/v2/") {
		return to.String()
	}
	query := "ns=" + url.QueryEscape(ns) // first, so that it counts before one that the registry has written
	if to.RawQuery != "" {
		query += "&" + to.RawQuery
	}
	return (&url.URL{Path: to.Path, RawPath: to.RawPath, RawQuery: query}).String()
}

// errorCodes are the codes of the OCI distribution specification, and for the
// rest those of the distribution project.
var errorCodes = map[int]string{
	http.StatusBadRequest:         "NAME_INVALID",
	http.StatusUnauthorized:       "UNAUTHORIZED",
	http.StatusForbidden:          "DENIED",
	http.StatusNotFound:           "NAME_UNKNOWN",
	http.StatusMethodNotAllowed:   "UNSUPPORTED",
	http.StatusTooManyRequests:    "TOOMANYREQUESTS",
	http.StatusServiceUnavailable: "UNAVAILABLE",
	http.StatusBadGateway:         "UNAVAILABLE",
	http.StatusGatewayTimeout:     "UNAVAILABLE",
}

// registryError is an error text in the form that registries' clients read.
func registryError(status int, text string) string {
	type detail struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	code, ok := errorCodes[status]
	if !ok {
		code = "UNKNOWN"
	}
	body, err := json.Marshal(map[string][]detail{"errors": {{code, strings.TrimSpace(text)}}})
	if err != nil {
		panic("proxy: " + err.Error()) // strings can be marshalled
	}
	return string(body)
}

// json answers with a document of our own.
func (x *exchange) json(status int, body string) {
	x.w.Header().Set(headerAPIVersion, apiVersion)
	x.body(status, "application/json", body)
}
