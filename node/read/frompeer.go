package read

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed"
)

// doubtPatience is for how long a peer that is no seed may say nothing but WAIT. A
// seed is waited for as long as an origin is; of anybody else that is not known to
// be true.
const doubtPatience = 10 * time.Second

// fromPeer reads what the job wants from a peer.
func (f *fill) fromPeer(ctx context.Context, p peer.ID, noFill bool) error {
	job := f.job
	want := job.Want()
	unsealed := job.Unsealed()
	if unsealed {
		want, noFill = content.Range{Off: job.Pos() - 1, Len: 1}, true
	}
	_, known := job.Meta()
	unproven := !known && !f.cfg.Map.MayGrant(p)
	if unproven {
		want.Len = 1
	}
	req := f.request(p, want, noFill)
	noFill = req.NoFill
	f.ask(p)
	start := time.Now()
	body, err := f.cfg.Client.Open(ctx, p, req)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	f.cfg.Health.Success(p, time.Since(start))
	f.metrics.peerFills.Inc()
	if unsealed {
		return f.sealFrom(body)
	}
	if h := body.Header; (p == f.holds || p == f.nearby) && !known && job.Expect.IsZero() && !seed.Fresh(h.CacheControl, job.Task.Digest, h.Fields, h.Age) {
		f.failed[p] = true // it was not allowed to ask whether that is current: others are
		return nil
	}
	var first *rangeread.Piece
	if unproven {
		if first, err = f.proof(body); first == nil {
			f.failed[p] = true
			return err
		}
	}
	if body.Header.Size < 0 {
		return f.growFromPeer(ctx, p, body, first)
	}
	if !f.cfg.Map.MayGrant(p) {
		body.Header.Sequential = false // nobody has signed that; the origin says it anew
	}
	ours := !noFill && !known && f.ours(body.Header.Meta)
	if ours {
		job.AskHeld("") // before anybody can see what this job brings
	}
	err = f.begin(seed.Found{Meta: body.Header.Meta, CacheControl: body.Header.CacheControl, Age: body.Header.Age, Private: body.Header.Private})
	if known && errors.Is(err, seed.ErrChanged) {
		return f.changedBy(p, err.Error())
	}
	if err != nil {
		return err
	}
	if unproven {
		f.nextAgain(p)
	}
	if ours || unproven || job.Pos() != want.Off {
		return nil // the next source is this node, or the same for more, or others have had these bytes first
	}
	return f.receive(ctx, body, func(n int) error { return f.cfg.Pace(ctx, p, n) })
}

// proof returns the first piece of an answer, by which a peer that is no seed, and
// says first what file is read, shows that it has something of it that a seed has
// signed; nil where it does not. All else anybody could say, whom the DHT names, and
// those who know better would contradict it.
func (f *fill) proof(body *rangeread.Body) (*rangeread.Piece, error) {
	h := body.Header
	if h.Private && !f.job.Private() {
		return nil, nil
	}
	first, err := body.Next(nil)
	if err != nil {
		return nil, err
	}
	if h.Size >= 0 {
		_, _ = body.Next(nil) // END, so that the stream serves again
	}
	return &first, nil
}

// ask says that a peer is about to be asked.
func (f *fill) ask(p peer.ID) {
	if p == f.gateway {
		f.job.AskSite(p)
	} else {
		f.job.AskPeer(p)
	}
}

// request returns what to ask of a peer.
func (f *fill) request(p peer.ID, want content.Range, noFill bool) rangeread.Request {
	job := f.job
	req := rangeread.Request{
		Task: job.Task.ID, Generation: job.Expect, Range: want, NoFill: noFill, Recheck: f.recheck[p],
		Path: append(slices.Clone(job.Path), f.cfg.Self), Skip: f.dead, Grant: job.Grant(),
		Site: p == f.gateway,
	}
	meta, known := job.Meta()
	if known {
		req.Generation = meta.Generation
	}
	req.Fields, req.Validate = !known, !known && job.Validate
	req.Epoch, req.Seq = f.cfg.Map.Version()
	if !f.cfg.Map.MayGrant(p) {
		req.Patience = doubtPatience
		req.NoFill = noFill || job.Private() // credentials are for seeds
	}
	if job.Origin.URL != "" && !req.NoFill {
		o := job.Origin
		o.Size = job.Size()
		req.Origin = &o
	}
	return req
}

// ours reports whether this node is to fetch the next byte, now that a peer has
// said what file it is.
func (f *fill) ours(meta content.Meta) bool {
	stripe := content.Layout{Size: meta.Size}.StripeOf(f.job.Pos())
	owner, _ := f.cfg.Map.Owner(f.job.Task.ID, stripe, meta.Sequential, f.dead)
	return owner == f.cfg.Self && f.mayAskOrigin() && f.cfg.Seed
}

// receive takes the pieces of a body into the job, and calls came after each with
// its length; an error of that ends it.
func (f *fill) receive(ctx context.Context, body *rangeread.Body, came func(n int) error) error {
	job := f.job
	end := job.Want().End()
	var partial []byte // a leaf of which the job has the first bytes
	var into []byte    // where the next byte goes
	var noMemory error
	place := func(off int64, n int) []byte {
		// Memory is asked for when there is something to put into it: what
		// waits for it here, holding nothing, keeps nobody else waiting.
		if into, noMemory = job.Buffer(ctx); off == job.Pos() && n <= len(into) {
			return into[:n]
		}
		if cap(partial) < n {
			partial = make([]byte, max(n, rangeread.MaxData))
		}
		return partial[:n]
	}
	for !job.Done() {
		p, err := body.Next(place)
		if noMemory != nil {
			return noMemory
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if behind := job.Pos() - p.Off; behind > 0 && len(p.Data) > 0 {
			tail := p.Data[min(int64(len(p.Data)), behind):]
			if len(tail) <= len(into) { // else nobody wants it
				copy(into, tail)
			}
			p.Off, p.Data, p.Leaves = job.Pos(), tail, nil
		}
		if err := job.Verified(p); err != nil {
			return err
		}
		f.metrics.peerBytes.Add(float64(len(p.Data)))
		if err := came(len(p.Data)); err != nil {
			return err
		}
	}
	if job.Pos() >= end {
		_, _ = body.Next(nil) // END, so that the stream serves again; a failure costs the stream alone
	}
	return nil
}

// sealFrom reads the last leaf of a block again, for its seal.
func (f *fill) sealFrom(body *rangeread.Body) error {
	for {
		p, err := body.Next(nil)
		if errors.Is(err, io.EOF) {
			if f.job.Unsealed() {
				return rangeread.NewError(rangeread.StatusNotFound, "no seal of the block at %d", f.job.Pos())
			}
			return nil
		}
		if err != nil {
			return err
		}
		if p.Seal != nil {
			if err := f.job.Seal(p); err != nil {
				return err
			}
		}
	}
}

// peerFailed decides what a peer's failure means; an error ends the fill.
func (f *fill) peerFailed(ctx context.Context, p peer.ID, err error) error {
	f.last = err
	var answer *rangeread.Error
	switch {
	case errors.As(err, &answer):
		return f.answered(ctx, p, answer)
	case isFinal(err):
		return err
	case errors.Is(err, rangeread.ErrUntrusted):
		f.failed[p] = true
	case errors.Is(err, rangeread.ErrCorrupt):
		f.metrics.wrongAnswers.Inc()
		if f.cfg.Health.Wrong(p) {
			f.log.Warn("a peer sent wrong bytes", "peer", p, "task", f.job.Task.ID, "err", err)
		}
		if f.recheck[p] {
			f.failed[p] = true
		}
		f.recheck[p] = true
	case errors.Is(err, rangeread.ErrStalled):
		f.stalled(p, err)
	default:
		f.cfg.Health.Failure(p)
		f.lost = append(f.lost, p)
		f.fell(p)
	}
	return nil
}

// fell takes a peer for dead.
func (f *fill) fell(p peer.ID) {
	f.failed[p] = true
	if len(f.dead) < rangeread.MaxPath {
		f.bury(p)
	}
}

// bury leaves a peer out of all that follows. What it owned another owns now: those
// who had nothing, because they were not to fetch it, are asked again.
func (f *fill) bury(p peer.ID) {
	f.dead = append(f.dead, p)
	clear(f.lacked)
}

// tried reports whether a peer is not to be asked as things are.
func (f *fill) tried(p peer.ID) bool { return f.failed[p] || f.lacked[p] }

// stalled leaves a peer that said nothing but WAIT, for longer than an origin is
// waited for: the next in order takes over, and the peer is banned, since it
// would answer a probe. Of a file that must be read from its start a seed may
// still be on its way to these bytes: nobody is to begin anew then. Who is no seed
// was given less time, and is asked last.
func (f *fill) stalled(p peer.ID, err error) {
	if !f.cfg.Map.MayGrant(p) {
		f.cfg.Health.Failure(p)
		f.fell(p)
		return
	}
	if meta, _ := f.job.Meta(); meta.Sequential && f.job.Size() >= 0 {
		f.failed[p], f.noFill = true, true
		return
	}
	if f.cfg.Health.Wrong(p) {
		f.log.Warn("a peer said nothing but WAIT", "peer", p, "task", f.job.Task.ID, "err", err)
	}
	f.fell(p)
}

// localError is this node's own: no source is to blame, and none can help.
type localError struct{ error }

func (e localError) Unwrap() error { return e.error }

// begin tells the job what file a source has.
func (f *fill) begin(found seed.Found) error {
	err := f.job.Begin(found)
	if err != nil && !isFinal(err) {
		return localError{err}
	}
	return err
}

// isFinal reports whether an error ends the fill, whatever source it came from.
func isFinal(err error) bool {
	var local localError
	return errors.Is(err, seed.ErrChanged) || errors.Is(err, seed.ErrNotSupported) ||
		errors.Is(err, seed.ErrConflict) || errors.As(err, &local)
}

// answered handles a status other than OK.
func (f *fill) answered(ctx context.Context, p peer.ID, e *rangeread.Error) error {
	switch { // who is asked for bytes alone: what else he says is not his to say
	case p == f.holder && e.Status != rangeread.StatusRefer:
		f.unheld[p] = true
		return nil
	case p == f.nearby, !f.cfg.Map.MayGrant(p) && f.refuses(e.Status):
		f.failed[p] = true
		return nil
	}
	switch e.Status {
	case rangeread.StatusGrant:
		// A seed's word counts, unless the job has a grant that it may not know yet;
		// with one of another generation. Anybody else may lie.
		if f.cfg.Map.MayGrant(p) && (!f.job.Private() || !f.job.Known.IsZero()) {
			return seed.ErrPrivate
		}
		f.failed[p], f.private = true, true
		return nil
	case rangeread.StatusNotSupported:
		return fmt.Errorf("%w: %s", seed.ErrNotSupported, e.Detail)
	case rangeread.StatusChanged:
		return f.changedBy(p, e.Detail)
	case rangeread.StatusRange:
		return &seed.RangeError{Size: e.Size}
	case rangeread.StatusOriginError:
		f.failed[p] = true
		return f.refuse(&seed.OriginError{Status: e.OriginStatus, RetryAfter: e.RetryAfter, Detail: e.Detail})
	case rangeread.StatusRefer:
		if len(e.Holders) == 0 {
			f.failed[p] = true
			return nil
		}
		if f.mustNotFollow() {
			return nil // nobody is referred twice
		}
		if f.referred(e.Holders) {
			return f.learn(ctx, p)
		}
		fallthrough // those whom it names are of no use: later it serves itself
	case rangeread.StatusBusy:
		wait := min(max(e.RetryAfter, busyDelay), time.Second)
		// It lives, and its first byte is that far away: among seeds that are as
		// good as one another the readers go to those with less to do.
		f.cfg.Health.Success(p, wait)
		if f.waited += wait; f.waited > busyTime {
			f.cfg.Health.Failure(p)
			f.failed[p] = true
			return nil
		}
		if f.busy++; f.busy > busyTries {
			f.failed[p] = true
			return nil
		}
		return sleep(ctx, wait)
	case rangeread.StatusNotFound:
		f.lacked[p] = true
		return nil
	default:
		f.failed[p] = true
		return nil
	}
}

// refuses reports whether a status says something of the file, or of its origin,
// that ends a fill; or sends a reader elsewhere that does not know yet what it reads,
// which takes nobody's word for it but a seed's.
func (f *fill) refuses(s rangeread.Status) bool {
	switch s {
	case rangeread.StatusNotSupported, rangeread.StatusChanged, rangeread.StatusRange, rangeread.StatusOriginError:
		return true
	case rangeread.StatusRefer:
		_, known := f.job.Meta()
		return !known
	default:
		return false
	}
}

// changedBy takes a peer's word that the file is no longer of the generation that
// was asked for. Another seed is asked, in its place, once, before that is believed:
// it costs an origin whose file has changed one request more. Who was asked for no
// generation has broken the protocol.
func (f *fill) changedBy(p peer.ID, detail string) error {
	f.failed[p] = true
	_, known := f.job.Meta()
	switch {
	case !known && f.job.Expect.IsZero():
	case f.changed != nil || len(f.dead) >= rangeread.MaxPath || len(f.job.Path) > 0 && f.cfg.Map.IsSeed(f.job.Task.ID):
		return fmt.Errorf("%w: %s", seed.ErrChanged, detail)
	default:
		f.changed = fmt.Errorf("%w: %s", seed.ErrChanged, detail)
		f.dead = append(f.dead, p)
	}
	return nil
}

// refuse takes the origin's refusal. What a client did wrong is final; else
// what peers hold may still serve.
func (f *fill) refuse(e *seed.OriginError) error {
	f.refused, f.noFill = e, true
	f.job.Refused(e)
	if e.Status >= 300 && e.Status < 500 && e.Status != 429 {
		return e
	}
	return nil
}
