package assignment

import (
	"bytes"
	"slices"
)

// RunCount is the number of runs into which the stripes of a file are cut for
// Assign.Excluded: single stripes up to a file of 255, longer runs beyond.
const RunCount = 255

// Runs is a set of runs of stripes, one bit each, least significant bit first.
// The last bit is that of no run: it marks a seed that owns nothing, see
// AllRuns. The zero value is the empty set. Sets compare with ==.
type Runs [(RunCount + 1) / 8]byte

// AllRuns is every bit: that of a seed that leaves all runs to others, whatever
// is begun, and holds copies for its site.
var AllRuns = Runs(bytes.Repeat([]byte{0xff}, len(Runs{})))

// RunOf returns the run that a stripe of a file of so many stripes is in. Where
// the number of stripes is not known it is -1, and runs mean nothing but all
// or none.
func RunOf(stripe, stripes int64) int {
	if stripes > RunCount {
		stripe = stripe * RunCount / stripes
	}
	return int(min(max(stripe, 0), RunCount-1))
}

// Has reports whether a run is in the set.
func (r *Runs) Has(run int) bool { return r[run/8]&(1<<(run%8)) != 0 }

// Add puts a run into the set.
func (r *Runs) Add(run int) { r[run/8] |= 1 << (run % 8) }

// Or returns the union of two sets.
func (r Runs) Or(o Runs) Runs {
	for i := range r {
		r[i] |= o[i]
	}
	return r
}

// And returns what is in both sets.
func (r Runs) And(o Runs) Runs {
	for i := range r {
		r[i] &= o[i]
	}
	return r
}

// Without returns what is in r and not in o.
func (r Runs) Without(o Runs) Runs {
	for i := range r {
		r[i] &^= o[i]
	}
	return r
}

// trimmed returns the bytes up to the last that is not zero.
func (r *Runs) trimmed() []byte { return bytes.TrimRight(r[:], "\x00") }

// excluded returns the sets as the wire has them: none where all are empty.
func (a *Assign) excluded() [][]byte {
	if !slices.ContainsFunc(a.Excluded, func(r Runs) bool { return r != Runs{} }) {
		return nil
	}
	out := make([][]byte, len(a.Excluded))
	for i := range a.Excluded {
		out[i] = a.Excluded[i].trimmed()
	}
	return out
}

// whole returns the marks as the wire has them: none where no seed has one.
func (a *Assign) whole() []byte {
	var bits [(MaxSeeds + 7) / 8]byte
	for i, yes := range a.Whole {
		if yes && i < MaxSeeds {
			bits[i/8] |= 1 << (i % 8)
		}
	}
	return bytes.TrimRight(bits[:], "\x00")
}
