package read

import (
	"context"
	"errors"
	"io"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed"
)

// Growing is one client's reading of a file whose size was not known when it was
// opened. It can be read once, from its start to its end. Not safe for concurrent
// use.
type Growing struct {
	// File is open, and not Sized. Close closes it.
	*seed.File
	buf    *[]byte
	primed []byte
	pos    int64
	first  string
	tally  [3]int64
	ended  bool
}

// Source returns where the first byte came from, "" before Prime or Copy.
func (g *Growing) Source() string { return g.first }

// Tally returns how many bytes came from where.
func (g *Growing) Tally() (local, peer, origin int64) {
	return g.tally[seed.SourceLocal], g.tally[seed.SourcePeer], g.tally[seed.SourceOrigin]
}

// Prime waits for the first bytes of the file; the range has no meaning.
func (g *Growing) Prime(ctx context.Context, _ content.Range) error {
	if g.buf != nil {
		return nil
	}
	g.buf = getBuffer(largeBuffer)
	return g.step(ctx)
}

// step reads the next bytes, or finds the end.
func (g *Growing) step(ctx context.Context) error {
	n, source, err := g.Stream(ctx, *g.buf, g.pos)
	if g.first == "" {
		g.first = source.String()
	}
	g.pos += int64(n)
	g.tally[source] += int64(n)
	g.primed = (*g.buf)[:n]
	if errors.Is(err, io.EOF) {
		g.ended, err = true, nil
	}
	return err
}

// Copy writes all of the file to w; the range has no meaning. It returns how many
// bytes were written.
func (g *Growing) Copy(ctx context.Context, w io.Writer, r content.Range) (n int64, err error) {
	if err := g.Prime(ctx, r); err != nil {
		return 0, err
	}
	for {
		m, err := w.Write(g.primed) // of an empty file too, for its header
		n += int64(m)
		if err != nil || g.ended {
			return n, err
		}
		if err := g.step(ctx); err != nil {
			return n, err
		}
	}
}

// Close lets go of the file.
func (g *Growing) Close() error {
	if g.buf != nil {
		putBuffer(g.buf)
		g.buf, g.primed = nil, nil
	}
	return g.File.Close()
}
