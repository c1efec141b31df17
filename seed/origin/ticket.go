package origin

import (
	"errors"
	"fmt"
	"slices"

	"github.com/p2pnode/p2pnode/internal/content"
)

// sent counts a request that goes out: all of them are charged if it fails.
func (t *ticket) sent() {
	t.ledger.mu.Lock()
	defer t.ledger.mu.Unlock()
	t.requests++
}

// another asks for leave to send one more request for the same, after the first
// came to nothing.
func (t *ticket) another() error {
	l := t.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.requests < t.places {
		return nil
	}
	failures := l.failures(t)
	switch {
	case t.place != nil && t.place.inFlight+1+failures <= l.limits.BlockFailures:
		t.place.inFlight++
		t.places++
		return nil
	case failures == 0:
		return fmt.Errorf("%w: too many others ask for the same to try once more", ErrUnreachable)
	}
	err := l.spent(t)
	l.metrics.refused.WithLabelValues(string(err.Reason)).Inc()
	return err
}

// isSequential says that the origin has no ranges: the whole file is now one
// unit, which is charged as its first block.
func (t *ticket) isSequential() {
	l := t.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	l.task(t.task).sequential = true
	t.sequential = t.first != metadata
}

func (l *ledger) task(id content.TaskID) *taskState {
	s, ok := l.tasks.Get(id)
	if !ok {
		s = &taskState{}
		l.tasks.Add(id, s)
	}
	return s
}

// delivered says that all wanted of a block has come: its failures are past.
func (t *ticket) delivered(block int64) {
	t.ledger.mu.Lock()
	defer t.ledger.mu.Unlock()
	if t.sequential || t.first == metadata {
		return // only good tells
	}
	t.clear(block)
}

// clear forgets the failures of a block; the ledger's mu is held.
func (t *ticket) clear(block int64) {
	l := t.ledger
	if block == t.first {
		t.leave()
	}
	for _, k := range []blockKey{t.key(block), t.own(block)} {
		if rec, ok := l.records.Peek(k); ok {
			rec.fails, rec.furthest = nil, 0
			l.tidy(k)
		}
	}
}

// leave frees the ticket's place; the ledger's mu is held.
func (t *ticket) leave() {
	rec := t.place
	if rec == nil {
		return
	}
	t.place = nil
	rec.inFlight -= t.places
	if rec.wake != nil {
		close(rec.wake)
		rec.wake = nil
	}
	t.ledger.tidy(t.key(t.first))
}

// good ends the ticket with all that was asked for; entire says that it was the
// whole file.
func (t *ticket) good(entire bool) {
	t.ledger.mu.Lock()
	defer t.ledger.mu.Unlock()
	if entire || !t.sequential {
		t.clear(t.unit(t.last))
	}
	t.ended = true
	t.leave()
}

// drop ends the ticket without an outcome.
func (t *ticket) drop() {
	t.ledger.mu.Lock()
	defer t.ledger.mu.Unlock()
	t.ended = true
	t.leave()
}

// unit is the block that failures of a block are charged to.
func (t *ticket) unit(block int64) int64 {
	if t.sequential && t.first != metadata {
		return 0
	}
	return block
}

// fail ends the ticket and charges the failure of an attempt that brought
// nothing: to each of the blocks that it asked for, since any may be the cause;
// those that are not are cleared as they come.
func (t *ticket) fail(err error) {
	l := t.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.ended {
		return
	}
	t.ended = true
	b := blameOf(err)
	if refused := (*BudgetError)(nil); errors.As(err, &refused) && t.requests > 0 {
		b, err = blameBlock, refused.Last // it came to nothing half-way
	}
	if b == blameRequest && t.resumed {
		b = blameBlock // it is no answer to what the reader asked
	}
	switch b {
	case blameRequest:
		l.charge(t.own(t.unit(t.first)), err, t.requests)
	case blameBlock:
		l.charge(t.key(t.unit(t.first)), err, t.requests)
		for b := t.first + 1; b <= t.last && b < t.first+maxBlocks && !t.sequential; b++ {
			l.charge(t.key(b), err, 1)
		}
		l.holdTask(t.task, err)
	}
	t.leave()
}

// broke ends the ticket and charges a body that ended before byte pos of the
// file: to that byte's block. It replaces the charge before where it came
// further by a good piece, since the caller goes on from there.
func (t *ticket) broke(pos int64, err error) {
	l := t.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.ended {
		return
	}
	t.ended = true
	if blameOf(err) == blameBlock {
		k := t.key(t.unit(pos / content.BlockSize))
		rec := l.record(k)
		furthest := pos
		if fails := l.fails(k); len(fails) > 0 {
			if pos >= rec.furthest+progress {
				rec.fails = fails[:len(fails)-1]
			}
			furthest = max(rec.furthest, pos)
		}
		l.charge(k, err, 1)
		rec.furthest = furthest
	}
	t.leave()
}

// charge records n failures.
func (l *ledger) charge(k blockKey, err error, n int) {
	l.fails(k) // forgets old ones
	rec := l.record(k)
	for range min(max(n, 1), l.limits.BlockFailures) {
		rec.fails = append(rec.fails, failure{l.now(), err})
	}
	if over := len(rec.fails) - l.limits.BlockFailures; over > 0 {
		rec.fails = slices.Clone(rec.fails[over:])
	}
}

// holdTask leaves a task alone for as long as the origin asked.
func (l *ledger) holdTask(id content.TaskID, err error) {
	if d := asksToWait(err); d > 0 {
		s := l.task(id)
		s.until, s.last = l.now().Add(l.limits.hold(d)), err
	}
}
