package assignment

import "testing"

func TestRunOf(t *testing.T) {
	for _, tt := range []struct {
		stripe, stripes int64
		want            int
	}{
		{0, 1, 0}, {0, -1, 0}, {5, -1, 5}, {300, -1, 254}, {-1, 10, 0},
		{9, 10, 9}, {254, 255, 254}, {255, 256, 254}, {0, 256, 0}, {1, 256, 0}, {2, 256, 1},
		{509, 510, 254}, {2, 510, 1}, {3, 510, 1}, {25_499, 25_500, 254}, {100, 25_500, 1}, {99, 25_500, 0},
		{1 << 40, 1 << 41, 127},
	} {
		if got := RunOf(tt.stripe, tt.stripes); got != tt.want {
			t.Errorf("stripe %d of %d is in run %d, want %d", tt.stripe, tt.stripes, got, tt.want)
		}
	}
	for stripes := range int64(2000) { // runs follow one another and none is empty
		last := -1
		for s := range stripes {
			run := RunOf(s, stripes)
			if run != last && run != last+1 {
				t.Fatalf("stripe %d of %d is in run %d, the one before in %d", s, stripes, run, last)
			}
			last = run
		}
		if want := int(min(stripes, RunCount)) - 1; last != want {
			t.Fatalf("%d stripes end in run %d, want %d", stripes, last, want)
		}
	}
}

func TestRuns(t *testing.T) {
	var r Runs
	for _, run := range []int{0, 7, 8, 255} {
		if r.Has(run) {
			t.Errorf("empty set has %d", run)
		}
		r.Add(run)
		if !r.Has(run) {
			t.Errorf("set lacks %d", run)
		}
	}
	if r.Has(1) || r.Has(254) {
		t.Error("set has what was not added")
	}
	rest := AllRuns.Without(r)
	if r.Or(AllRuns) != AllRuns || r.And(AllRuns) != r || r.Without(AllRuns) != (Runs{}) || rest.Has(8) || !rest.Has(9) {
		t.Error("union, intersection or difference is wrong")
	}
}
