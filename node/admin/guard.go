package admin

import (
	"mime"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// writeTimeout bounds one answer; a profile gets the seconds it runs on top.
const writeTimeout = 30 * time.Second

// maxProfile is the longest profile or trace that is served.
const maxProfile = 5 * time.Minute

// guard refuses what a browser could be tricked into, and what would change
// anything, before any handler runs.
func (a *api) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Content-Security-Policy", "default-src 'self'; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'")
		h.Set("Cache-Control", "no-store")
		if !a.hostAllowed(r) {
			writeError(w, http.StatusForbidden, "Host is neither a loopback name nor the address of this node; use one of these")
			return
		}
		if r.Header.Get("Sec-Fetch-Site") == "cross-site" && r.Header.Get("Sec-Fetch-Mode") != "navigate" {
			writeError(w, http.StatusForbidden, "request made by a page of another site")
			return
		}
		if mediaType, ok := a.posts[r.URL.Path]; ok {
			if guardPost(w, r, mediaType) {
				_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
				next.ServeHTTP(w, r)
			}
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			writeError(w, http.StatusMethodNotAllowed, "only GET and HEAD are served here")
			return
		}
		seconds, ok := profileLength(r)
		if !ok {
			writeError(w, http.StatusBadRequest, "seconds must be a number from 1 to "+strconv.Itoa(int(maxProfile.Seconds())))
			return
		}
		// Not every ResponseWriter has deadlines; those of net/http do.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout + seconds))
		next.ServeHTTP(w, r)
	})
}

// foreign finds requests that change something and come from another site's
// page, by what the browser says of them.
var foreign http.CrossOriginProtection

// guardPost reports whether a request is one that no foreign page could have
// made, and refuses it otherwise: its media type is none that a form can send,
// and for none of these types a script may send it without being allowed to
// first, which is never.
func guardPost(w http.ResponseWriter, r *http.Request, mediaType string) bool {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		writeError(w, http.StatusMethodNotAllowed, "only POST is served here")
		return false
	}
	if foreign.Check(r) != nil {
		writeError(w, http.StatusForbidden, "request made by a page of another site")
		return false
	}
	if given, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || given != mediaType {
		writeError(w, http.StatusUnsupportedMediaType, "the Content-Type must be "+mediaType)
		return false
	}
	return true
}

// hostAllowed reports whether the Host header names this node in a way that no
// foreign web page can bring about: a page is kept apart from others by its
// host, and a name of its own that it points at this address is not among
// these.
func (a *api) hostAllowed(r *http.Request) bool {
	host := strings.ToLower(r.Host)
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if host == "localhost" || slices.Contains(a.hosts, host) {
		return host != ""
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	if ip.Unmap().IsLoopback() {
		return true
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	at, err := netip.ParseAddrPort(local.String())
	return err == nil && at.Addr().Unmap().WithZone("") == ip.Unmap().WithZone("")
}

// profileLength returns the seconds a profile or trace asks for, and false
// where it asks for nonsense or too much. Other requests ask for none.
func profileLength(r *http.Request) (time.Duration, bool) {
	if !strings.HasPrefix(r.URL.Path, "/debug/pprof/") {
		return 0, true
	}
	asked := r.URL.Query().Get("seconds")
	if asked == "" {
		return 30 * time.Second, true // what a profile takes by default
	}
	n, err := strconv.ParseFloat(asked, 64)
	if err != nil || !(n > 0 && n <= maxProfile.Seconds()) {
		return 0, false
	}
	return time.Duration(n * float64(time.Second)), true
}
