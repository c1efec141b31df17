package supernode

import (
	"cmp"
	"container/heap"
	"container/list"

	"github.com/libp2p/go-libp2p/core/peer"
)

// shares says for each task whose it is of those who reported it: the first one's,
// until the table is full and another that holds it has fewer. So the table can
// give up a task of whoever has most. The zero value has no tasks. Not safe for
// concurrent use.
type shares struct {
	byPeer map[peer.ID]*reporter
	most   heaviest
}

// reporter is a peer that has tasks: its own, those of the latest news first.
type reporter struct {
	of    peer.ID
	tasks list.List // of *task
	index int       // in shares.most
}

// add makes a task, which is nobody's, one of a peer's.
func (s *shares) add(t *task, of peer.ID) {
	mine, ok := s.byPeer[of]
	if !ok {
		if s.byPeer == nil {
			s.byPeer = make(map[peer.ID]*reporter)
		}
		mine = &reporter{of: of}
		s.byPeer[of] = mine
		heap.Push(&s.most, mine)
	}
	t.reporter, t.place = mine, mine.tasks.PushFront(t)
	heap.Fix(&s.most, mine.index)
}

// remove makes a task nobody's.
func (s *shares) remove(t *task) {
	old := t.reporter
	old.tasks.Remove(t.place)
	t.reporter, t.place = nil, nil
	if old.tasks.Len() > 0 {
		heap.Fix(&s.most, old.index)
		return
	}
	heap.Remove(&s.most, old.index)
	delete(s.byPeer, old.of)
}

// touch notes that there was news of a task.
func (s *shares) touch(t *task) { t.reporter.tasks.MoveToFront(t.place) }

// victim returns the task to give up, of at least one, so that a peer can have
// another: the one of the oldest news of whoever has most, which is that peer
// itself where it has as many. It costs a look at the task's holders, and one more
// for each task that it makes another holder's.
func (s *shares) victim(of peer.ID) *task {
	for {
		from := s.most[0]
		if mine := s.byPeer[of]; mine != nil && mine.tasks.Len() == from.tasks.Len() {
			from = mine
		}
		t := from.tasks.Back().Value.(*task)
		to, ok := s.lighter(t)
		if !ok {
			return t
		}
		s.remove(t)
		s.add(t, to)
	}
}

// lighter returns the holder of a task that has fewest tasks, where that is at
// least two less than those of whose it is.
func (s *shares) lighter(t *task) (holder peer.ID, ok bool) {
	fewest := t.reporter.tasks.Len() - 1
	for id := range t.holders {
		if n := s.count(id); cmp.Or(cmp.Compare(n, fewest), cmp.Compare(id, holder)) < 0 {
			holder, fewest, ok = id, n, true
		}
	}
	return holder, ok
}

// count returns how many tasks are a peer's.
func (s *shares) count(of peer.ID) int {
	if mine := s.byPeer[of]; mine != nil {
		return mine.tasks.Len()
	}
	return 0
}

// heaviest is a heap (container/heap) with the one that has most tasks first.
type heaviest []*reporter

func (h heaviest) Len() int           { return len(h) }
func (h heaviest) Less(i, j int) bool { return h[i].tasks.Len() > h[j].tasks.Len() }

func (h heaviest) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *heaviest) Push(s any) {
	s.(*reporter).index = len(*h)
	*h = append(*h, s.(*reporter))
}

// Pop implements heap.Interface.
func (h *heaviest) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return s
}
