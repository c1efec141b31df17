package read

import (
	"context"
	"io"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed"
)

// File is one client's reading of a file. Not safe for concurrent use.
type File struct {
	*seed.File
	holds []*seed.Hold // of the block at pos and behind
	asked int64        // end of what holds cover
	pos   int64
	// primed are bytes that Prime has read of want, still to be written.
	buf    *[]byte
	primed []byte
	want   content.Range
	first  *seed.Source
	tally  [3]int64
}

// NewFile makes f readable. Close closes it.
func NewFile(f *seed.File) *File { return &File{File: f} }

// Source returns where the first byte came from; false before Prime or Copy.
func (f *File) Source() (seed.Source, bool) {
	if f.first == nil {
		return 0, false
	}
	return *f.first, true
}

// Tally returns how many bytes came from where.
func (f *File) Tally() (local, peer, origin int64) {
	return f.tally[seed.SourceLocal], f.tally[seed.SourcePeer], f.tally[seed.SourceOrigin]
}

// seek makes off the next byte to read.
func (f *File) seek(off int64) {
	f.drop(len(f.holds))
	f.pos, f.asked, f.primed = off, off, nil
}

func (f *File) drop(n int) {
	for _, h := range f.holds[:n] {
		h.Release()
	}
	f.holds = f.holds[n:]
}

// window has the blocks on their way that are needed soon.
func (f *File) window(ctx context.Context, want content.Range) error {
	l := f.Meta().Layout()
	next := Plan(want, f.pos, f.asked, l)
	if next.Empty() {
		return nil
	}
	holds, err := f.Hold(ctx, next)
	if err != nil {
		return err
	}
	f.holds = append(f.holds, holds...)
	f.asked = next.End()
	return nil
}

// step reads the next bytes of want into the buffer.
func (f *File) step(ctx context.Context, want content.Range) ([]byte, error) {
	if err := f.window(ctx, want); err != nil {
		return nil, err
	}
	h := f.holds[0]
	p := (*f.buf)[:min(int64(len(*f.buf)), want.End()-f.pos)]
	n, err := h.ReadAt(ctx, p, f.pos)
	if err != nil {
		return nil, err
	}
	src := h.Source()
	if f.first == nil {
		f.first = &src
	}
	f.tally[src] += int64(n)
	f.pos += int64(n)
	if f.pos%content.BlockSize == 0 || f.pos >= want.End() {
		f.drop(1)
	}
	return p[:n], nil
}

// Prime waits until the first byte of r, which is not empty, can be delivered.
// A *seed.RangeError where r is not in the file.
func (f *File) Prime(ctx context.Context, r content.Range) error {
	if size := f.Meta().Size; r.Empty() || r.Off < 0 || r.End() > size {
		return &seed.RangeError{Size: size}
	}
	if f.buf == nil {
		f.buf = getBuffer(r.Len)
	}
	f.seek(r.Off)
	f.want = r
	p, err := f.step(ctx, r)
	f.primed = p
	return err
}

// Copy writes exactly r, which is not empty, to w, and returns how many bytes
// were written. It uses what Prime has read of the same range.
func (f *File) Copy(ctx context.Context, w io.Writer, r content.Range) (n int64, err error) {
	defer func() { f.Served(n) }()
	if f.primed == nil || f.want != r {
		if err := f.Prime(ctx, r); err != nil {
			return 0, err
		}
	}
	for {
		p := f.primed
		f.primed = nil
		m, err := w.Write(p)
		n += int64(m)
		if err != nil || n == r.Len {
			return n, err
		}
		if f.primed, err = f.step(ctx, r); err != nil {
			return n, err
		}
	}
}

// Close lets go of the file and of what is on its way for it.
func (f *File) Close() error {
	f.drop(len(f.holds))
	if f.buf != nil {
		putBuffer(f.buf)
		f.buf = nil
	}
	return f.File.Close()
}
