package prefetch

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed"
)

// maxWaiting bounds the files that wait to be brought in; more are left out,
// until somebody reads them again.
const maxWaiting = 1024

// maxStripe is the largest stripe (DESIGN, words), and so the most that is
// brought in, and paid for, at once.
const maxStripe = 4 << 20

// Background brings the rest of files in of which a part was read. It gives way:
// a stripe is begun only while nothing is on its way that anybody asked for, and
// takes memory of the part that readers do not have (seed.File.Prefetch). A node
// whose readers never pause brings nothing in.
type Background struct {
	p     *Prefetcher
	may   func(ctx context.Context) error
	limit *rate.Limiter
	tasks int
	queue chan waiting

	mu sync.Mutex
	// mu guards the following: the files that wait or are being brought in.
	known map[content.TaskID]struct{}
}

type waiting struct {
	url  string
	task content.TaskID
}

// NewBackground returns a Background that brings in so many files at a time, all
// together at bytesPerSecond in the mean (0: any), of what peers and origins send.
// may waits until the next stripe may be begun, or returns an error when ctx ends.
// It starts nothing.
func NewBackground(p *Prefetcher, tasks int, bytesPerSecond int64, may func(ctx context.Context) error) *Background {
	limit := rate.Inf
	if bytesPerSecond > 0 {
		limit = rate.Limit(bytesPerSecond)
	}
	return &Background{
		p: p, may: may, limit: rate.NewLimiter(limit, maxStripe), tasks: tasks,
		queue: make(chan waiting, maxWaiting), known: map[content.TaskID]struct{}{},
	}
}

// Add has the rest of a file brought in, some time. It does not block.
func (b *Background) Add(url string, task content.TaskID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.known[task]; known {
		return
	}
	select {
	case b.queue <- waiting{url, task}:
		b.known[task] = struct{}{}
	default:
	}
}

// Run brings files in until ctx ends.
func (b *Background) Run(ctx context.Context) error {
	var g errgroup.Group
	for range b.tasks {
		g.Go(func() error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case w := <-b.queue:
					err := b.fill(ctx, w)
					b.mu.Lock()
					delete(b.known, w.task)
					b.mu.Unlock()
					if err != nil && ctx.Err() == nil {
						b.p.log.Log(ctx, slog.LevelDebug, "a file was not brought in whole", "task", w.task, "err", err)
					}
				}
			}
		})
	}
	return g.Wait()
}

// errLarge: a file is more than half of the store.
var errLarge = errors.New("it is more than half of the store")

// fill brings in what is missing of a file, one stripe after another.
func (b *Background) fill(ctx context.Context, w waiting) error {
	task, origin, err := b.p.name(w.url)
	if err != nil {
		return err
	}
	files := b.p.cfg.Files
	if err := b.turn(ctx); err != nil {
		return err
	}
	f, err := files.Open(ctx, seed.Request{Task: task, Origin: origin, Want: content.Range{Len: 1}, Background: true})
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	whole := content.Range{Len: f.Meta().Size}
	if whole.Len > files.Stats().Capacity/2 {
		return errLarge
	}
	for _, part := range f.Meta().Layout().Stripes(whole) {
		if err := b.turn(ctx); err != nil {
			return err
		}
		if f.Has(part) {
			continue
		}
		got, err := f.Prefetch(ctx, []content.Range{part}, false, nil)
		if err != nil {
			return err
		}
		if err := b.limit.WaitN(ctx, int(min(got.Peer+got.Origin, maxStripe))); err != nil {
			return err
		}
	}
	return nil
}

// turn waits until something may be brought in, and nobody waits for anything.
func (b *Background) turn(ctx context.Context) error {
	if err := b.may(ctx); err != nil {
		return err
	}
	return b.p.cfg.Files.Quiet(ctx)
}
