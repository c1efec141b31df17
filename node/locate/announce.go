package locate

import (
	"container/heap"
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/p2pnode/p2pnode/internal/content"
)

// Pace of announcing. A record in the DHT is good for an hour.
const (
	maxProvided    = 100_000
	reprovideEvery = 20 * time.Minute
	provideWorkers = 8
	provideTimeout = 30 * time.Second
	minRetry       = time.Second
	maxRetry       = 5 * time.Minute
)

// announcement is one task that this node provides. The Providers' mu guards
// all of it.
type announcement struct {
	task     content.TaskID
	at       time.Time
	failures int
	why      Reason
	index    int // in the schedule; -1 while being announced
}

// schedule is a heap of announcements, the next one due first.
type schedule []*announcement

// Len is for container/heap.
func (s schedule) Len() int { return len(s) }

// Less is for container/heap.
func (s schedule) Less(i, j int) bool { return s[i].at.Before(s[j].at) }

// Swap is for container/heap.
func (s schedule) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].index, s[j].index = i, j
}

// Push is for container/heap.
func (s *schedule) Push(x any) {
	a := x.(*announcement)
	a.index = len(*s)
	*s = append(*s, a)
}

// Pop is for container/heap.
func (s *schedule) Pop() any {
	last := len(*s) - 1
	a := (*s)[last]
	(*s)[last] = nil
	*s = (*s)[:last]
	a.index = -1
	return a
}

// Reason is why a task is announced; several may hold at once.
type Reason uint8

// Reasons to announce a task.
const (
	// Duty: this node is a seed of the task.
	Duty Reason = 1 << iota
	// Whole: it holds the whole file.
	Whole
)

// Add announces the task now and again every 20 minutes, until Remove has taken
// away every reason. It does not block. It reports false, and does nothing,
// where 100,000 tasks are announced already: these are still found through the
// seed map.
func (p *Providers) Add(task content.TaskID, why Reason) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.added[task]; a != nil {
		a.why |= why
		return true
	}
	if len(p.added) >= maxProvided {
		return false
	}
	a := &announcement{task: task, at: time.Now(), why: why}
	p.added[task] = a
	p.metrics.provided.Set(float64(len(p.added)))
	p.push(a)
	return true
}

// Remove takes reasons away, and with the last one stops announcing the task.
// What the DHT knows of it expires there.
func (p *Providers) Remove(task content.TaskID, why Reason) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.added[task]
	if a == nil {
		return
	}
	if a.why &^= why; a.why != 0 {
		return
	}
	delete(p.added, task)
	p.metrics.provided.Set(float64(len(p.added)))
	if a.index >= 0 {
		heap.Remove(&p.due, a.index)
	}
}

// push schedules a, the caller holding mu.
func (p *Providers) push(a *announcement) {
	heap.Push(&p.due, a)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run announces what was added until ctx ends, at most eight tasks at a time;
// what fails is tried again after a second, doubled up to five minutes. It
// returns nil when all it started have ended.
func (p *Providers) Run(ctx context.Context) error {
	if p.router == nil {
		<-ctx.Done()
		return nil
	}
	var workers errgroup.Group
	workers.SetLimit(provideWorkers)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		a, wait := p.next()
		if a != nil {
			workers.Go(func() error {
				p.announce(ctx, a)
				return nil
			})
			continue
		}
		timer.Reset(wait)
		select {
		case <-p.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return workers.Wait()
}

// next takes the announcement that is due off the schedule, or says how long
// there is none.
func (p *Providers) next() (*announcement, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.due) == 0 {
		return nil, reprovideEvery
	}
	if wait := time.Until(p.due[0].at); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&p.due).(*announcement), 0
}

func (p *Providers) announce(ctx context.Context, a *announcement) {
	asked, cancel := context.WithTimeout(ctx, provideTimeout)
	err := p.router.Provide(asked, a.task.CID(), true)
	cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	wait := reprovideEvery
	if err == nil {
		a.failures = 0
		p.metrics.provides.WithLabelValues("ok").Inc()
	} else {
		wait = min(minRetry<<min(a.failures, 16), maxRetry)
		a.failures++
		if ctx.Err() == nil {
			p.metrics.provides.WithLabelValues("failed").Inc()
			p.logger.Debug("task not announced", "task", a.task, "attempt", a.failures, "retry_in", wait, "err", err)
		}
	}
	if p.added[a.task] == a { // not removed meanwhile
		a.at = time.Now().Add(jittered(wait))
		p.push(a)
	}
}
