package origin

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
	"net/url"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/p2pnode/p2pnode/internal/content"
)

// metadata stands for a block in the budget of requests for the metadata alone.
const metadata = -1

// blockKey names what has a budget: a block of a task, for everybody where who
// is 0, else for those who ask with the same URL, credentials and generation.
type blockKey struct {
	task  content.TaskID
	block int64
	who   uint64
}

// record is what is known of a blockKey.
type record struct {
	fails    []failure // of the last Period, oldest first, at most BlockFailures
	furthest int64     // where a body got, at best, before it broke
	inFlight int
	wake     chan struct{} // closed when a place may be free
}

type failure struct {
	at  time.Time
	err error
}

// taskState is what is known of a task.
type taskState struct {
	// sequential: the origin sends it from its first byte or not at all, so that
	// the whole file has one budget.
	sequential bool
	until      time.Time // not to be asked for before
	last       error     // what said so
}

// ledger keeps the failures of blocks. Requests on their way count as failures
// until they have succeeded, so that no number of callers exceeds the budget.
type ledger struct {
	limits  Limits
	now     func() time.Time
	seed    maphash.Seed
	metrics *metrics

	mu sync.Mutex
	// mu guards the following, with all that is in them.
	records *simplelru.LRU[blockKey, *record]
	tasks   *simplelru.LRU[content.TaskID, *taskState]
}

func newLedger(limits Limits, now func() time.Time, m *metrics) *ledger {
	return &ledger{
		limits: limits, now: now, seed: maphash.MakeSeed(), metrics: m,
		records: newLRU[blockKey, *record](limits.Blocks),
		tasks:   newLRU[content.TaskID, *taskState](limits.Tasks),
	}
}

func newLRU[K comparable, V any](size int) *simplelru.LRU[K, V] {
	l, err := simplelru.NewLRU[K, V](max(1, size), nil)
	if err != nil {
		panic("origin: " + err.Error()) // it wants a positive size
	}
	return l
}

// ticket is the leave for one attempt. The first of good, drop, fail and broke
// ends it; the others have no effect after that.
type ticket struct {
	ledger      *ledger
	task        content.TaskID
	who         uint64
	asked       content.Range // what may be asked for: no more than was wanted
	first, last int64         // the blocks of asked
	sequential  bool
	need        int // requests that it may take, if all is well
	resumed     bool

	// The ledger's mu guards the following.
	place    *record // where the ticket counts as in flight; nil after it does not
	places   int     // for how many requests it counts there
	requests int     // sent so far
	ended    bool
}

// taskOf names the task of a request that does not.
func taskOf(r Request) content.TaskID {
	switch u, err := url.Parse(r.URL); {
	case r.Task != content.TaskID{}:
		return r.Task
	case r.Digest != "":
		return sha256.Sum256([]byte(r.Digest))
	case err != nil:
		return sha256.Sum256([]byte(r.URL))
	default:
		return sha256.Sum256([]byte(bareURL(u)))
	}
}

// who tells requests apart that the origin may answer otherwise. It cannot be
// turned back into credentials, and is of no use to another process.
func (l *ledger) who(r Request) uint64 {
	var h maphash.Hash
	h.SetSeed(l.seed)
	text := func(s string) {
		_, _ = h.Write(binary.AppendUvarint(nil, uint64(len(s)))) // it never fails
		_, _ = h.WriteString(s)
	}
	text(r.URL)
	text(string(r.Expect[:]))
	for _, name := range credentials {
		for _, v := range r.Header.Values(name) {
			text(name)
			text(v)
		}
	}
	return h.Sum64() | 1
}

// ticketFor makes a ticket that counts nowhere.
func (l *ledger) ticketFor(r Request) *ticket {
	t := &ticket{ledger: l, task: taskOf(r), who: l.who(r), need: 1, resumed: r.resumed}
	if r.head {
		t.first, t.last = metadata, metadata
		t.need = min(2, l.limits.BlockFailures) // HEAD may be refused
		return t
	}
	if r.Range.Len > 0 {
		t.asked = r.Range
		first, end := content.BlockSpan(r.Range)
		t.first, t.last = first, max(first, end-1)
	}
	return t
}

// admit waits for a place and returns leave to ask for r.Range or the first part
// of it, or a *BudgetError at once where the budget is spent. A block with a
// failure on record is asked for alone, so that it fails for itself alone.
func (l *ledger) admit(ctx context.Context, r Request) (*ticket, error) {
	t := l.ticketFor(r)
	for {
		wake, err := l.enter(t)
		if err != nil {
			l.metrics.refused.WithLabelValues(string(err.Reason)).Inc()
			return nil, err
		}
		if wake == nil {
			return t, nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// refused returns why a request would be refused now, nil if it would not.
func (l *ledger) refused(r Request) *BudgetError {
	t := l.ticketFor(r)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settle(t)
	return l.refusal(t)
}

// enter takes a place, or returns what to wait for.
func (l *ledger) enter(t *ticket) (<-chan struct{}, *BudgetError) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settle(t)
	if err := l.refusal(t); err != nil {
		return nil, err
	}
	rec := l.record(t.key(t.first))
	if rec.inFlight+t.need+l.failures(t) > l.limits.BlockFailures {
		if rec.wake == nil {
			rec.wake = make(chan struct{})
		}
		return rec.wake, nil
	}
	rec.inFlight += t.need
	t.place, t.places = rec, t.need
	if !t.sequential {
		l.narrow(t)
	}
	return nil, nil
}

// settle says by what is known of the task now what t's blocks are.
func (l *ledger) settle(t *ticket) {
	if s, ok := l.tasks.Peek(t.task); ok && s.sequential && t.first != metadata {
		t.sequential, t.first, t.last = true, 0, 0
	}
}

// refusal says why what t needs is not to be had however long it waits for
// others; nil if it is.
func (l *ledger) refusal(t *ticket) *BudgetError {
	now := l.now()
	if s, ok := l.tasks.Get(t.task); ok && now.Before(s.until) {
		return &BudgetError{Reason: ReasonRetryAfter, RetryAfter: s.until.Sub(now), Last: s.last}
	}
	if l.failures(t)+t.need <= l.limits.BlockFailures {
		return nil
	}
	return l.spent(t)
}

// spent is the refusal for the failures on record.
func (l *ledger) spent(t *ticket) *BudgetError {
	var oldest time.Time
	var newest failure
	for _, k := range []blockKey{t.key(t.first), t.own(t.first)} {
		rec, ok := l.records.Peek(k)
		if !ok || len(rec.fails) == 0 {
			continue
		}
		if first := rec.fails[0].at; oldest.IsZero() || first.Before(oldest) {
			oldest = first
		}
		if f := rec.fails[len(rec.fails)-1]; newest.err == nil || f.at.After(newest.at) {
			newest = f
		}
	}
	return &BudgetError{Reason: ReasonBlock, RetryAfter: oldest.Add(l.limits.Period).Sub(l.now()), Last: newest.err}
}

// failures counts those of t's first block that matter to t.
func (l *ledger) failures(t *ticket) int {
	return len(l.fails(t.key(t.first))) + len(l.fails(t.own(t.first)))
}

// fails returns the failures of the last Period, and forgets older ones.
func (l *ledger) fails(k blockKey) []failure {
	rec, ok := l.records.Get(k)
	if !ok {
		return nil
	}
	old := 0
	for since := l.now().Add(-l.limits.Period); old < len(rec.fails) && !rec.fails[old].at.After(since); old++ {
	}
	rec.fails = rec.fails[old:]
	if len(rec.fails) == 0 {
		rec.furthest = 0
	}
	return rec.fails
}

// tidy removes a record that says nothing.
func (l *ledger) tidy(k blockKey) {
	if rec, ok := l.records.Peek(k); ok && rec.inFlight == 0 && len(l.fails(k)) == 0 {
		l.records.Remove(k)
	}
}

func (l *ledger) record(k blockKey) *record {
	rec, ok := l.records.Get(k)
	if !ok {
		rec = &record{}
		l.records.Add(k, rec)
	}
	return rec
}

// narrow ends what is asked for before the next block with a failure on record,
// or after the first block where that one has.
func (l *ledger) narrow(t *ticket) {
	end, near := t.first+1, min(t.last, t.first+maxBlocks)
	if len(l.fails(t.key(t.first))) == 0 {
		for end <= near && len(l.fails(t.key(end))) == 0 {
			end++
		}
	}
	if end <= near {
		t.asked = content.Span(t.asked.Off, end*content.BlockSize)
		t.last = end - 1
	}
}

func (t *ticket) key(block int64) blockKey { return blockKey{task: t.task, block: block} }

func (t *ticket) own(block int64) blockKey {
	return blockKey{task: t.task, block: block, who: t.who}
}
