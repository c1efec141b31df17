package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/node/proxy"
	"github.com/p2pnode/p2pnode/node/read"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed"
)

// opener gives the HTTP faces the files of the swarm.
type opener struct {
	files *seed.Manager
	// touched, where set, hears which file a client reads a part of that is not
	// all held here, and is wanted whole: whole says so of those that no rule
	// speaks of.
	touched func(url string, task content.TaskID)
	whole   bool
}

// openTries bounds how often a file is opened anew because it changed.
const openTries = 3

// Open implements proxy.Opener. The first bytes have come when it returns.
func (o opener) Open(ctx context.Context, req proxy.Request) (proxy.File, error) {
	var err error
	for range openTries {
		var f proxy.File
		if f, err = o.open(ctx, req); !errors.Is(err, seed.ErrChanged) {
			return f, faceError(err)
		}
	}
	return nil, faceError(err)
}

func (o opener) open(ctx context.Context, req proxy.Request) (proxy.File, error) {
	if len(req.URL) > rangeread.MaxURL {
		return nil, fmt.Errorf("%w: a URL of more than %d bytes", seed.ErrNotSupported, rangeread.MaxURL)
	}
	r := seed.Request{
		Task:   req.Task,
		Origin: rangeread.Origin{URL: req.URL, Header: rangeread.Fields(req.Credentials), FilterVersion: req.Task.FilterVersion, Size: -1},
		Want:   firstWant(req), Demand: seed.Demand(req.Demand), Held: req.Held,
		Unsized: req.Want.Whole || req.MetaOnly, // of a part it matters where it lies
	}
	f, err := o.files.Open(ctx, r)
	var behind *seed.RangeError
	if errors.As(err, &behind) {
		r.Want = content.Range{} // the metadata is enough to say so
		f, err = o.files.Open(ctx, r)
	}
	if err != nil {
		return nil, err
	}
	if !f.Sized() {
		return &read.Growing{File: f}, nil
	}
	whole := req.Prefetch == proxy.PrefetchWhole || req.Prefetch == "" && o.whole
	if o.touched != nil && whole && !req.Held && !req.MetaOnly && !f.Whole() {
		o.touched(req.URL, req.Task.ID)
	}
	if req.Held && !req.MetaOnly && !f.Has(resolve(req.Want, f.Meta().Size)) {
		_ = f.Close()
		return nil, proxy.ErrNotHeld
	}
	sf := &swarmFile{File: read.NewFile(f)}
	if want := resolve(req.Want, f.Meta().Size); !req.MetaOnly && !want.Empty() {
		if err := sf.File.Prime(ctx, want); err != nil {
			_ = sf.Close()
			return nil, err
		}
		sf.primed = want
	}
	return sf, nil
}

// firstWant is what to ask for while the size is not known.
func firstWant(req proxy.Request) content.Range {
	w := req.Want
	switch {
	case req.MetaOnly || w.Suffix > 0:
		return content.Range{}
	case w.Len < 0:
		return content.Range{Off: w.Off, Len: content.BlockSize}
	default:
		return content.Range{Off: w.Off, Len: min(w.Len, read.Ahead)}
	}
}

// resolve returns the range that a Want names of a file of size bytes.
func resolve(w proxy.Want, size int64) content.Range {
	whole := content.Range{Len: size}
	switch {
	case w.Suffix > 0:
		return content.Span(max(0, size-w.Suffix), size)
	case w.Len < 0:
		return content.Span(w.Off, size).Intersect(whole)
	default:
		return content.Range{Off: w.Off, Len: w.Len}.Intersect(whole)
	}
}

// swarmFile is a file as the HTTP faces see it.
type swarmFile struct {
	*read.File
	primed content.Range
}

// Source implements proxy.File.
func (f *swarmFile) Source() string {
	if s, ok := f.File.Source(); ok {
		return s.String()
	}
	return ""
}

// Prime implements proxy.File.
func (f *swarmFile) Prime(ctx context.Context, r content.Range) error {
	if f.primed == r {
		return nil
	}
	f.primed = r
	return faceError(f.File.Prime(ctx, r))
}

// faceError makes an error of the reader one that the faces know.
func faceError(err error) error {
	var origin *seed.OriginError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, seed.ErrPrivate):
		return fmt.Errorf("%w: %w", proxy.ErrPrivate, err)
	case errors.Is(err, seed.ErrNotSupported):
		return fmt.Errorf("%w: %w", proxy.ErrPassThrough, err)
	case errors.As(err, &origin):
		return &proxy.OriginError{Status: origin.Status, Detail: origin.Detail, RetryAfter: origin.RetryAfter}
	case errors.Is(err, seed.ErrUnavailable), errors.Is(err, seed.ErrNotFound):
		return fmt.Errorf("%w: %w", proxy.ErrUnavailable, err)
	default:
		return err
	}
}
