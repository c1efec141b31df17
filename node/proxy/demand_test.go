package proxy

import (
	"net/http"
	"testing"
	"time"
)

func TestWantsOf(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, c := range []struct {
		name   string
		header http.Header
		want   wants
	}{
		{"nothing", nil, wants{}},
		{"no-cache", header("Cache-Control", "max-age=9, No-Cache"), wants{Demand: Demand{Since: now, MaxAge: 9 * time.Second}}},
		{"reload", header("Cache-Control", "max-age=0"), wants{Demand: Demand{Since: now}}},
		{"Pragma", header("Pragma", "No-Cache"), wants{Demand: Demand{Since: now}}},
		{"Pragma beside Cache-Control", header("Pragma", "no-cache", "Cache-Control", "x"), wants{}},
		{"ages", header("Cache-Control", "max-age=60", "Cache-Control", "min-fresh=5, max-stale=7"), wants{Demand: Demand{MaxAge: time.Minute, MinFresh: 5 * time.Second, MaxStale: 7 * time.Second}}},
		{"any stale", header("Cache-Control", "max-stale"), wants{Demand: Demand{MaxStale: anyStale}}},
		{"no-store", header("Cache-Control", "no-store"), wants{noStore: true}},
		{"only-if-cached", header("Cache-Control", "only-if-cached"), wants{onlyIfCached: true}},
		{"garbage", header("Cache-Control", "max-age=soon"), wants{noStore: true}},
		{"unknown", header("Cache-Control", `x="no-store, no-cache"`), wants{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := wantsOf(c.header, now); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// FuzzWantsOf: no field makes a demand that is no demand.
func FuzzWantsOf(f *testing.F) {
	for _, s := range []string{"max-age=0", `no-cache="a, b", max-stale`, "max-age=99999999999999", "min-fresh=-1", `"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, field string) {
		w := wantsOf(http.Header{"Cache-Control": {field}}, time.Now())
		if w.MaxAge < 0 || w.MinFresh < 0 || w.MaxStale < 0 {
			t.Errorf("%q: %+v", field, w)
		}
	})
}
