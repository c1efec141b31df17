package prefetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed"
)

// Import says what a body is.
type Import struct {
	URL string
	// Digest, see content.ParseDigest, is what the whole must hash to; "" for no check, but
	// a digest in the URL is always checked.
	Digest string
	// ETag and LastModified are what the origin says of this file: needed where
	// neither it nor the swarm can be asked. An ETag may lack its quotes.
	ETag, LastModified string
	// Size is that of Body.
	Size int64
	// Pin keeps it from being evicted.
	Pin bool
	// Body's Read must fail soon after the context of the call has ended.
	Body io.Reader
}

// ErrArgument is wrapped by errors that the caller's values alone are to blame
// for.
var ErrArgument = errors.New("unusable value")

// Import stores a body as the file of its URL. progress hears how much of the
// body was read. The body is not read before all else has been found good.
//
// Errors: ErrArgument, content.ErrURL, and those of seed.Manager.Import.
func (p *Prefetcher) Import(ctx context.Context, r Import, progress func(done, total int64)) (Result, error) {
	task, origin, err := p.name(r.URL)
	if err != nil {
		return Result{}, err
	}
	given, err := r.validate()
	if err != nil {
		return Result{}, err
	}
	found, err := p.describe(ctx, task, origin, given)
	if err != nil {
		return Result{}, err
	}
	in := seed.Import{Task: task, Found: found, Digest: r.Digest, Pin: r.Pin, Body: r.Body}
	if progress != nil {
		in.Progress = func(done int64) { progress(done, r.Size) }
	}
	got, err := p.cfg.Files.Import(ctx, in)
	return Result{Local: got.Held, Imported: got.Added}, err
}

// validate checks the values, puts them into their usual form, and returns the
// metadata that they make; its generation is zero where they do not say it.
func (r *Import) validate() (content.Meta, error) {
	meta := content.Meta{Size: r.Size, LastModified: r.LastModified}
	if r.Size < 0 {
		return meta, fmt.Errorf("%w: the size of the file is not known", ErrArgument)
	}
	if r.Digest != "" {
		digest, err := content.ParseDigest(r.Digest)
		if err != nil {
			return meta, fmt.Errorf("%w: %w", ErrArgument, err)
		}
		r.Digest = digest
	}
	if r.ETag != "" {
		meta.ETag = r.ETag
		if !strings.HasPrefix(r.ETag, "W/") && !strings.HasPrefix(r.ETag, `"`) {
			meta.ETag = `"` + r.ETag + `"`
		}
		if !content.StrongETag(meta.ETag) {
			return meta, fmt.Errorf("%w: ETag %.100q is not a strong one: give the Last-Modified instead", ErrArgument, r.ETag)
		}
	}
	if r.LastModified != "" {
		if _, err := http.ParseTime(r.LastModified); err != nil {
			return meta, fmt.Errorf("%w: Last-Modified %q: write it as the origin does, like Mon, 02 Jan 2006 15:04:05 GMT", ErrArgument, r.LastModified)
		}
	}
	if err := content.CheckValues(meta.ETag, meta.LastModified); err != nil {
		return meta, fmt.Errorf("%w: %w", ErrArgument, err)
	}
	meta.Generation, _ = content.NewGeneration(meta.ETag, meta.LastModified, meta.Size)
	return meta, nil
}

// describe finds out of which generation an import is, and that its size is
// right.
func (p *Prefetcher) describe(ctx context.Context, task content.Task, origin rangeread.Origin, given content.Meta) (seed.Found, error) {
	if task.Digest != "" {
		given.Generation = content.DigestGeneration(task.Digest)
		return seed.Found{Meta: given}, nil
	}
	f, err := p.cfg.Files.Open(ctx, seed.Request{Task: task, Origin: origin, Unsized: true})
	switch {
	case err == nil:
	case !outOfReach(err):
		return seed.Found{}, fmt.Errorf("find out which version of the file there is: %w", err)
	case given.Generation.IsZero():
		return seed.Found{}, fmt.Errorf("cannot find out which version of the file there is (%w): give its ETag, or else its Last-Modified, as the origin sends them", err)
	default:
		return seed.Found{Meta: given}, nil
	}
	defer func() { _ = f.Close() }()
	meta := f.Meta()
	if meta.Size < 0 { // an origin that does not tell it
		meta.Size = given.Size
		meta.Generation, _ = content.NewGeneration(meta.ETag, meta.LastModified, meta.Size)
	}
	if meta.Size != given.Size {
		return seed.Found{}, fmt.Errorf("%d bytes are given, the origin has %d: this is another file, or another version of it", given.Size, meta.Size)
	}
	if !given.Generation.IsZero() && given.Generation != meta.Generation {
		return seed.Found{}, fmt.Errorf("the origin has ETag %q and Last-Modified %q: what is given is another version", meta.ETag, meta.LastModified)
	}
	return seed.Found{Meta: meta, CacheControl: f.CacheControl(), Age: f.Age()}, nil
}

// outOfReach reports whether err says that nobody could be asked, rather than
// what the answer was.
func outOfReach(err error) bool {
	var origin *seed.OriginError
	if errors.As(err, &origin) {
		return origin.Status == 0 || origin.Status >= 500 || origin.Status == http.StatusTooManyRequests
	}
	return errors.Is(err, seed.ErrUnavailable)
}
