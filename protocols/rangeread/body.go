package rangeread

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread/pb"
)

// ErrUntrusted: a block is signed by a peer that may not sign. The source may
// be honest: its map may be newer than ours.
var ErrUntrusted = errors.New("block signed by a peer that is not known as a seed")

// Body is the answer to one request. Not safe for concurrent use.
type Body struct {
	// Header of the answer. A Size of -1 says that nobody knows it yet: the body
	// is then all of the file, whatever was asked, and Size is set when Next
	// returns io.EOF.
	Header Header

	client *Client
	pool   *pool
	peer   peer.ID
	conn   *conn
	req    Request
	stop   func() bool

	pos, end int64 // what is still to come, widened to leaves
	done     bool  // END was read
	closed   bool
	short    bool      // the last leaf of a file of unknown size has come
	failed   error     // what Next returned last
	proofs   int       // since the last DATA
	waiting  time.Time // when the source began to say nothing but WAIT; zero while it does not
	briefly  time.Time // the same of WAIT that is not for the origin
	proven   proven
	spare    []byte
}

// proven is what the last PROOF covers.
type proven struct {
	block       int64
	first, last int // leaves [first, last) of the block
	complete    bool
	seal        content.Seal
	slice       []byte // valid until the next message
	inc         content.Increment
	unit        int64 // of a part of a leaf; 0 for whole leaves
	sparse      bool  // slice has not the parents within a DATA frame: each makes its own
	fresh       bool  // not yet handed out
}

// Piece is one stretch of verified bytes.
type Piece struct {
	// Block is the index of the block that the piece belongs to.
	Block int64
	// Off is the offset in the file of Data, which is whole leaves of the
	// block, or a part of one where Request.Small allowed it, or empty in a piece
	// that only closes a block.
	Off  int64
	Data []byte
	// Increment is set on the first piece that it covers: leaves of a block
	// that is still arriving. Its signature has been checked.
	Increment *content.Increment
	// Leaves are the hashes of the leaves of Data where an increment says them, not
	// a root.
	Leaves []content.LeafHash
	// Seal is set on pieces of a complete block, on the first or on all, and on a
	// piece that closes one. Its signature has been checked unless the signer is the
	// source itself; see Client.VerifySeal. A part of a leaf comes without.
	Seal *content.Seal
	// Slice comes with Seal: the tree's parents for leaves [First, Last) of the
	// block, which content.ExpandSlice reads. Valid until the next call.
	Slice       []byte
	First, Last int
}

// start sends the request and reads up to the header; heard reports whether
// the source said anything.
func (b *Body) start() (heard bool, err error) {
	if err := b.conn.send(&b.req); err != nil {
		return false, err
	}
	for {
		k, n, err := readFrameHead(b.conn.br)
		if err != nil {
			return heard, err
		}
		heard = true
		switch k {
		case kindWait:
			if err := b.wait(n); err != nil {
				return true, err
			}
		case kindHeader:
			b.waiting, b.briefly = time.Time{}, time.Time{}
			return true, b.header(n)
		default:
			return true, fmt.Errorf("%w: frame of kind %d before the header", ErrProtocol, k)
		}
	}
}

// wait reads a WAIT.
func (b *Body) wait(n int) error {
	var m pb.Wait
	var scr scratch // the read's own may hold a proof
	if err := scr.read(b.conn.br, n, &m); err != nil {
		return err
	}
	now, brief := time.Now(), b.req.Brief > 0 && m.GetReason() != WaitOrigin
	if b.waiting.IsZero() {
		b.waiting = now
	}
	if !brief {
		b.briefly = time.Time{}
	} else if b.briefly.IsZero() {
		b.briefly = now
	}
	if brief && now.Sub(b.briefly) > b.req.Brief || now.Sub(b.waiting) > b.patience() {
		return ErrStalled
	}
	return nil
}

// patience is for how long the source may say nothing but WAIT.
func (b *Body) patience() time.Duration {
	if b.req.Patience > 0 {
		return min(b.req.Patience, b.client.cfg.Patience)
	}
	d := b.client.cfg.Patience
	if len(b.req.Path) > 1 {
		d -= d / 6
	}
	if b.req.FillOnly || b.Header.Sequential && b.Header.Size >= 0 {
		d *= longPatience
	}
	return d
}

func (b *Body) header(n int) error {
	cn := b.conn
	raw, err := cn.scr.bytes(cn.br, n)
	if err != nil {
		return err
	}
	if !bytes.Equal(raw, cn.rawHeader) || n == 0 {
		cn.rawHeader = cn.rawHeader[:0]
		var m pb.Header
		if err := unmarshal(raw, &m, bytesField(9)); err != nil {
			return err
		}
		cn.header, err = unmarshalHeader(&m, b.peer)
		var answer *Error
		if errors.As(err, &answer) {
			if e := b.readEnd(); e != nil {
				return e
			}
			return err
		}
		if err != nil {
			return err
		}
		cn.rawHeader = append(cn.rawHeader, raw...)
	}
	h := cn.header
	if g := b.req.Generation; !g.IsZero() && h.Generation != g {
		return fmt.Errorf("%w: asked for generation %s, header says %s", ErrProtocol, g, h.Generation)
	}
	if r := b.req.Range; r.Len > 0 && h.Size >= 0 && r.Off >= h.Size {
		return fmt.Errorf("%w: asked for byte %d, header says %d bytes", ErrProtocol, r.Off, h.Size)
	}
	b.Header = h
	asked := b.req.body(h.Size)
	b.pos, b.end = asked.Off, asked.End()
	return nil
}

// Widen returns the range that a source sends for an asked one: whole leaves,
// cut at the file's end. A small request may be answered with less; see
// Request.Small.
func Widen(asked content.Range, size int64) content.Range {
	return asked.Align(content.LeafSize).Intersect(content.Range{Len: size})
}

// sizeOf is the size of a file in the names of its blocks.
func sizeOf(size int64) int64 {
	if size < 0 {
		return content.OpenSize
	}
	return size
}

// body returns the range whose bytes an answer has, of a file of size bytes.
func (r *Request) body(size int64) content.Range {
	if r.FillOnly {
		return content.Range{}
	}
	if size < 0 {
		if r.Range.Empty() {
			return content.Range{}
		}
		return content.Range{Len: content.OpenSize}
	}
	return Widen(r.Range, size)
}

func (b *Body) readEnd() error {
	k, n, err := readFrameHead(b.conn.br)
	if err != nil {
		return noEOF(err)
	}
	if k != kindEnd || n != 0 {
		return fmt.Errorf("%w: frame of kind %d in place of the end", ErrProtocol, k)
	}
	b.done = true
	return nil
}

// Next returns the next verified bytes, in order and without gaps. buf, where
// not nil, is asked for the memory to read n bytes at offset off into; what it
// returns may have been overwritten with wrong bytes when Next fails. With a
// nil buf the piece's Data is valid until the next call.
//
// io.EOF says that all of the range was yielded. Other errors: *Error when the
// source gave up (what was yielded counts), ErrSilent, ErrStalled, ErrCorrupt,
// ErrUntrusted, ErrProtocol, and those of the connection.
func (b *Body) Next(buf func(off int64, n int) []byte) (Piece, error) {
	if b.failed != nil {
		return Piece{}, b.failed
	}
	p, err := b.next(buf)
	if err == nil {
		return p, nil
	}
	b.failed = err
	if err != io.EOF { //nolint:errorlint // ours, bare
		b.client.count(err)
		var answer *Error
		if !errors.As(err, &answer) {
			b.failed = fmt.Errorf("at byte %d from %s: %w", b.pos, b.peer, err)
		}
	}
	return Piece{}, b.failed
}

func (b *Body) next(buf func(off int64, n int) []byte) (Piece, error) {
	for {
		k, n, err := readFrameHead(b.conn.br)
		if err != nil {
			return Piece{}, noEOF(err)
		}
		switch k {
		case kindWait:
			if err := b.wait(n); err != nil {
				return Piece{}, err
			}
		case kindProof:
			if closing, err := b.proof(n); err != nil || closing {
				return b.piece(nil), err
			}
		case kindData:
			data, err := b.data(n, buf)
			if err != nil {
				return Piece{}, err
			}
			return b.piece(data), nil
		case kindError:
			return Piece{}, b.gaveUp(n)
		case kindEnd:
			if err := b.ended(n); err != nil {
				return Piece{}, err
			}
			b.done = true
			b.client.metrics.answers.inc(StatusOK)
			return Piece{}, io.EOF
		default:
			return Piece{}, fmt.Errorf("%w: second header", ErrProtocol)
		}
	}
}

// ended checks an END of n bytes.
func (b *Body) ended(n int) error {
	if b.Header.Size >= 0 || b.end == 0 {
		if b.pos < b.end || n != 0 {
			return fmt.Errorf("%w: end at %d of %d", ErrProtocol, b.pos, b.end)
		}
		return nil
	}
	raw, err := b.conn.scr.bytes(b.conn.br, n)
	if err != nil {
		return err
	}
	size, used := binary.Uvarint(raw)
	if used != n || n == 0 || size != uint64(b.pos) {
		return fmt.Errorf("%w: end at %d, said to be %d", ErrProtocol, b.pos, size)
	}
	b.Header.Size, b.end = b.pos, b.pos
	return nil
}

// gaveUp reads an ERROR.
func (b *Body) gaveUp(n int) error {
	m := new(pb.Error)
	if err := b.conn.scr.read(b.conn.br, n, m); err != nil {
		return err
	}
	if m.Status == StatusOK {
		return fmt.Errorf("%w: error frame with status OK", ErrProtocol)
	}
	if err := b.readEnd(); err != nil {
		return err
	}
	b.client.metrics.answers.inc(m.Status)
	return unmarshalError(m, b.peer)
}

// piece hands out data, with the proof where it is new.
func (b *Body) piece(data []byte) Piece {
	pr := &b.proven
	p := Piece{Block: pr.block, Off: b.pos - int64(len(data)), Data: data}
	if len(data) > 0 && !pr.complete {
		first := int(p.Off%content.BlockSize/content.LeafSize) - pr.inc.First
		p.Leaves = pr.inc.Hashes[first : first+content.Leaves(int64(len(data)))]
	}
	if pr.sparse {
		b.sparsePiece(&p)
	} else if pr.fresh {
		pr.fresh = false
		if pr.complete {
			seal := pr.seal
			p.Seal = &seal
			p.Slice, p.First, p.Last = pr.slice, pr.first, pr.last
		} else {
			inc := pr.inc
			p.Increment = &inc
		}
	}
	return p
}

// sparsePiece adds the proof of a piece of which the slice that came lacks the
// inner parents: the data have made them.
func (b *Body) sparsePiece(p *Piece) {
	seal, size := b.proven.seal, b.name(p.Block).Bytes().Len
	p.Seal = &seal
	p.First = int(p.Off % content.BlockSize / content.LeafSize)
	p.Last = p.First + content.Leaves(int64(len(p.Data)))
	b.conn.slice = content.AppendSlice(b.conn.slice[:0], b.conn.outboard, content.Leaves(size), p.First, p.Last)
	p.Slice = b.conn.slice
}

// Close ends the read. The stream goes back to the pool if END was read, and is
// reset otherwise. It may be called more than once.
func (b *Body) Close() error {
	if !b.closed {
		b.release()
		b.client.leave(b.peer, b.pool)
	}
	return nil
}

// release gives the stream back.
func (b *Body) release() {
	b.closed = true
	// Bytes behind END would be taken for the next answer.
	whole := b.stop() && b.done && b.conn.br.Buffered() == 0
	b.client.put(b.pool, b.conn, whole)
}
