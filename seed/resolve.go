package seed

import (
	"context"
	"errors"
	"fmt"

	"github.com/p2pnode/p2pnode/internal/content"
)

// opened is a file, or what there is of one whose size is not known: the bytes
// that come, or where none are wanted its metadata.
type opened struct {
	file    *file
	grows   *growing
	unsized *Found
	release func()
}

// unsizedError says, within this package, that nobody knows a file's size yet.
type unsizedError struct {
	grows *growing // nil where only the metadata was asked
	found *Found
	// release lets go of grows, as growing.use has it; nil where that is over.
	release func()
}

// unsizedAs is the error for a file that grows, which is in use from now on.
func unsizedAs(g *growing) error {
	release, _ := g.use()
	return &unsizedError{grows: g, release: release}
}

func (e *unsizedError) Error() string { return "the size of the file is not known" }

// openAny is open, also for a file whose size is not known: who can do with that
// gets it as it comes, others get the file when all of it has come.
func (m *Manager) openAny(ctx context.Context, q *query, want content.Range) (opened, error) {
	for tries := 0; ; tries++ {
		f, release, err := m.open(ctx, q, want)
		var unsized *unsizedError
		if !errors.As(err, &unsized) {
			return opened{file: f, release: release}, err
		}
		q.known, q.knownSize, q.validate = content.Generation{}, 0, false
		g := unsized.grows
		switch {
		case tries > maxTries:
			if unsized.release != nil {
				unsized.release()
			}
			return opened{}, fmt.Errorf("%w: its size is not known", ErrUnavailable)
		case g == nil && q.unsized && want.Empty():
			return opened{unsized: unsized.found, release: func() {}}, nil
		case g == nil:
			if want.Empty() {
				want.Len = 1 // its bytes tell
			}
			continue
		}
		if unsized.release != nil && q.unsized && (q.expect.IsZero() || q.expect == g.gen) {
			return opened{grows: g, release: unsized.release}, nil
		}
		err = q.wait(ctx, g.done)
		if unsized.release != nil {
			unsized.release()
		}
		if err == nil {
			err = g.failure()
		}
		if err != nil && !errors.Is(err, errAbandoned) { // nobody followed it: it is begun anew
			return opened{}, err
		}
	}
}

// growingFor returns the file of unknown size that a query is about, if it is
// coming in just now.
func (m *Manager) growingFor(q *query) *growing {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.growingForLocked(q)
}

func (m *Manager) growingForLocked(q *query) *growing {
	g := m.growing[q.task.ID]
	if g == nil || g.failure() != nil || q.noFill && q.from == "" {
		return nil
	}
	if !q.expect.IsZero() && q.expect != g.gen && g.meta().Size < 0 {
		return nil // an older one
	}
	return g
}

// open returns the file of a task: the one that is held here, if it is of the
// wanted generation or current; else one job finds out for all who ask. release
// must be called when the caller has its holds, or wants none.
func (m *Manager) open(ctx context.Context, q *query, want content.Range) (f *file, release func(), err error) {
	if g := m.growingFor(q); g != nil {
		return nil, nil, unsizedAs(g)
	}
	held := m.held(q.task, q.expect)
	q.began, q.validate = m.cfg.Now(), !q.demand.Since.IsZero()
	release = func() {}
	if held != nil && q.permit != nil && held.task.Digest == "" && q.permit.generation == held.key.Generation && !held.private.Load() {
		m.closeUp(q.task, held.key) // a seed knows better
		held = nil
	}
	switch {
	case held == nil && q.noFill:
		return nil, nil, ErrNotFound
	case held == nil:
		f, release, err = m.find(ctx, q, want)
		if err == nil && q.expect.IsZero() && !m.meets(f, q) { // its source had it for long
			release()
			f, release, err = m.revalidate(ctx, q, f)
		}
	case q.noFill && q.from == "" && !m.current(held, q):
		return nil, nil, ErrNotFound
	case q.noFill || !q.expect.IsZero() || m.current(held, q):
		f = held
	default:
		f, release, err = m.revalidate(ctx, q, held)
	}
	if err == nil && m.mayBePublic(f, q) {
		release()
		q.demand.Since = m.cfg.Now()
		f, release, err = m.find(ctx, q, content.Range{})
	}
	if err == nil && !m.reads(f, q) {
		release()
		return nil, nil, ErrPrivate
	}
	if err == nil && !m.admits(f, q) {
		release()
		if q.noFill {
			return nil, nil, ErrNotFound
		}
		return nil, nil, fmt.Errorf("%w: it came from another upstream, and its digest is not checked yet", ErrNotSupported)
	}
	return f, release, err
}

// find finds out what a task's file is, and starts with the first block of want.
func (m *Manager) find(ctx context.Context, q *query, want content.Range) (f *file, release func(), err error) {
	for tries := 0; ; {
		r, err := m.resolve(q, want)
		if err != nil {
			return nil, nil, err
		}
		if r.grows != nil {
			return nil, nil, unsizedAs(r.grows)
		}
		if r.file != nil {
			return r.file, func() {}, nil
		}
		j := r.job
		if err := j.wait(ctx, q); err != nil {
			if r.joined {
				j.leave()
			}
			return nil, nil, err
		}
		if !r.joined {
			continue // it was abandoned a moment ago: start anew
		}
		if err = j.outcome(q); err == nil {
			q.found = j
			return j.file, j.leave, nil
		}
		j.leave()
		if unsized := (*unsizedError)(nil); errors.As(err, &unsized) {
			return nil, nil, err
		}
		if tries++; r.own || tries > maxTries || !j.failedAlone(q, want, err) {
			return nil, nil, err
		}
	}
}

// resolution is a file, where it is known by now, or the job that finds out what
// the file is. joined is false where that job is being abandoned; own says that
// it was started for the caller.
type resolution struct {
	file        *file
	grows       *growing
	job         *Job
	joined, own bool
}

// resolve joins the job that finds out what a task's file is, or starts it.
func (m *Manager) resolve(q *query, want content.Range) (resolution, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if j := m.resolves[q.task.ID]; j != nil {
		// One that asks less than we do is waited for: it may have asked enough.
		return resolution{job: j, joined: (j.Validate || !q.validate) && j.join(q.from)}, nil
	}
	if g := m.growingForLocked(q); g != nil {
		return resolution{grows: g}, nil
	}
	if f := m.heldLocked(q.task, q.expect); f != nil && (!q.expect.IsZero() || m.currentLocked(f, q)) {
		return resolution{file: f}, nil // a job has found it out a moment ago
	}
	// Who owns the second block depends on the size: it is asked for later.
	first := content.Range{Off: want.Off, Len: min(want.Len, 1)}.Align(content.BlockSize)
	j := m.newJob(*q, first)
	if err := m.startLocked(j); err != nil {
		return resolution{}, err
	}
	m.resolves[q.task.ID] = j
	return resolution{job: j, joined: true, own: true}, nil
}

// settle tells those who asked what the file is: it is known, or the job ended.
func (j *Job) settle() {
	j.decide.Do(func() { close(j.decided) })
	j.once.Do(func() {
		j.m.mu.Lock()
		if j.m.resolves[j.Task.ID] == j {
			delete(j.m.resolves, j.Task.ID)
		}
		j.m.mu.Unlock()
		close(j.settled)
	})
}

// wait waits until a job has settled. A peer that finds out what the file is
// himself, since we may be waiting for him, waits only for a job that asks the
// origin, or as Hold.refusal has it.
func (j *Job) wait(ctx context.Context, q *query) error {
	if err := q.wait(ctx, j.decided); err != nil {
		return err
	}
	if p, way, refusal := j.asksPeer(); q.from != "" && q.expect.IsZero() && q.origin.Size < 0 && j.m.bars(way, q, q.task.ID, 0) {
		return j.m.refused(q, 0, p, refusal)
	}
	return q.wait(ctx, j.settled)
}

// outcome is what a settled job means for one who joined it.
func (j *Job) outcome(q *query) error {
	switch {
	case j.grows != nil:
		return unsizedAs(j.grows)
	case j.unsized != nil:
		return &unsizedError{found: j.unsized}
	case j.file == nil:
		return j.err
	case !q.expect.IsZero() && q.expect != j.file.key.Generation:
		return fmt.Errorf("generation %s of %s, asked for %s: %w", j.file.key.Generation, q.task.URL, q.expect, ErrChanged)
	default:
		return nil
	}
}

// failedAlone reports whether a job's failure says nothing of what a job for q
// would have come to.
func (j *Job) failedAlone(q *query, want content.Range, err error) bool {
	var rng *RangeError
	switch {
	case errors.As(err, &rng):
		return want.Empty() || want.Off < rng.Size
	case j.refusedFor(q, err):
		return true
	case errors.Is(err, ErrChanged):
		return !j.Expect.IsZero() && j.Expect != q.expect
	default:
		return errors.Is(err, ErrUnavailable) && j.rights > q.rights()
	}
}
