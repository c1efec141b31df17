package proxy

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/http"
	"strings"
)

// maxCredentials bounds the bytes of credentials for the swarm; requests with more
// go to their origin.
const maxCredentials = 12 << 10

// credentialFields are those that say who asks an origin.
var credentialFields = []string{"Authorization", "Cookie"}

// credentialsOf returns what a request has for its origin, nil for nothing. A
// signature in the URL is not among it, nor, since begin, what Connection names.
func credentialsOf(r *http.Request) http.Header {
	var out http.Header
	for _, name := range credentialFields {
		if values := r.Header.Values(name); len(values) > 0 {
			if out == nil {
				out = http.Header{}
			}
			out[name] = values
		}
	}
	return out
}

func sizeOf(h http.Header) (n int) {
	for name, values := range h {
		for _, v := range values {
			n += len(name) + len(v)
		}
	}
	return n
}

// denies reports whether an error is an origin's refusal of credentials, or of a
// client that has none.
func denies(err error) bool {
	var origin *OriginError
	return errors.Is(err, ErrPrivate) || errors.As(err, &origin) &&
		(origin.Status == http.StatusUnauthorized || origin.Status == http.StatusForbidden || origin.Status == http.StatusProxyAuthRequired)
}

// deny remembers that credentials for a URL were refused: what asks for it with
// the same goes to the origin, which is asked once then instead of twice.
func (h *Handler) deny(t target, credentials http.Header) {
	h.denied.Add(h.deniedKey(t, credentials), h.cfg.Now().Add(passMemory))
}

// isDenied reports whether these credentials for a URL, or their absence, were
// refused lately.
func (h *Handler) isDenied(t target, credentials http.Header) bool {
	if h.denied.Len() == 0 { // as usual: the key takes longer than all the rest
		return false
	}
	until, ok := h.denied.Get(h.deniedKey(t, credentials))
	return ok && h.cfg.Now().Before(until)
}

// deniedKey names a URL, with its signature, and credentials, without telling
// them.
func (h *Handler) deniedKey(t target, credentials http.Header) (key [sha256.Size]byte) {
	mac := hmac.New(sha256.New, h.secret)
	text := func(s string) {
		mac.Write(binary.AppendUvarint(nil, uint64(len(s))))
		mac.Write([]byte(s))
	}
	text(t.raw)
	for _, name := range credentialFields {
		text(name)
		for _, v := range credentials[name] {
			text(v)
		}
	}
	mac.Sum(key[:0])
	return key
}

// withoutQuery returns a URL for an error's text: what is in a query may be
// secret.
func withoutQuery(uri string) string {
	if bare, _, ok := strings.Cut(uri, "?"); ok {
		return bare + "?…"
	}
	return uri
}
