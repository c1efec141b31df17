package read

import (
	"context"
	"errors"
	"io"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed"
	"github.com/p2pnode/p2pnode/seed/origin"
)

// growFromOrigin reads a file whose size the origin does not tell.
func (f *fill) growFromOrigin(ctx context.Context, resp *origin.Response) error {
	job := f.job
	if err := f.grow(seed.Found{Meta: resp.Meta, CacheControl: resp.CacheControl, Age: resp.Age}); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, resp.Body, job.Grew()); err != nil { // from another source
		return err
	}
	room := getBuffer(originRead)
	defer putBuffer(room)
	buf := (*room)[:min(len(*room), originRead)]
	for {
		n, err := resp.Body.Read(buf)
		f.metrics.originBytes.Add(float64(n))
		if err := job.Append(buf[:n]); err != nil {
			return localError{err}
		}
		if err := f.cfg.Pace(ctx, "", n); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) {
			return job.Grown(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// growFromPeer reads a file whose size the head does not know yet, or takes its
// metadata alone. first is the piece that was read already, if any.
func (f *fill) growFromPeer(ctx context.Context, from peer.ID, body *rangeread.Body, first *rangeread.Piece) error {
	job := f.job
	found := seed.Found{Meta: body.Header.Meta, CacheControl: body.Header.CacheControl, Age: body.Header.Age}
	if job.Want().Empty() {
		return job.Unsized(found)
	}
	if err := f.grow(found); err != nil {
		return err
	}
	take := func(p rangeread.Piece) error {
		fresh := p.Data[min(int64(len(p.Data)), max(0, job.Grew()-p.Off)):]
		f.metrics.peerBytes.Add(float64(len(fresh)))
		if err := job.Append(fresh); err != nil {
			return localError{err}
		}
		return f.cfg.Pace(ctx, from, len(p.Data))
	}
	if first != nil {
		if err := take(*first); err != nil {
			return err
		}
	}
	for {
		p, err := body.Next(nil)
		if errors.Is(err, io.EOF) {
			return job.Grown(ctx)
		}
		if err != nil {
			return err
		}
		if err := take(p); err != nil {
			return err
		}
	}
}

// grow tells the job what file a source has, of a size that it does not tell.
func (f *fill) grow(found seed.Found) error {
	err := f.job.Grow(found)
	if err != nil && !isFinal(err) {
		return localError{err}
	}
	return err
}
