package report

import (
	"container/list"
	"slices"

	"github.com/p2pnode/p2pnode/internal/content"
)

// news says what an item tells of the blocks of a task.
type news uint8

const (
	unchanged news = iota // nothing: the item is about demand
	isHeld
	isDropped
)

// item is what is to be said of one task: that it is held, or that it no longer
// is, or how it was read.
type item struct {
	news   news
	held   Held   // of isHeld; else only its Task
	demand Demand // its Task is held's; nothing where nobody read
}

// add takes the place of an older item, whose demand it takes over, and what it
// says of blocks where this one says nothing.
func (it *item) add(old item) {
	if it.news == unchanged {
		it.news, it.held = old.news, old.held
	}
	it.demand.Bytes += old.demand.Bytes
	if len(old.demand.Readers) == 0 {
		return
	}
	readers := append(slices.Clone(old.demand.Readers), it.demand.Readers...)
	slices.Sort(readers)
	readers = slices.Compact(readers)
	it.demand.Readers = readers[:min(len(readers), maxReaders)]
}

// queue is what waits to be reported, one item a task, oldest first. Not safe
// for concurrent use.
type queue struct {
	order *list.List // of item
	by    map[content.TaskID]*list.Element
}

func newQueue() queue {
	return queue{order: list.New(), by: make(map[content.TaskID]*list.Element)}
}

// put takes an item in the place of what waits for its task. It reports whether
// the oldest item had to go to make room.
func (q *queue) put(it item) (lost bool) {
	if e, ok := q.by[it.held.Task]; ok {
		it.add(e.Value.(item))
		e.Value = it
		return false
	}
	if len(q.by) >= MaxQueue {
		q.pop()
		lost = true
	}
	q.by[it.held.Task] = q.order.PushBack(it)
	return lost
}

// oldest returns the item that pop would take.
func (q *queue) oldest() (item, bool) {
	e := q.order.Front()
	if e == nil {
		return item{}, false
	}
	return e.Value.(item), true
}

func (q *queue) pop() {
	it := q.order.Remove(q.order.Front()).(item)
	delete(q.by, it.held.Task)
}

func (q *queue) len() int { return len(q.by) }
