package assignment

import (
	"cmp"
	"slices"

	"google.golang.org/protobuf/proto"
)

// headroom is what an update has besides its assigns or its page, at most.
const headroom = 64

// Split cuts assignments into runs that each fit one update, in order. The runs
// share the array of assigns.
func Split(assigns []Assign) [][]Assign {
	return cut(assigns, MaxAssigns, 0, func(a Assign) int { return proto.Size(assignToProto(a)) })
}

// ByShard orders assignments by the shard of their tasks, and cuts them where it
// changes: an update has assignments of one shard.
func ByShard(assigns []Assign, shards int) [][]Assign {
	if shards == 1 {
		return [][]Assign{assigns}
	}
	sorted := slices.Clone(assigns)
	shard := func(a Assign) int { return a.Task.Shard(shards) }
	slices.SortStableFunc(sorted, func(a, b Assign) int { return cmp.Compare(shard(a), shard(b)) })
	var out [][]Assign
	for start, i := 0, 1; i <= len(sorted); i++ {
		if i == len(sorted) || shard(sorted[i]) != shard(sorted[start]) {
			out = append(out, sorted[start:i:i])
			start = i
		}
	}
	return out
}

// Pages cuts a whole pool into the pages to publish, each in an update of its
// own, with consecutive sequence numbers. No members make one empty page. The
// first tells filterQuery, a filter's names.
func Pages(members []Member, filterQuery ...string) []PoolPage {
	first := 0
	for _, name := range filterQuery {
		first += 1 + uvarintLen(len(name)) + len(name)
	}
	parts := cut(members, MaxPool, first, func(m Member) int { return proto.Size(memberToProto(m)) })
	if len(parts) == 0 {
		parts = append(parts, nil)
	}
	pages := make([]PoolPage, len(parts))
	for i, p := range parts {
		pages[i] = PoolPage{Page: i, Pages: len(parts), Members: p}
	}
	pages[0].FilterQuery = filterQuery
	return pages
}

// cut splits items into runs of at most limit items whose sizes, each with its
// tag and length, fit an update; the first leaves room for some bytes more.
func cut[T any](items []T, limit, first int, size func(T) int) [][]T {
	var out [][]T
	start, sum := 0, first
	for i, item := range items {
		n := size(item)
		n += 1 + uvarintLen(n)
		if i > start && (sum+n > MaxUpdate-headroom || i-start == limit) {
			out = append(out, items[start:i:i])
			start, sum = i, 0
		}
		sum += n
	}
	if start < len(items) {
		out = append(out, items[start:])
	}
	return out
}
