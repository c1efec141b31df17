package proxy

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/pquerna/cachecontrol/cacheobject"
)

// Demand is how current an answer must be for its client, besides what the
// origin says (RFC 9111 section 5.2.1). The zero Demand asks for nothing more.
// Where the origin cannot be reached what is held will do all the same.
type Demand struct {
	// Since, where not zero: the origin must have been asked after that time.
	Since time.Time
	// MaxAge, where positive, is the greatest age.
	MaxAge time.Duration
	// MinFresh, where positive, is how much longer it must stay current.
	MinFresh time.Duration
	// MaxStale, where positive, is for how long it may be stale already.
	MaxStale time.Duration
	// Lifetime, where positive, is how long content counts as current after it
	// was confirmed, whatever the origin says: a rule of this node.
	Lifetime time.Duration
}

// since makes the demand one for an answer that was confirmed after t.
func (d *Demand) since(t time.Time) {
	if t.After(d.Since) {
		d.Since = t
	}
}

// anyStale is a max-stale without a number.
const anyStale = 100 * 365 * 24 * time.Hour

// wants is what a request's Cache-Control says.
type wants struct {
	Demand
	prefetch string // see Rule
	// noStore: nothing of it may be stored.
	noStore bool
	// onlyIfCached: the origin must not be asked.
	onlyIfCached bool
}

// wantsOf reads the directives of a request; now is when it came. One that
// cannot be read is for the origin to understand: as no-store.
func wantsOf(h http.Header, now time.Time) wants {
	fields := h.Values("Cache-Control")
	if len(fields) == 0 { // RFC 9111 section 5.4
		var w wants
		if slices.ContainsFunc(h.Values("Pragma"), func(s string) bool { return strings.EqualFold(strings.TrimSpace(s), "no-cache") }) {
			w.since(now)
		}
		return w
	}
	d, err := cacheobject.ParseRequestCacheControl(strings.Join(fields, ", "))
	if err != nil {
		return wants{noStore: true}
	}
	w := wants{noStore: d.NoStore, onlyIfCached: d.OnlyIfCached}
	if d.NoCache || d.MaxAge == 0 {
		w.since(now)
	}
	w.MaxAge = seconds(d.MaxAge)
	w.MinFresh = seconds(d.MinFresh)
	w.MaxStale = seconds(d.MaxStale)
	if d.MaxStaleSet && d.MaxStale < 0 {
		w.MaxStale = anyStale
	}
	return w
}

// seconds returns a number of seconds, 0 where there is none.
func seconds(n cacheobject.DeltaSeconds) time.Duration {
	return time.Duration(max(0, n)) * time.Second
}
