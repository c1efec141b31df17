package supernode

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/p2pnode/p2pnode/protocols/report"
)

// Demand is how a task was read from its seeds lately.
type Demand struct {
	// Readers are distinct peers, Sites those of them at each named site.
	Readers int
	Sites   map[string]int
	// Rate is bytes a second over all seeds.
	Rate int64
}

// Policy says what demand asks for. The zero value of a field is its default.
type Policy struct {
	// Replicas is the number of seeds of a task that few read, MaxReplicas that
	// of the most wanted one; default 2 and 8.
	Replicas, MaxReplicas int
	// ReadersPerSeed and RatePerSeed are what one seed is to serve at once;
	// default 16, the bulk uploads that a node takes on, and 64 MiB/s.
	ReadersPerSeed int
	RatePerSeed    int64
	// SiteReaders of a task at one site give the site a seed of its own; default
	// 3. MaxSites bounds these sites of one task; default 16.
	SiteReaders, MaxSites int
	// Calm is how long demand must have been low before seeds are taken away
	// again; default 2 min.
	Calm time.Duration
}

func (p Policy) withDefaults() Policy {
	setDefault(&p.Replicas, 2)
	setDefault(&p.MaxReplicas, max(8, p.Replicas))
	setDefault(&p.ReadersPerSeed, 16)
	setDefault(&p.RatePerSeed, 64<<20)
	setDefault(&p.SiteReaders, 3)
	setDefault(&p.MaxSites, 16)
	setDefault(&p.Calm, 2*time.Minute)
	return p
}

// Wish is what demand asks for at one time, and what is needed to know when it
// asks for less. The zero value is that of a task that nobody reads.
type Wish struct {
	// Replicas is the number of seeds; 0 for Policy.Replicas.
	Replicas int
	// Sites that get a seed of their own, with the last time when enough readers
	// were there.
	Sites map[string]time.Time
	// Low is when demand fell so far that fewer seeds would do; zero where it
	// has not.
	Low time.Time
}

// Hot reports whether demand asks for more than the least number of seeds.
func (w Wish) Hot(p Policy) bool { return w.Replicas > p.Replicas }

// Next returns the wish that follows w at a time with this demand. It is pure,
// and p has its defaults. It asks for more at once. It asks for fewer replicas
// when twice the demand would have needed no more for the time of p.Calm, and
// then for what twice the demand needs; for no seed at a site when the site had
// too few readers for as long.
func (w Wish) Next(d Demand, p Policy, now time.Time) Wish {
	next := Wish{Replicas: max(w.Replicas, p.Replicas), Low: w.Low}
	switch want, twice := p.replicas(d.Readers, d.Rate), p.replicas(2*d.Readers, 2*d.Rate); {
	case want >= next.Replicas || twice >= next.Replicas:
		next.Replicas, next.Low = max(want, next.Replicas), time.Time{}
	case next.Low.IsZero():
		next.Low = now
	case now.Sub(next.Low) >= p.Calm:
		next.Replicas, next.Low = twice, time.Time{}
	}
	next.Sites = w.sites(d, p, now)
	return next
}

// replicas returns how many seeds serve so many readers at such a rate.
func (p Policy) replicas(readers int, rate int64) int {
	byReaders := (readers + p.ReadersPerSeed - 1) / p.ReadersPerSeed
	byRate := int((rate + p.RatePerSeed - 1) / p.RatePerSeed)
	return min(max(p.Replicas, byReaders, byRate), p.MaxReplicas)
}

func (w Wish) sites(d Demand, p Policy, now time.Time) map[string]time.Time {
	var out map[string]time.Time
	put := func(site string, t time.Time) {
		if out == nil {
			out = make(map[string]time.Time)
		}
		out[site] = t
	}
	for site, last := range w.Sites {
		if now.Sub(last) < p.Calm {
			put(site, last)
		}
	}
	busiest := slices.SortedFunc(maps.Keys(d.Sites), func(a, b string) int {
		return cmp.Or(cmp.Compare(d.Sites[b], d.Sites[a]), cmp.Compare(a, b))
	})
	for _, site := range busiest {
		_, known := out[site]
		if site != "" && d.Sites[site] >= p.SiteReaders && (known || len(out) < p.MaxSites) {
			put(site, now)
		}
	}
	return out
}

// same reports whether two wishes ask for the same.
func (w Wish) same(o Wish) bool {
	return w.Replicas == o.Replicas && maps.EqualFunc(w.Sites, o.Sites, func(_, _ time.Time) bool { return true })
}

// maxWindowReaders bounds the distinct readers counted in one window of a task:
// enough for all replicas there may be.
const maxWindowReaders = 4096

// window is what was read in one span of time.
type window struct {
	start   time.Time
	bytes   int64
	readers map[uint64]struct{}
}

// flow is the demand of one task as it is reported: a window that fills and the
// one before it. Not safe for concurrent use.
type flow struct{ now, last window }

// add takes in a report; width is that of a window.
func (f *flow) add(d report.Demand, now time.Time, width time.Duration) {
	f.turn(now, width)
	f.now.bytes += d.Bytes
	if f.now.readers == nil {
		f.now.readers = make(map[uint64]struct{}, len(d.Readers))
	}
	for _, r := range d.Readers {
		if len(f.now.readers) >= maxWindowReaders {
			break
		}
		f.now.readers[r] = struct{}{}
	}
}

// turn begins a new window when the old one is over.
func (f *flow) turn(now time.Time, width time.Duration) {
	switch age := now.Sub(f.now.start); {
	case f.now.start.IsZero() || age >= 2*width:
		f.now, f.last = window{start: now}, window{}
	case age >= width:
		f.last, f.now = f.now, window{start: f.now.start.Add(width)}
	}
}

// idle reports whether both windows are empty.
func (f *flow) idle() bool {
	return len(f.now.readers)+len(f.last.readers) == 0 && f.now.bytes+f.last.bytes == 0
}

// demand sums up both windows: site names a reader's site.
func (f *flow) demand(now time.Time, width time.Duration, site func(reader uint64) string) Demand {
	f.turn(now, width)
	d := Demand{Sites: make(map[string]int)}
	count := func(r uint64) {
		d.Readers++
		if s := site(r); s != "" {
			d.Sites[s]++
		}
	}
	for r := range f.now.readers {
		count(r)
	}
	for r := range f.last.readers {
		if _, counted := f.now.readers[r]; !counted {
			count(r)
		}
	}
	span := width
	if !f.last.start.IsZero() {
		span = now.Sub(f.last.start)
	}
	d.Rate = int64(float64(f.now.bytes+f.last.bytes) / max(span, width).Seconds())
	return d
}
