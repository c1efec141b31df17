package seed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed/store"
)

// spoolPattern names the files in Config.Spool.
const spoolPattern = "import-*"

// checked keeps the body in a file until its digest is known to be right, and
// stores its blocks then, the last first, so that the file can shrink as the
// store grows.
func (x *importer) checked(ctx context.Context) (err error) {
	file, err := os.CreateTemp(x.m.cfg.Spool, spoolPattern)
	if err != nil {
		return fmt.Errorf("keep the body of an import: %w", err)
	}
	defer func() {
		err = errors.Join(err, file.Close(), os.Remove(file.Name()))
		x.m.cfg.Store.GiveBack(x.spooled.Load())
	}()
	roots, err := x.spool(ctx, file)
	if err != nil {
		return err
	}
	x.right = true
	if err := x.open(); err != nil {
		return err
	}
	begun := x.f.begun()
	if err := x.commit(ctx, file, roots); err != nil {
		return errors.Join(err, x.abandon())
	}
	if x.in.Task.Digest != "" {
		x.f.trust(begun) // every block is what the body had
	}
	return nil
}

// spool writes the body to a file and compares it with its digest. It returns
// the roots of the blocks as they passed by, since files may change.
func (x *importer) spool(ctx context.Context, to *os.File) ([]content.Root, error) {
	hash := content.NewDigester(x.in.Digest)
	var roots []content.Root
	err := x.read(ctx, func(_ int64, buf *buffer, data []byte) error {
		defer x.put(buf)
		if err := x.m.cfg.Store.Reserve(int64(len(data))); err != nil {
			return fmt.Errorf("keep the body of an import: %w", err)
		}
		x.spooled.Add(int64(len(data)))
		if err := store.Room(x.m.cfg.Spool, int64(len(data))); err != nil {
			return fmt.Errorf("keep the body of an import: %w", err)
		}
		_, root := content.Outboard(data)
		roots = append(roots, root)
		hash.Write(data)
		if _, err := to.Write(data); err != nil {
			return fmt.Errorf("keep the body of an import: %w", err)
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	if err := matchDigest(x.in.Digest, hash.Digest()); err != nil {
		return nil, err
	}
	return roots, nil
}

// commit stores the blocks of a file that was found right, some at a time from
// its end on, and cuts them off.
func (x *importer) commit(ctx context.Context, from *os.File, roots []content.Root) error {
	layout := x.f.layout
	for end := int64(len(roots)); end > 0; {
		first := max(0, end-importers)
		g, gctx := errgroup.WithContext(ctx)
		for i := first; i < end; i++ {
			g.Go(func() error { return x.commitBlock(gctx, from, i, &roots[i]) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
		if err := from.Truncate(layout.Block(first).Off); err != nil {
			return fmt.Errorf("shrink the body of an import: %w", err)
		}
		end = first
	}
	return nil
}

func (x *importer) commitBlock(ctx context.Context, from io.ReaderAt, i int64, root *content.Root) error {
	buf, err := x.get(ctx)
	if err != nil {
		return err
	}
	defer x.put(buf)
	b := x.f.layout.Block(i)
	if _, err := from.ReadAt(buf.mem[:b.Len], b.Off); err != nil {
		return fmt.Errorf("read the body of an import again: %w", err)
	}
	// Its room becomes the block's; the spool shrinks a few blocks later.
	x.spooled.Add(-b.Len)
	x.m.cfg.Store.GiveBack(b.Len)
	return x.block(i, buf.mem[:b.Len], root)
}
