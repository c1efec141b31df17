package locate

import "github.com/p2pnode/p2pnode/internal/content"

// queue is the order in which tasks are evicted: as they came, but one that was
// updated or read since it was last looked at goes to the end again.
type queue struct {
	slots []queued
	head  int
}

// queued names one life of a task in the map: born tells it from a later one.
type queued struct {
	task       content.TaskID
	born, used uint64
}

// maxSecondChances bounds the search for a task that was not used.
const maxSecondChances = 64

func (q *queue) push(task content.TaskID, born, used uint64) {
	q.slots = append(q.slots, queued{task, born, used})
}

// oldest takes out the task to evict; t is not empty.
func (q *queue) oldest(t *table) *entry {
	for chances := 0; ; {
		slot := q.slots[q.head]
		q.head++
		e := t.get(slot.task)
		if e == nil || e.born != slot.born {
			continue
		}
		used := e.used.Load()
		if used == slot.used || chances == maxSecondChances {
			return e
		}
		chances++
		q.push(slot.task, slot.born, used)
	}
}

// compact drops what has been taken out, and the tasks that have gone, once
// they are more than half.
func (q *queue) compact(t *table) {
	if len(q.slots) < 2*t.n+1024 {
		return
	}
	kept := make([]queued, 0, t.n)
	for _, slot := range q.slots[q.head:] {
		if e := t.get(slot.task); e != nil && e.born == slot.born {
			kept = append(kept, slot)
		}
	}
	q.slots, q.head = kept, 0
}
