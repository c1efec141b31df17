package rangeread

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread/pb"
)

// growing answers as a source does whose blocks are still arriving: in
// increments, signed by the owner, with a seal at the end of each block, or from
// some leaf on as of a complete block.
type growing struct {
	*memory
	key    crypto.PrivKey
	signer peer.ID
	// step returns how many leaves the next increment has and how many of them
	// are sent at a time; 0 goes over to the complete block.
	step func() (signed, sent int)
}

func (g *growing) increment(t testing.TB, block int64, first, n int) content.Increment {
	b := g.meta.Layout().Block(block)
	var hashes []content.LeafHash
	for i := first; i < first+n; i++ {
		from := b.Off + int64(i)*content.LeafSize
		hashes = append(hashes, content.HashLeaf(g.data[from:min(from+content.LeafSize, b.End())], i, content.Leaves(b.Len)))
	}
	inc, err := content.SignIncrement(g.key, g.signer, g.name(block), first, hashes)
	if err != nil {
		t.Fatal(err)
	}
	return inc
}

func (g *growing) handler(t testing.TB) handler {
	return func(_ context.Context, req Request, a *Answer) error {
		r, err := a.Header(Header{Meta: g.meta, Source: SourceOrigin})
		if err != nil {
			return err
		}
		first, end := content.BlockSpan(r)
		for i := first; i < end; i++ {
			if err := g.block(t, i, a); err != nil {
				return err
			}
		}
		return nil
	}
}

func (g *growing) block(t testing.TB, i int64, a *Answer) error {
	b := g.meta.Layout().Block(i)
	for a.Pos() < b.End() && !a.Done() {
		leaf := int((a.Pos() - b.Off) / content.LeafSize)
		signed, sent := g.step()
		if signed == 0 {
			return a.Complete(i, b.End(), g.seals[i], g.outboards[i], g.read)
		}
		// The increment may begin before the first leaf that was asked for.
		first := max(0, leaf-signed/2)
		inc := g.increment(t, i, first, min(signed+leaf-first, content.Leaves(b.Len)-first))
		for leaf < inc.End() && !a.Done() {
			leaf = min(leaf+sent, inc.End())
			if err := a.Increment(i, b.Off+int64(leaf)*content.LeafSize, inc, g.read); err != nil {
				return err
			}
			if err := a.Flush(); err != nil {
				return err
			}
		}
	}
	if a.Pos() == b.End() {
		return a.Seal(i, g.seals[i])
	}
	return nil
}

// Bytes of blocks that are still arriving come in increments of any size, leaf
// by leaf or several at a time, and each block is closed by its seal; a block
// may become complete at any leaf.
func TestIncrements(t *testing.T) {
	key, id := p2ptest.Key(t)
	rnd := rand.New(rand.NewPCG(3, 3))
	for _, size := range []int64{1, content.LeafSize + 1, content.BlockSize - 1, content.BlockSize, 2*content.BlockSize + 100} {
		m := newMemory(t, size, key, id)
		g := &growing{memory: m, key: key, signer: id}
		e := serve(t, g.handler(t), id)
		for round := range 12 {
			g.step = func() (int, int) { return 1 + rnd.IntN(16), 1 + rnd.IntN(4) }
			switch round {
			case 0:
				g.step = func() (int, int) { return 1, 1 }
			case 1:
				g.step = func() (int, int) { return content.LeavesPerBlock, content.LeavesPerBlock }
			case 2, 3, 4, 5:
				g.step = func() (int, int) { return rnd.IntN(8), 1 + rnd.IntN(4) }
			}
			off := rnd.Int64N(size)
			if round < 4 {
				off = 0
			}
			req := m.request(off, size)
			req.Small = round%2 == 0 // must not matter: increments are of leaves
			checkPieces(t, m, mustRead(t, e.client, e.source, m, req))
		}
	}
}

// checkPieces checks what comes with the bytes of a growing file.
func checkPieces(t *testing.T, m *memory, r result) {
	t.Helper()
	sealed := map[int64]int{} // by block, the leaf up to which its seal covers what came
	for _, p := range r.pieces {
		name := m.name(p.Block)
		if p.Increment != nil {
			if err := p.Increment.Verify(name); err != nil {
				t.Fatal(err)
			}
		}
		checkLeaves(t, m, p)
		if p.Seal != nil {
			if last, again := sealed[p.Block]; again && (p.First != last || p.Last <= last) {
				t.Errorf("block %d comes with its seal for leaves [%d,%d), and before up to %d", p.Block, p.First, p.Last, last)
			}
			sealed[p.Block] = p.Last
			if p.Seal.Root != m.seals[p.Block].Root || p.Seal.Verify(name) != nil {
				t.Fatalf("seal of block %d is not its own", p.Block)
			}
			if len(p.Slice) != content.SliceSize(content.Leaves(name.Bytes().Len), p.First, p.Last) {
				t.Fatalf("slice of %d bytes for leaves [%d,%d)", len(p.Slice), p.First, p.Last)
			}
		}
	}
	first, end := content.BlockSpan(content.Range{Off: r.off, Len: int64(len(r.data))})
	for i := first; i < end; i++ {
		if _, ok := sealed[i]; !ok {
			t.Errorf("block %d has no seal", i)
		}
	}
}

// checkLeaves checks the hashes that come with a piece of increments.
func checkLeaves(t *testing.T, m *memory, p Piece) {
	t.Helper()
	if p.Increment != nil && len(p.Leaves) == 0 {
		t.Fatalf("the piece at %d comes without the hashes of its leaves", p.Off)
	}
	block := m.name(p.Block).Bytes()
	for i, h := range p.Leaves {
		at := p.Off + int64(i)*content.LeafSize
		leaf := m.data[at:min(at+content.LeafSize, block.End())]
		if content.HashLeaf(leaf, int((at-block.Off)/content.LeafSize), content.Leaves(block.Len)) != h {
			t.Fatalf("a wrong hash of leaf %d of the piece at %d", i, p.Off)
		}
	}
}

// What a source says of a growing block is checked before a byte of it is used:
// who signed, what, and whether he may.
func TestIncrementsForged(t *testing.T) {
	key, id := p2ptest.Key(t)
	other, otherID := p2ptest.Key(t)
	m := newMemory(t, 100<<10, key, id)
	c := NewClient(ClientConfig{Trusted: func(p peer.ID) bool { return p == id }})
	good := (&growing{memory: m, key: key, signer: id}).increment(t, 0, 0, 3)
	sign := func(key crypto.PrivKey, signer peer.ID) content.Increment {
		inc, err := content.SignIncrement(key, signer, m.name(0), 0, good.Hashes)
		if err != nil {
			t.Fatal(err)
		}
		return inc
	}
	for _, tc := range []struct {
		name   string
		inc    content.Increment
		change func(p *pb.Proof)
		want   error
	}{
		{"good", good, func(*pb.Proof) {}, nil},
		{"by another, in the signer's name", sign(other, id), func(*pb.Proof) {}, ErrCorrupt},
		{"by one who may not", sign(other, otherID), func(*pb.Proof) {}, ErrUntrusted},
		{"without a signature", good, func(p *pb.Proof) { p.Sig = nil }, ErrCorrupt},
		{"of another block", good, func(p *pb.Proof) { p.Block++ }, ErrProtocol},
		{"of later leaves", good, func(p *pb.Proof) { p.FirstLeaf++ }, ErrProtocol},
		{"of no leaves", good, func(p *pb.Proof) { p.Hashes = nil }, ErrProtocol},
		{"of half a leaf", good, func(p *pb.Proof) { p.Hashes = p.Hashes[:48] }, ErrProtocol},
		{"of a leaf more", good, func(p *pb.Proof) { p.Leaves++; p.Hashes = append(p.Hashes, p.Hashes[:32]...) }, ErrCorrupt},
		{"of a number less", good, func(p *pb.Proof) { p.Leaves-- }, ErrProtocol},
		{"of too many leaves", good, func(p *pb.Proof) { p.Hashes = make([]byte, 65*content.HashSize) }, ErrProtocol},
		{"with a root", good, func(p *pb.Proof) { p.Root = make([]byte, content.HashSize) }, ErrProtocol},
		{"with a slice", good, func(p *pb.Proof) { p.Slice = make([]byte, 64) }, ErrProtocol},
		{"with a part", good, func(p *pb.Proof) { p.Part = content.PartSize }, ErrProtocol},
		{"without a signer", good, func(p *pb.Proof) { p.Signer = nil }, ErrProtocol},
	} {
		t.Run(tc.name, func(t *testing.T) {
			answer := record(t, handler(func(_ context.Context, _ Request, a *Answer) error {
				if _, err := a.Header(Header{Meta: m.meta}); err != nil {
					return err
				}
				return a.Increment(0, content.LeafSize, tc.inc, m.read)
			}), id, m.request(0, 1))
			r, reused, err := play(c, otherID, m.request(0, 1), changeProof(t, answer, tc.change))
			if !errors.Is(err, tc.want) || err == nil != (tc.want == nil) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if tc.want != nil && len(r.data) > 0 || reused != (tc.want == nil) {
				t.Errorf("%d bytes, stream reused %v", len(r.data), reused)
			}
		})
	}
}

// The rules of Answer hold whatever a Handler does.
func TestAnswerOutOfOrder(t *testing.T) {
	key, id := p2ptest.Key(t)
	m := newMemory(t, 2*content.BlockSize, key, id)
	inc := (&growing{memory: m, key: key, signer: id}).increment(t, 0, 1, 2)
	var kept *Answer
	record(t, handler(func(_ context.Context, _ Request, a *Answer) error {
		kept = a
		for name, err := range map[string]error{
			"complete before the header":  a.Complete(0, 1, m.seals[0], m.outboards[0], m.read),
			"increment before the header": a.Increment(0, 1, inc, m.read),
			"seal before the header":      a.Seal(0, m.seals[0]),
		} {
			if !errors.Is(err, errUse) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := a.Header(Header{Meta: m.meta}); err != nil {
			return err
		}
		_, err := a.Header(Header{Meta: m.meta})
		for name, err := range map[string]error{
			"a second header":     err,
			"another block":       a.Complete(1, m.meta.Size, m.seals[1], m.outboards[1], m.read),
			"a block behind":      a.Complete(9, m.meta.Size, m.seals[1], m.outboards[1], m.read),
			"nothing":             a.Complete(0, 0, m.seals[0], m.outboards[0], m.read),
			"an increment ahead":  a.Increment(0, m.meta.Size, inc, m.read),
			"a seal in the block": a.Seal(0, m.seals[0]),
		} {
			if !errors.Is(err, errUse) {
				t.Errorf("%s: %v", name, err)
			}
		}
		return a.Complete(0, content.BlockSize, m.seals[0], m.outboards[0], m.read)
	}), id, m.request(0, content.BlockSize))
	_, err := kept.Header(Header{Meta: m.meta})
	for name, err := range map[string]error{
		"header":    err,
		"complete":  kept.Complete(0, 1, m.seals[0], m.outboards[0], m.read),
		"increment": kept.Increment(0, 1, inc, m.read),
		"seal":      kept.Seal(0, m.seals[0]),
		"flush":     kept.Flush(),
	} {
		if !errors.Is(err, errUse) {
			t.Errorf("%s after Serve: %v", name, err)
		}
	}
}
