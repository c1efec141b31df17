package seed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed/store"
)

// ErrDiffers: the bytes of an import are not those that are held of the file.
var ErrDiffers = errors.New("content differs from what is held")

// importers is how many blocks an import hashes and stores at once.
const importers = 4

// Import says which file the bytes of a reader are.
type Import struct {
	Task content.Task
	// Found is what the origin says of the file, or whoever brings it: size
	// and generation are required.
	Found Found
	// Digest, in the form of content.IsDigest, is what all of Body must hash to; that of a digest
	// task if empty.
	Digest string
	// Pin keeps the file from being evicted; see File.Pin. Where the body is
	// refused, and nothing of the file was pinned before, nothing is after it.
	Pin bool
	// Body yields the file, Found.Size bytes. Its Read must fail soon after the
	// context of the call has ended.
	Body io.Reader
	// Progress, where not nil, hears how many bytes were read from Body.
	Progress func(done int64)
}

// Imported counts the bytes of an import that were held before, and those that
// it added.
type Imported struct{ Held, Added int64 }

// Import stores the blocks of a file that are not held, under this node's seal,
// as if they had been read from the origin.
//
// With a digest it verifies first and commits then: the body is kept in
// Config.Spool, blocks are sealed when all of it was found right, and where a
// held block differs, that one was wrong and is replaced. The store makes room
// for the file's size while it runs. Without a digest blocks are stored as they
// come, and the caller answers for them: a body that is not what is held, or
// that goes on behind the file's end, is refused, and what came of it is
// dropped. What an import stored that ended early for other reasons stays, and
// the next one skips it.
//
// Errors: ErrDigest, ErrDiffers, ErrNotSupported where the file does not fit
// into the store, ErrChanged where another size is known of this generation,
// io.ErrUnexpectedEOF where Body ends early, ErrClosed and the context's.
func (m *Manager) Import(ctx context.Context, in Import) (Imported, error) {
	if err := in.validate(); err != nil {
		return Imported{}, err
	}
	caller := ctx
	ctx, leave, err := m.enter(caller)
	if err != nil {
		return Imported{}, err
	}
	defer leave()
	if size, room := in.Found.Size, m.cfg.Store.Capacity(); size > room {
		return Imported{}, fmt.Errorf("%w: its %d bytes are more than the store's %d", ErrNotSupported, size, room)
	}
	x := &importer{m: m, in: in}
	if in.Digest == "" {
		err = x.stream(ctx)
	} else {
		err = x.checked(ctx)
	}
	switch {
	case caller.Err() != nil: // a body that ends with it may do so before ctx
		err = context.Cause(caller)
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	return x.got, err
}

func (in *Import) validate() error {
	size, gen := in.Found.Size, in.Found.Generation
	switch digest := in.Task.Digest; {
	case in.Digest != "" && !content.IsDigest(in.Digest):
		return fmt.Errorf("%q is no digest", in.Digest)
	case size < 0 || gen.IsZero():
		return fmt.Errorf("size %d and generation %s must be known", size, gen)
	case digest == "":
	case in.Digest != "" && in.Digest != digest:
		return fmt.Errorf("%w: the URL names %s, asked for is %s", ErrDigest, digest, in.Digest)
	case gen != content.DigestGeneration(digest):
		return fmt.Errorf("generation %s is not that of digest %s", gen, digest)
	}
	in.Digest = cmp.Or(in.Digest, in.Task.Digest)
	return nil
}

// enter counts a call among those that Close ends and waits for.
func (m *Manager) enter(ctx context.Context) (context.Context, func(), error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, nil, ErrClosed
	}
	ctx, cancel := context.WithCancelCause(ctx)
	m.calls[&cancel] = struct{}{}
	m.running.Add(1)
	return ctx, func() {
		m.mu.Lock()
		delete(m.calls, &cancel)
		m.mu.Unlock()
		cancel(nil)
		m.running.Done()
	}, nil
}

// importer is one Import.
type importer struct {
	m     *Manager
	in    Import
	f     *file
	fresh bool // f is there for this import alone
	// pinned: this import alone has pinned something of f.
	pinned bool
	// right says that the body was checked against its digest.
	right bool
	taken int64
	// spooled is how many bytes the store makes room for, for the body.
	spooled atomic.Int64

	mu sync.Mutex
	// mu guards the following.
	got   Imported
	added []int64
	wrong bool // a block differs from what is held
}

// open makes the file, or finds it.
func (x *importer) open() error {
	meta := x.in.Found.Meta
	x.fresh = x.m.held(x.in.Task, meta.Generation) == nil
	f, err := x.m.createLocked(x.in.Task, x.in.Found, false)
	if err != nil {
		return err
	}
	f.mu.Unlock()
	if f.meta.Size != meta.Size {
		return fmt.Errorf("%w: this generation is known to have %d bytes, not %d", ErrChanged, f.meta.Size, meta.Size)
	}
	x.f = f
	if x.in.Pin {
		x.pinned = f.disk.Pinned() == 0
		return f.pin(content.Range{Len: meta.Size})
	}
	return nil
}

// abandon drops an import's file where nothing is held of it.
func (x *importer) abandon() error {
	if x.fresh && x.f.disk.Count() == 0 {
		return x.m.discard(x.f)
	}
	return nil
}

// stream stores the blocks of the body as they come.
func (x *importer) stream(ctx context.Context) error {
	if err := x.open(); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(importers)
	readErr := x.read(gctx, func(i int64, buf *buffer, data []byte) error {
		g.Go(func() error {
			defer x.put(buf)
			return x.block(i, data, nil)
		})
		return gctx.Err()
	})
	err := g.Wait()
	if err == nil {
		err = readErr
	}
	if x.wrong || errors.Is(err, errTooLong) {
		err = errors.Join(err, x.undo())
	}
	if err != nil {
		err = errors.Join(err, x.abandon())
	}
	return err
}

// undo drops what the import has stored.
func (x *importer) undo() error {
	var errs []error
	for _, i := range x.added {
		errs = append(errs, x.f.disk.Drop(i))
	}
	if x.pinned {
		errs = append(errs, x.f.disk.Unpin(content.Range{Len: x.f.meta.Size}))
	}
	x.got.Added = 0
	x.m.changed(x.f.key.Task)
	return errors.Join(errs...)
}

// errTooLong: a body goes on behind the end that its size says.
var errTooLong = errors.New("there are more bytes than the file has")

// read reads the body block by block, and that it ends there. next takes over
// the buffer, which data are in, and puts it back.
func (x *importer) read(ctx context.Context, next func(i int64, buf *buffer, data []byte) error) error {
	layout := x.in.Found.Layout()
	for i := range layout.Blocks() {
		buf, err := x.get(ctx)
		if err != nil {
			return err
		}
		data := buf.mem[:layout.Block(i).Len]
		n, err := io.ReadFull(x.in.Body, data)
		x.taken += int64(n)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			x.put(buf)
			if ctx.Err() != nil { // that ends the body too
				err = context.Cause(ctx)
			}
			return fmt.Errorf("the file to import broke off at byte %d of %d: %w", x.taken, layout.Size, err)
		}
		if x.in.Progress != nil {
			x.in.Progress(x.taken)
		}
		if err := next(i, buf, data); err != nil {
			return err
		}
	}
	var more [1]byte
	if n, _ := io.ReadFull(x.in.Body, more[:]); n > 0 { // what fails behind the end is no loss
		return errTooLong
	}
	return nil
}

// get waits for a block buffer out of the background's share.
func (x *importer) get(ctx context.Context) (*buffer, error) {
	if x.m.background.Acquire(ctx, 1) != nil {
		return nil, context.Cause(ctx)
	}
	buf, err := x.m.buffers.get(ctx, false)
	if err != nil {
		x.m.background.Release(1)
		return nil, context.Cause(ctx)
	}
	return buf, nil
}

func (x *importer) put(buf *buffer) {
	x.m.buffers.put(buf)
	x.m.background.Release(1)
}

// block seals and stores a block, or finds that it is held. root, where not
// nil, is what it was when the body was checked.
func (x *importer) block(i int64, data []byte, root *content.Root) error {
	outboard, got := content.Outboard(data)
	if root != nil && *root != got {
		return fmt.Errorf("block %d is not what was checked a moment ago", i)
	}
	added, err := x.keep(i, data, outboard, got)
	x.mu.Lock()
	defer x.mu.Unlock()
	if err != nil {
		x.wrong = x.wrong || errors.Is(err, ErrDiffers)
		return fmt.Errorf("store block %d: %w", i, err)
	}
	if !added {
		x.got.Held += int64(len(data))
		return nil
	}
	x.got.Added += int64(len(data))
	x.added = append(x.added, i)
	return nil
}

// keep stores a block unless it is held, and looks whether it is ours that is
// held then: a fill may have been faster, with other bytes.
func (x *importer) keep(i int64, data, outboard []byte, root content.Root) (added bool, err error) {
	f := x.f
	for range 3 {
		held, err := x.holds(i, root, !added)
		if held || err != nil {
			return added, err
		}
		seal, err := content.SealBlock(x.m.cfg.Key, x.m.cfg.Self, f.name(i), root)
		if err != nil {
			return false, err
		}
		if err := f.disk.Write(i, data, store.Record{Seal: seal, Outboard: outboard}); err != nil {
			return false, err
		}
		added = true
		x.m.metrics.blocksStored.Inc()
		x.m.changed(f.key.Task)
	}
	return false, ErrDiffers
}

// holds reports whether the store has block i with this root, and with check
// whether it has it whole. Where it has another root, the store's block is
// dropped if the body is known to be right, and the import refused if not.
func (x *importer) holds(i int64, root content.Root, check bool) (bool, error) {
	f := x.f
	rec, err := f.disk.Record(i)
	switch {
	case err == nil && rec.Root == root:
		if check {
			err = f.disk.Check(i)
		}
	case err == nil && x.right:
		f.m.log.Warn("a held block is not what the digest says, replacing it", "task", f.key.Task, "block", i, "signer", rec.Signer)
		return false, f.disk.Drop(i)
	case err == nil:
		return false, fmt.Errorf("%w: give the digest to say which is right", ErrDiffers)
	}
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrCorrupt) {
		return false, nil
	}
	return err == nil, err
}
