package seed

import (
	"time"

	"github.com/pquerna/cachecontrol/cacheobject"

	"github.com/p2pnode/p2pnode/internal/content"
)

// forever is longer than any node runs, and can be added to itself.
const forever = time.Duration(1 << 61)

// freshness is how an answer may be used again (RFC 9111 section 4.2).
type freshness struct {
	// lifetime is how long the content is current after it was validated.
	lifetime time.Duration
	// mustRevalidate: it must not be served after that without asking.
	mustRevalidate bool
	// staleIfError is for how long it may be, where nobody can say whether it
	// still is what the origin has (RFC 5861 section 4); -1 for ever.
	staleIfError time.Duration
}

// newFreshness reads Cache-Control, else Expires. What neither tells of is
// current for minFresh; immutable content (RFC 8246) for as long as it is said,
// or for ever; and what a digest names always is. A Cache-Control that cannot be
// read makes content stale at once (section 4.2.1).
func newFreshness(cacheControl, digest string, fields content.Fields) freshness {
	if digest != "" {
		return freshness{lifetime: forever, staleIfError: -1}
	}
	d, err := cacheobject.ParseResponseCacheControl(cacheControl)
	if err != nil {
		return freshness{staleIfError: -1}
	}
	f := freshness{
		lifetime: minFresh, staleIfError: -1,
		// s-maxage has the meaning of proxy-revalidate (section 5.2.2.10).
		mustRevalidate: d.MustRevalidate || d.ProxyRevalidate || d.SMaxAge >= 0,
	}
	if d.StaleIfError >= 0 {
		f.staleIfError = time.Duration(d.StaleIfError) * time.Second
	}
	switch expires := fields.Get("Expires"); {
	case d.SMaxAge >= 0:
		f.lifetime = time.Duration(d.SMaxAge) * time.Second
	case d.MaxAge >= 0:
		f.lifetime = time.Duration(d.MaxAge) * time.Second
	case expires != "":
		f.lifetime = between(fields.Get("Date"), expires)
	case d.Immutable:
		f.lifetime = forever
	}
	return f
}

// Fresh reports whether an answer of an origin with such a Cache-Control and other
// fields may be used at that age without asking it (RFC 9111 section 4.2).
func Fresh(cacheControl, digest string, fields content.Fields, age time.Duration) bool {
	d, err := cacheobject.ParseResponseCacheControl(cacheControl)
	return max(age, 0) < newFreshness(cacheControl, digest, fields).lifetime && (err != nil || !d.NoCachePresent)
}

// between returns the time from one HTTP date to another, 0 where it is negative
// or one of them is none, and no more than forever.
func between(from, to string) time.Duration {
	a, ok1 := httpDate(from)
	b, ok2 := httpDate(to)
	if !ok1 || !ok2 {
		return 0
	}
	return min(max(0, b.Sub(a)), forever)
}

// httpDate reads the three forms of RFC 9110 section 5.6.7.
func httpDate(s string) (time.Time, bool) {
	for _, layout := range []string{"Mon, 02 Jan 2006 15:04:05 GMT", time.RFC850, time.ANSIC} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}
