package assignment

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
)

func TestSplitFits(t *testing.T) {
	key, _ := testKey(t, 1)
	for name, assigns := range map[string][]Assign{
		"none":         nil,
		"one":          {testAssign(t)},
		"biggest":      {biggest(t), biggest(t), testAssign(t), biggest(t)},
		"many small":   make([]Assign, 3*MaxAssigns+1),
		"random sizes": randomAssigns(t, 400),
	} {
		t.Run(name, func(t *testing.T) {
			var all []Assign
			runs := Split(assigns)
			for _, run := range runs {
				u := Update{Cursor: Cursor{Epoch: 1<<63 - 1, Seq: 1<<64 - 1}, Floor: 1<<64 - 1, Assigns: run}
				if _, err := Sign(key, u); err != nil {
					t.Fatal(err)
				}
				all = append(all, run...)
			}
			if !reflect.DeepEqual(all, assigns) {
				t.Error("the runs are not the whole, in order")
			}
			if name == "many small" && len(runs) != 4 {
				t.Errorf("%d runs of %d small assigns", len(runs), len(assigns))
			}
		})
	}
}

func randomAssigns(t *testing.T, n int) []Assign {
	out := make([]Assign, n)
	for i := range out {
		out[i] = testAssign(t)
		out[i].URL = strings.Repeat("u", rand.IntN(8<<10))
	}
	return out
}

// Each part has the assignments of one shard, in the order in which they came, and
// none is lost or doubled.
func TestByShard(t *testing.T) {
	var assigns []Assign
	for i := range 300 {
		assigns = append(assigns, Assign{Task: content.TaskID{byte(i * 37), byte(i >> 8), byte(i)}})
	}
	before := slices.Clone(assigns)
	for _, shards := range []int{1, 2, 16, 256} {
		parts := ByShard(assigns, shards)
		if len(parts) != shards {
			t.Errorf("%d parts of %d shards", len(parts), shards)
		}
		n := 0
		for _, part := range parts {
			last := -1
			for _, a := range part {
				if a.Task.Shard(shards) != part[0].Task.Shard(shards) {
					t.Fatalf("%d shards: two in one part", shards)
				}
				at := slices.IndexFunc(before, func(b Assign) bool { return b.Task == a.Task })
				if at <= last {
					t.Fatalf("%d shards: number %d comes after %d", shards, at, last)
				}
				last = at
				n++
			}
		}
		if n != len(assigns) || !reflect.DeepEqual(assigns, before) {
			t.Errorf("%d shards: %d assigns of %d, or their order was changed", shards, n, len(assigns))
		}
	}
	for _, shards := range []int{1, 16} {
		for _, part := range ByShard(nil, shards) {
			if len(part) > 0 {
				t.Errorf("of none came %d", len(part))
			}
		}
	}
}

func TestPages(t *testing.T) {
	key, _ := testKey(t, 1)
	var filter []string // of the largest size
	for i := range content.MaxFilterNames {
		filter = append(filter, fmt.Sprintf("%015d", i))
	}
	for _, n := range []int{0, 1, 50, MaxPool} {
		var members []Member
		for i := range n {
			members = append(members, testMember(t, byte(i)))
		}
		pages := Pages(members, filter...)
		var all []Member
		for i, p := range pages {
			u := Update{Cursor: Cursor{Epoch: 7, Seq: uint64(100 + i)}, Pool: &p}
			s, err := Sign(key, u)
			if err != nil {
				t.Fatalf("%d members: %v", n, err)
			}
			if p.Page != i || p.Pages != len(pages) || u.PoolVersion() != 100 {
				t.Errorf("%d members: page %d of %d in the place of %d of %d, version %d", n, p.Page, p.Pages, i, len(pages), u.PoolVersion())
			}
			if s.Size() > MaxBatch {
				t.Errorf("%d members: %d bytes", n, s.Size())
			}
			all = append(all, p.Members...)
			if want := i == 0; slices.Equal(p.FilterQuery, filter) != want || len(p.FilterQuery) > 0 != want {
				t.Errorf("%d members: page %d has %d of the filter's names", n, i, len(p.FilterQuery))
			}
		}
		if len(pages) == 0 || !reflect.DeepEqual(all, members) {
			t.Errorf("%d members: %d pages hold %d", n, len(pages), len(all))
		}
	}
	if v := (Update{Cursor: Cursor{Seq: 5}}).PoolVersion(); v != 0 {
		t.Errorf("version %d without a page", v)
	}
}

func TestBatchesFit(t *testing.T) {
	for _, sizes := range [][]int{nil, {10}, {MaxUpdate}, {MaxUpdate, MaxUpdate}, {10, MaxUpdate, 10, 10}, slices.Repeat([]int{900}, 100)} {
		var entries, all []Signed
		for _, n := range sizes {
			entries = append(entries, Signed{Raw: make([]byte, n), Supernode: testID(t, 1), Sig: make([]byte, 64)})
		}
		for _, batch := range batches(entries) {
			sum := 0
			for _, s := range batch {
				sum += s.Size()
			}
			if sum > MaxBatch || len(batch) == 0 {
				t.Errorf("%v: batch of %d entries, %d bytes", sizes, len(batch), sum)
			}
			all = append(all, batch...)
		}
		if !reflect.DeepEqual(all, entries) {
			t.Errorf("%v: entries lost or out of order", sizes)
		}
	}
}
