package rangeread

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread/pb"
)

// Answer is where a Handler writes one answer. Not safe for concurrent use, and
// not to be used after Serve returned.
type Answer struct {
	session *session
	fw      *frameWriter
	req     Request
	header  bool
	pos     int64 // next byte to send
	end     int64
	sent    int64
	size    int64
	open    bool  // the size is not known yet
	final   int64 // what it turned out to be; -1 before
	broken  error // of the stream: nothing more can be sent
}

// WaitReason says what a source waits for.
type WaitReason = pb.Wait_Reason

// Reasons to wait.
const (
	WaitOrigin = pb.Wait_ORIGIN
	WaitPeer   = pb.Wait_PEER
	WaitQueue  = pb.Wait_QUEUE
	WaitDisk   = pb.Wait_DISK
)

// errUse marks a Handler that broke the rules of Answer.
var errUse = errors.New("rangeread: answer used out of order")

// stream remembers an error of the stream.
func (a *Answer) stream(err error) error {
	if err != nil && a.broken == nil && !errors.Is(err, errTooLarge) {
		a.broken = err
	}
	return err
}

// Header starts the answer with status OK. It returns the range to send: the
// asked one, widened to leaves and cut at the file's end; an empty one where no
// bytes are wanted. An offset behind the
// end is answered with an *Error of StatusRange. With a negative size, which is
// not known yet, it is all of the file, to be sent in increments until Ended.
func (a *Answer) Header(h Header) (content.Range, error) {
	if a.header {
		return content.Range{}, errUse
	}
	if r := a.req.Range; r.Len > 0 && h.Size >= 0 && r.Off >= h.Size {
		return content.Range{}, &Error{Status: StatusRange, Size: h.Size, Detail: fmt.Sprintf("offset %d of %d bytes", r.Off, h.Size)}
	}
	if !a.req.Fields {
		h.Fields = ""
	}
	b, err := h.append(a.session.room[:0])
	if err == nil {
		a.session.room = b
		err = a.stream(a.fw.frame(kindHeader, b))
	}
	if err != nil {
		return content.Range{}, err
	}
	r := a.req.body(h.Size)
	a.header, a.size, a.pos, a.end = true, sizeOf(h.Size), r.Off, r.End()
	a.open, a.final = h.Size < 0, -1
	return r, nil
}

// Sent returns how many bytes of the file were sent so far.
func (a *Answer) Sent() int64 { return a.sent }

func (a *Answer) block(i int64) content.Range { return content.Layout{Size: a.size}.Block(i) }

// leaves returns the leaves of block i from the next byte to send up to byte
// to, which is on a leaf's edge or at the end of the answer or the block.
func (a *Answer) leaves(i, to int64) (first, last int, err error) {
	b := a.block(i)
	if !a.header || a.pos < b.Off || a.pos >= to || to > min(b.End(), a.end) {
		return 0, 0, fmt.Errorf("%w: block %d up to %d at %d", errUse, i, to, a.pos)
	}
	return int((a.pos - b.Off) / content.LeafSize), content.Leaves(to - b.Off), nil
}

// Complete sends what the answer still needs of block i up to byte to, which is
// on a leaf's edge or at or behind the block's end. The block's root is known;
// of the outboard the path to these leaves is used. read must fill p with the
// file's bytes from off on.
func (a *Answer) Complete(i, to int64, seal content.Seal, outboard []byte, read func(p []byte, off int64) error) error {
	b := a.block(i)
	to = min(to, b.End(), a.end)
	first, last, err := a.leaves(i, to)
	if err != nil {
		return err
	}
	p := a.proof(i, seal.Signer, seal.Sig)
	p.root = append(p.root, seal.Root[:]...)
	p.first, p.leaves = uint32(first), uint32(last-first)
	slice := content.AppendSlice
	if a.req.sparse {
		slice, p.sparse = content.AppendSparse, content.SparseLeaves
	}
	p.slice = slice(p.slice, outboard, content.Leaves(b.Len), first, last)
	if part, unit := content.Part(a.req.Range, a.size); a.req.Small && unit < content.LeafSize {
		return a.part(p, part, unit, read)
	}
	if err := a.send(p); err != nil {
		return err
	}
	return a.data(to, read)
}

// proof returns the session's proof, emptied, for a block.
func (a *Answer) proof(block int64, signer peer.ID, sig []byte) *proof {
	p := &a.session.proof
	*p = proof{
		block: uint64(block), root: p.root[:0], slice: p.slice[:0], hashes: p.hashes[:0],
		signer: append(p.signer[:0], signer...), sig: sig,
	}
	return p
}

func (a *Answer) send(p *proof) error {
	s := a.session
	s.room = p.append(s.room[:0])
	return a.stream(a.fw.frame(kindProof, s.room))
}

// Increment sends those leaves of an increment of block i, up to byte to, that
// come next and that the answer needs. The increment must cover the next byte.
func (a *Answer) Increment(i, to int64, inc content.Increment, read func(p []byte, off int64) error) error {
	b := a.block(i)
	to = min(to, b.Off+int64(inc.End())*content.LeafSize, b.End(), a.end)
	first, _, err := a.leaves(i, to)
	if err != nil {
		return err
	}
	if inc.First > first {
		return fmt.Errorf("%w: increment from leaf %d at leaf %d", errUse, inc.First, first)
	}
	p := a.proof(i, inc.Signer, inc.Sig)
	for _, h := range inc.Hashes {
		p.hashes = append(p.hashes, h[:]...)
	}
	p.first, p.leaves = uint32(inc.First), uint32(len(inc.Hashes))
	if err := a.send(p); err != nil {
		return err
	}
	return a.data(to, read)
}

// Ended says that the file ends where the answer has come to, of one whose size
// was not known.
func (a *Answer) Ended() error {
	if !a.header || !a.open || a.req.Range.Empty() {
		return fmt.Errorf("%w: end at %d", errUse, a.pos)
	}
	a.final, a.end = a.pos, a.pos
	return nil
}

// Seal closes block i, which was sent in increments up to its end.
func (a *Answer) Seal(i int64, seal content.Seal) error {
	if b := a.block(i); !a.header || a.pos != b.End() {
		return fmt.Errorf("%w: seal of block %d at %d", errUse, i, a.pos)
	}
	p := a.proof(i, seal.Signer, seal.Sig)
	p.root = append(p.root, seal.Root[:]...)
	return a.send(p)
}

// data sends the bytes up to to.
func (a *Answer) data(to int64, read func(p []byte, off int64) error) error {
	for a.pos < to {
		// Where a proof is sparse a frame has whole subtrees.
		n := min(to, (a.pos/MaxData+1)*MaxData) - a.pos
		if err := a.pace(n); err != nil {
			return err
		}
		p, undo, err := a.fw.data(int(n))
		if a.stream(err) != nil {
			return err
		}
		if err := read(p, a.pos); err != nil {
			a.fw.undo(undo)
			return err
		}
		a.pos += n
		a.sent += n
		if n == MaxData {
			if err := a.stream(a.fw.spill()); err != nil {
				return err
			}
		}
	}
	return nil
}

// pace waits where ServerConfig.Pace says so, as any source does that waits its
// turn.
func (a *Answer) pace(n int64) error {
	srv := a.session.srv
	if srv.cfg.Pace == nil {
		return nil
	}
	wait := srv.cfg.Pace(a.session.from, int(n))
	if wait <= 0 || n <= content.LeafSize {
		return nil
	}
	due := make(chan struct{})
	t := time.AfterFunc(wait, func() { close(due) })
	defer t.Stop()
	return a.Wait(context.Background(), WaitQueue, due) // ends with the stream, as that does with the server
}

// Pos returns the offset of the next byte to send; Done whether all was sent.
func (a *Answer) Pos() int64 { return a.pos }

// Done reports whether every byte of the answer was sent.
func (a *Answer) Done() bool { return a.header && a.pos >= a.end }

// Flush sends what is gathered. Wait does it by itself.
func (a *Answer) Flush() error {
	if a.broken != nil {
		return a.broken
	}
	return a.stream(a.fw.flush())
}

// Wait returns nil when done is closed, having kept the reader informed. It
// returns an error when ctx ends or the reader is gone.
func (a *Answer) Wait(ctx context.Context, reason WaitReason, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	default:
	}
	if err := a.Flush(); err != nil {
		return err
	}
	start := time.Now()
	t := time.NewTicker(WaitEvery)
	defer t.Stop()
	for {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.C:
			m := &pb.Wait{Reason: reason, AgeMs: uint32(time.Since(start) / time.Millisecond)}
			if err := a.stream(a.fw.generated(kindWait, m)); err != nil {
				return err
			}
			if err := a.Flush(); err != nil {
				return err
			}
		}
	}
}

// Peer returns the first reader of the request's path, or from.
func (r Request) Peer(from peer.ID) peer.ID {
	if len(r.Path) > 0 {
		return r.Path[0]
	}
	return from
}

// finish writes the outcome and END.
func (a *Answer) finish(err error) error {
	switch {
	case err == nil:
	case a.header:
		err = a.fw.generated(kindError, asError(err).message())
	default:
		err = a.fw.generated(kindHeader, asError(err).header())
	}
	if err != nil {
		return err
	}
	if a.header && a.open && a.final >= 0 {
		return a.fw.endAt(a.final)
	}
	return a.fw.end()
}

// close makes every later use fail.
func (a *Answer) close() {
	a.fw.release()
	a.header, a.pos, a.broken = true, -1, errUse
}
