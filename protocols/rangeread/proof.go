package rangeread

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
)

func (b *Body) name(block int64) content.BlockName {
	return content.BlockName{Task: b.req.Task, Generation: b.Header.Generation, FileSize: sizeOf(b.Header.Size), Index: block}
}

// proof reads and checks a PROOF; closing says that it only closes a block.
func (b *Body) proof(n int) (closing bool, err error) {
	raw, err := b.conn.scr.bytes(b.conn.br, n)
	if err != nil {
		return false, err
	}
	m, err := decodeProof(raw)
	if err != nil {
		return false, err
	}
	signer, err := b.signer(m.signer)
	if err != nil {
		return false, err
	}
	if b.proofs++; b.proofs > maxProofs {
		return false, fmt.Errorf("%w: %d proofs and no data", ErrProtocol, b.proofs)
	}
	block, at := b.pos/content.BlockSize, b.pos
	closing = len(m.root) > 0 && m.leaves == 0
	if closing {
		block = (b.pos - 1) / content.BlockSize
	}
	name := b.name(block)
	span := name.Bytes()
	if m.block != uint64(block) || span.Empty() || !closing && at >= b.end || closing && at != span.End() {
		return false, fmt.Errorf("%w: proof of block %d at byte %d", ErrProtocol, m.block, b.pos)
	}
	first := int((at - span.Off) / content.LeafSize)
	if len(m.root) > 0 {
		return closing, b.completeProof(&m, name, signer, first, closing)
	}
	return false, b.incrementProof(&m, name, signer, first)
}

// signer reads a peer ID; on a stream it is the same again and again.
func (b *Body) signer(raw []byte) (peer.ID, error) {
	if last := b.conn.signer; last != "" && string(raw) == string(last) {
		return last, nil
	}
	id, err := peer.IDFromBytes(raw)
	if err != nil {
		return "", fmt.Errorf("%w: signer: %w", ErrProtocol, err)
	}
	b.conn.signer = id
	return id, nil
}

func (b *Body) completeProof(m *proof, name content.BlockName, signer peer.ID, first int, closing bool) error {
	if b.Header.Size < 0 {
		return fmt.Errorf("%w: root of a block of a file that has no end yet", ErrProtocol)
	}
	if len(m.root) != content.HashSize || len(m.hashes) != 0 || m.sparse != 0 && (m.sparse != content.SparseLeaves || !b.req.sparse || m.part != 0 || closing) {
		return fmt.Errorf("%w: root of %d bytes", ErrProtocol, len(m.root))
	}
	seal := content.Seal{Root: content.Root(m.root), Signer: signer, Sig: m.sig}
	if err := b.client.checkSeal(b.peer, name, seal); err != nil {
		return err
	}
	b.proven = proven{block: name.Index, complete: true, seal: seal, slice: m.slice, fresh: true}
	if m.part == 0 {
		b.proven.seal.Sig = slices.Clone(m.sig) // the caller keeps it
	}
	if closing {
		if len(m.slice) != 0 || m.part != 0 {
			return fmt.Errorf("%w: closing proof with a slice", ErrProtocol)
		}
		return nil
	}
	size := name.Bytes().Len
	last := first + int(m.leaves)
	if int(m.first) != first || m.leaves > content.LeavesPerBlock || last > content.Leaves(size) {
		return fmt.Errorf("%w: proof of leaves %d+%d at leaf %d", ErrProtocol, m.first, m.leaves, first)
	}
	if m.part != 0 {
		return b.partProof(m, first)
	}
	if want := content.OutboardSize(size); cap(b.conn.outboard) < want {
		b.conn.outboard = make([]byte, content.OutboardSize(content.BlockSize))
	}
	b.conn.outboard = b.conn.outboard[:content.OutboardSize(size)]
	expand := content.ExpandSlice
	if m.sparse != 0 {
		expand = content.ExpandSparse
	}
	if err := expand(b.conn.outboard, m.slice, size, first, last); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	b.proven.first, b.proven.last, b.proven.sparse = first, last, m.sparse != 0
	return nil
}

// partProof narrows the answer to a part of its only leaf.
func (b *Body) partProof(m *proof, leaf int) error {
	part, unit := content.Part(b.req.Range, b.Header.Size)
	if !b.req.Small || m.leaves != 1 || int64(m.part) != unit || unit == content.LeafSize {
		return fmt.Errorf("%w: part of %d bytes for %s", ErrProtocol, m.part, b.req.Range)
	}
	b.proven.first, b.proven.last, b.proven.unit, b.proven.fresh = leaf, leaf+1, unit, false
	b.pos, b.end = part.Off, part.End()
	return nil
}

func (b *Body) incrementProof(m *proof, name content.BlockName, signer peer.ID, first int) error {
	n := len(m.hashes) / content.HashSize
	if len(m.slice) != 0 || m.part != 0 || m.sparse != 0 || n == 0 || n > content.LeavesPerBlock || len(m.hashes)%content.HashSize != 0 || int(m.leaves) != n {
		return fmt.Errorf("%w: %d bytes of leaf hashes", ErrProtocol, len(m.hashes))
	}
	inc := content.Increment{First: int(m.first), Signer: signer, Sig: append([]byte(nil), m.sig...)}
	inc.Hashes = make([]content.LeafHash, n)
	for i := range inc.Hashes {
		inc.Hashes[i] = content.LeafHash(m.hashes[i*content.HashSize:])
	}
	if m.first > content.LeavesPerBlock || inc.First > first || inc.End() <= first {
		return fmt.Errorf("%w: increment of leaves %d to %d at leaf %d", ErrProtocol, inc.First, inc.End(), first)
	}
	if b.Header.Size < 0 && signer != b.peer {
		return fmt.Errorf("%w: %s sends a file that has no end yet, and %s signs it: nobody could tell where it ends", ErrUntrusted, b.peer, signer)
	}
	if !b.client.cfg.Trusted(signer) {
		return fmt.Errorf("%w: %s", ErrUntrusted, signer)
	}
	if err := inc.Verify(name); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	b.proven = proven{block: name.Index, first: first, last: inc.End(), inc: inc, fresh: true}
	return nil
}

// data reads and checks a DATA frame.
func (b *Body) data(n int, buf func(off int64, n int) []byte) ([]byte, error) {
	pr := &b.proven
	block := b.name(pr.block).Bytes()
	from, to := b.pos, b.pos+int64(n)
	leafEnd := min(block.Off+int64(pr.last)*content.LeafSize, block.End())
	atEdge := to%content.LeafSize == 0 || to == block.End() || pr.unit != 0 && to == b.end
	open := b.Header.Size < 0
	if open && !b.short && !atEdge { // where the file ends
		b.short, atEdge = true, true
	}
	if pr.sparse && to%MaxData != 0 && to != leafEnd {
		return nil, fmt.Errorf("%w: data of %d bytes at %d is a part of what one hash proves", ErrProtocol, n, b.pos)
	}
	if n == 0 || b.short && from%content.LeafSize != 0 || pr.last == 0 || from < block.Off || to > leafEnd || to > b.end || !atEdge {
		return nil, fmt.Errorf("%w: data of %d bytes at %d is not what was proven", ErrProtocol, n, b.pos)
	}
	var p []byte
	if buf != nil {
		p = buf(from, n)[:n]
	} else {
		if cap(b.spare) < n {
			b.spare = make([]byte, n)
		}
		p = b.spare[:n]
	}
	in := p
	if pr.unit != 0 {
		in = b.conn.leaf(n)
	}
	if _, err := io.ReadFull(b.conn.br, in); err != nil {
		return nil, noEOF(err)
	}
	if !b.matches(in, from-block.Off, block.Len) {
		return nil, fmt.Errorf("%w: leaf of block %d", ErrCorrupt, pr.block)
	}
	if pr.unit != 0 {
		copy(p, in)
	}
	b.pos, b.proofs, b.waiting = to, 0, time.Time{}
	b.briefly = time.Time{}
	b.client.metrics.bytes.Add(float64(n))
	b.client.received.Add(int64(n))
	return p, nil
}

// matches checks leaves at byte off of a block against the proof.
func (b *Body) matches(p []byte, off, size int64) bool {
	pr := &b.proven
	if pr.unit != 0 {
		return content.VerifyPart(p, pr.slice, size, off, pr.unit, pr.seal.Root)
	}
	if pr.sparse {
		return content.FillLeaves(p, b.conn.outboard, off, pr.first, pr.last, pr.seal.Root)
	}
	if pr.complete {
		return content.VerifyLeaves(p, b.conn.outboard, off, pr.seal.Root)
	}
	for len(p) > 0 {
		leaf := p[:min(len(p), content.LeafSize)]
		i := int(off / content.LeafSize)
		if content.HashLeaf(leaf, i, content.Leaves(size)) != pr.inc.Hashes[i-pr.inc.First] {
			return false
		}
		p, off = p[len(leaf):], off+int64(len(leaf))
	}
	return true
}
