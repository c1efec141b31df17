package seed

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed/store"
)

// A task that is named by a digest is one task whatever the upstream. Until the
// digest was checked over the whole file, its bytes are the word of the upstream
// that they came from, and are served to those alone who named that one; those of
// a manifest always. It is
// checked again when blocks that were evicted are back.

// upstream returns scheme and host of a canonical URL.
func upstream(canonical string) string {
	u, err := url.Parse(canonical)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// typed reports whether the header fields of a digest task's URL matter: a
// manifest's type does, and is the word of the upstream that it came from. A blob
// is bytes.
func typed(canonical string) bool {
	return strings.HasSuffix(canonical[:strings.LastIndexByte(canonical, '/')+1], "/manifests/")
}

// admits reports whether a file may answer a query.
func (m *Manager) admits(f *file, q *query) bool {
	if f.task.Digest == "" {
		return true
	}
	whole := f.verified.Load() && f.disk.Count() == f.layout.Blocks()
	if whole && !typed(f.disk.Info().URL) {
		return true
	}
	if !whole {
		f.checkDigest() // a file that was whole before a restart
	}
	return q.task.URL != "" && upstream(q.task.URL) == upstream(f.disk.Info().URL)
}

// ErrDigest: a file is not what its digest says. What was held of it is gone.
var ErrDigest = errors.New("content does not match its digest")

// matchDigest compares the digest of a file with the one that it must have.
func matchDigest(digest, got string) error {
	if got != digest {
		return fmt.Errorf("%w: it is %s, not %s", ErrDigest, got, digest)
	}
	return nil
}

// checkDigest checks a whole file of a digest task in the background, once. A
// wrong one is deleted.
func (f *file) checkDigest() {
	if f.task.Digest == "" || f.verified.Load() || f.disk.Count() < f.layout.Blocks() || !f.checking.CompareAndSwap(false, true) {
		return
	}
	ctx, leave, err := f.m.enter(context.Background())
	if err != nil {
		return
	}
	go func() {
		defer leave()
		defer f.checking.Store(false)
		if err := f.verify(ctx); err != nil { // where a block is gone: when it is back, again
			f.m.log.Debug("digest check failed", "task", f.key.Task, "err", err)
		}
	}()
}

// verify checks the digest of a whole file of a digest task, where nobody has
// done it, and deletes a wrong one: ErrDigest. One at a time, for all who ask.
func (f *file) verify(ctx context.Context) error {
	select {
	case f.check <- struct{}{}:
		defer func() { <-f.check }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	switch {
	case f.verified.Load():
		return nil
	case f.wrong != nil:
		return f.wrong
	}
	begun := f.begun()
	got, err := f.digest(ctx)
	if errors.Is(err, store.ErrCorrupt) {
		f.m.changed(f.key.Task)
	}
	if err != nil {
		return fmt.Errorf("check the digest: %w", err)
	}
	m := f.m
	if f.wrong = matchDigest(f.task.Digest, got); f.wrong == nil {
		f.trust(begun)
		m.metrics.checkedDigests.Inc()
		return nil
	}
	m.log.Warn("an upstream sent a file that is not what its digest says; deleted", "url", f.disk.Info().URL)
	m.metrics.wrongDigests.Inc()
	return errors.Join(f.wrong, m.discard(f))
}

// trust says that what was held of the file is what its digest says, but for
// what was begun since the call of begun that returned fills.
func (f *file) trust(fills int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.verified.Store(f.fills == fills)
}

// digest reads the whole file, each block checked against its root.
func (f *file) digest(ctx context.Context) (string, error) {
	h := content.NewDigester(f.task.Digest)
	buf := make([]byte, copyUnit)
	for off := int64(0); off < f.meta.Size; off += copyUnit {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		p := buf[:min(copyUnit, f.meta.Size-off)]
		if err := f.disk.ReadAt(p, off, true); err != nil {
			return "", err
		}
		h.Write(p)
	}
	return h.Digest(), nil
}

// copyUnit is what is read at once for the digest.
const copyUnit = content.BlockSize / 4

// discard forgets a file with all its blocks, and says so. Who reads it now
// finds none held.
func (m *Manager) discard(f *file) error {
	err := m.cfg.Store.Delete(f.key)
	m.mu.Lock()
	if m.files[f.key] == f {
		delete(m.files, f.key)
	}
	if m.latest[f.key.Task] == f {
		delete(m.latest, f.key.Task)
	}
	m.mu.Unlock()
	m.changed(f.key.Task)
	return err
}
