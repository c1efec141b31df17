package assignment

import (
	"math/rand/v2"
	"testing"
)

func TestWindow(t *testing.T) {
	a, b := testID(t, 1), testID(t, 2)
	for _, c := range []struct {
		name  string
		seen  []Cursor
		c     Cursor
		fresh bool
	}{
		{"first", nil, Cursor{a, 5, 9}, true},
		{"twice", []Cursor{{a, 5, 9}}, Cursor{a, 5, 9}, false},
		{"of another supernode", []Cursor{{b, 5, 9}}, Cursor{a, 5, 9}, true},
		{"out of order", []Cursor{{a, 5, 9}}, Cursor{a, 5, 8}, true},
		{"old epoch", []Cursor{{a, 5, 9}}, Cursor{a, 4, 10}, false},
		{"new epoch, same number", []Cursor{{a, 5, 9}}, Cursor{a, 6, 9}, true},
		{"last in the window", []Cursor{{a, 5, windowSize + 9}}, Cursor{a, 5, 10}, true},
		{"just behind the window", []Cursor{{a, 5, windowSize + 9}}, Cursor{a, 5, 9}, false},
		{"same bit, a window later", []Cursor{{a, 5, 9}, {a, 5, windowSize + 10}}, Cursor{a, 5, windowSize + 9}, true},
		{"same bit, after a jump", []Cursor{{a, 5, 9}, {a, 5, 3*windowSize + 10}}, Cursor{a, 5, 3*windowSize + 9}, true},
		{"highest number", []Cursor{{a, 5, 1<<64 - 2}}, Cursor{a, 5, 1<<64 - 1}, true},
		{"behind the highest number", []Cursor{{a, 5, 1<<64 - 1}}, Cursor{a, 5, 1}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var w windows
			for _, s := range c.seen {
				if !w.mark(s) {
					t.Fatalf("%v is not fresh", s)
				}
			}
			if got := w.fresh(c.c); got != c.fresh {
				t.Errorf("fresh %v", got)
			}
			if got := w.mark(c.c); got != c.fresh {
				t.Errorf("mark %v", got)
			}
			if w.fresh(c.c) {
				t.Error("still fresh")
			}
		})
	}
}

func TestWindowAgainstASet(t *testing.T) {
	var w windows
	id := testID(t, 1)
	seen := map[uint64]bool{}
	var top uint64
	for range 50_000 {
		seq := uint64(max(1, int64(top)+rand.Int64N(3*windowSize)-2*windowSize+windowSize/2))
		want := !seen[seq] && seq+windowSize > top
		if got := w.mark(Cursor{id, 1, seq}); got != want {
			t.Fatalf("mark %d with top %d: %v, want %v", seq, top, got, want)
		}
		seen[seq] = true
		top = max(top, seq)
	}
}

func TestWindowsAreBounded(t *testing.T) {
	var w windows
	for n := range byte(200) {
		if !w.mark(Cursor{testID(t, n), 1, 1}) {
			t.Fatalf("supernode %d is not fresh", n)
		}
	}
	if len(w.by) != maxWindows {
		t.Errorf("%d windows", len(w.by))
	}
}
