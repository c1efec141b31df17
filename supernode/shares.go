package supernode

import (
	"cmp"
	"container/heap"
	"container/list"

	"github.com/libp2p/go-libp2p/core/peer"
)

// maxHandover bounds what one report spends on making tasks another's, in holders
// looked at: some 1 ms. Without it the first report of a third peer took 8 to 20 ms
// where two held the same 65,536 tasks, 200 to 300 ms where 64 did.
const maxHandover = 8192

// shares says for each task whose it is of those who reported it: the first one's,
// until the table is full and another that holds it has fewer. So the table can
// give up a task of whoever has most. The zero value has no tasks. Not safe for
// concurrent use.
type shares struct {
	byPeer map[peer.ID]*reporter
	most   heaviest
	left   int // of maxHandover; see spend
}

// reporter is a peer that has tasks.
type reporter struct {
	of peer.ID
	// news lists the tasks of which there was news since they are this peer's, handed
	// those that another gave up to it before. Both have the latest news first.
	news, handed list.List // of *task
	index        int       // in shares.most
}

func (r *reporter) count() int { return r.news.Len() + r.handed.Len() }

// oldest returns the task of the oldest news, of at least one.
func (r *reporter) oldest() *task {
	news, handed := r.news.Back(), r.handed.Back()
	if news == nil || handed != nil && !handed.Value.(*task).seen.After(news.Value.(*task).seen) {
		return handed.Value.(*task)
	}
	return news.Value.(*task)
}

// add makes a task, which is nobody's, one of a peer's, with news.
func (s *shares) add(t *task, of peer.ID) {
	to := s.reporter(of)
	t.reporter, t.list, t.place = to, &to.news, to.news.PushFront(t)
	heap.Fix(&s.most, to.index)
}

// hand makes a task another peer's, where its news is as old as it was. Tasks that
// come in the order of their news, as all that one peer gives up do, cost no look at
// those that came before.
func (s *shares) hand(t *task, of peer.ID) {
	s.remove(t)
	to := s.reporter(of)
	at := to.handed.Front()
	for ; at != nil && at.Value.(*task).seen.After(t.seen) && s.left > 0; at = at.Next() {
		s.left--
	}
	t.reporter, t.list = to, &to.handed
	if at != nil {
		t.place = to.handed.InsertBefore(t, at)
	} else {
		t.place = to.handed.PushBack(t)
	}
	heap.Fix(&s.most, to.index)
}

// reporter returns a peer's, without tasks where it is new.
func (s *shares) reporter(of peer.ID) *reporter {
	mine, ok := s.byPeer[of]
	if !ok {
		if s.byPeer == nil {
			s.byPeer = make(map[peer.ID]*reporter)
		}
		mine = &reporter{of: of}
		s.byPeer[of] = mine
		heap.Push(&s.most, mine)
	}
	return mine
}

// remove makes a task nobody's.
func (s *shares) remove(t *task) {
	old := t.reporter
	t.list.Remove(t.place)
	t.reporter, t.list, t.place = nil, nil, nil
	if old.count() > 0 {
		heap.Fix(&s.most, old.index)
		return
	}
	heap.Remove(&s.most, old.index)
	delete(s.byPeer, old.of)
}

// touch notes that there was news of a task.
func (s *shares) touch(t *task) {
	if news := &t.reporter.news; t.list != news {
		t.list.Remove(t.place)
		t.list, t.place = news, news.PushFront(t)
		return
	}
	t.list.MoveToFront(t.place)
}

// spend lets the calls of victim that follow, for one report, make tasks another
// holder's.
func (s *shares) spend() { s.left = maxHandover }

// victim returns the task to give up, of at least one, so that a peer can have
// another: the one of the oldest news of whoever has most, which is that peer
// itself where it has as many. Where another holder has fewer it makes the task
// that one's instead, and looks again, until the report has spent what it may: then
// the task goes all the same, and the next reports go on.
func (s *shares) victim(of peer.ID) *task {
	for {
		from := s.most[0]
		if mine := s.byPeer[of]; mine != nil && mine.count() == from.count() {
			from = mine
		}
		t := from.oldest()
		if s.left <= 0 {
			return t
		}
		to, ok := s.lighter(t)
		if !ok {
			return t
		}
		s.left -= len(t.holders)
		s.hand(t, to)
	}
}

// lighter returns the holder of a task that has fewest tasks, where that is at
// least two less than those of whose it is.
func (s *shares) lighter(t *task) (holder peer.ID, ok bool) {
	fewest := t.reporter.count() - 1
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
		return mine.count()
	}
	return 0
}

// heaviest is a heap (container/heap) with the one that has most tasks first.
type heaviest []*reporter

func (h heaviest) Len() int           { return len(h) }
func (h heaviest) Less(i, j int) bool { return h[i].count() > h[j].count() }

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
