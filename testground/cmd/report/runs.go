package main

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/p2pnode/p2pnode/testground/plan"
)

// oneRun is all lines of one run.
type oneRun struct {
	plan.Results
	id, name, commit string
	n                int // instances
	begun            time.Time
	params           map[string]string
	node, origin     plan.Links
	machine          string
}

// group sorts lines into runs, oldest first.
func group(all plan.Results) []*oneRun {
	byID := make(map[string]*oneRun)
	var runs []*oneRun
	for _, r := range all {
		one := byID[r.RunID]
		if one == nil {
			one = &oneRun{id: r.RunID, name: r.Case, commit: r.Commit, n: r.N, begun: r.Time}
			byID[r.RunID] = one
			runs = append(runs, one)
		}
		one.Results = append(one.Results, r)
		if r.Time.Before(one.begun) {
			one.begun = r.Time
		}
		if r.Run == nil {
			continue
		}
		one.params, one.machine = r.Run.Params, r.Run.Machine
		if r.Run.Role == "origin" {
			one.origin = r.Run.Links
		} else {
			one.node = r.Run.Links
		}
	}
	slices.SortFunc(runs, func(a, b *oneRun) int { return a.begun.Compare(b.begun) })
	return runs
}

// fileSize is the run's parameter size in bytes, taken from a whole read.
func (r *oneRun) fileSize() float64 {
	size := 0.0
	for _, read := range r.Reads("") {
		size = max(size, float64(read.Off+read.Len))
	}
	return size
}

// bound is the least time in which all readers of one file can have it, in ms,
// after Kumar and Ross, "Peer-assisted file distribution: the minimum
// distribution time" (2006): max(F/us, F/dmin, N·F/(us+Σu)). Links are shaped on
// their way out alone, so dmin is without bound. Zero where nothing was shaped.
func (r *oneRun) bound() float64 {
	f := r.fileSize() * 8 / 1e3 // in kbit, so that Mbit/s give ms
	n := float64(len(r.Reads("cold")))
	us, u := r.origin.UplinkMbit, r.node.UplinkMbit
	if us == 0 || u == 0 || n == 0 {
		return 0
	}
	return max(f/us, n*f/(us+n*u))
}

// phases returns the names of the phases that have reads, in order of their
// first.
func (r *oneRun) phases() []string {
	var out []string
	for _, read := range r.Reads("") {
		if !slices.Contains(out, read.Phase) {
			out = append(out, read.Phase)
		}
	}
	return out
}

// sum adds up a metric over the instances.
func (r *oneRun) sum(name string) float64 {
	s := 0.0
	for _, v := range r.Metric(name) {
		s += v
	}
	return s
}

// percentile returns the q-th part of sorted values, 0 of none.
func percentile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

// sorted returns what f says of each read, smallest first.
func sorted(reads []plan.ReadRecord, f func(plan.ReadRecord) float64) []float64 {
	out := make([]float64, 0, len(reads))
	for _, r := range reads {
		if r.Err == "" {
			out = append(out, f(r))
		}
	}
	slices.Sort(out)
	return out
}

func first(r plan.ReadRecord) float64 { return r.FirstMs }
func whole(r plan.ReadRecord) float64 { return r.WholeMs }

// number writes a figure with three digits that count.
func number(v float64) string {
	switch {
	case v == math.Trunc(v) && math.Abs(v) < 1e15:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case math.Abs(v) >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	default:
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
}

// byName sorts the keys of a map.
func byName[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.SortFunc(out, cmp.Compare)
	return out
}
