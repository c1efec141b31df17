package rangeread

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread/pb"
)

// answers returns answers of every kind: whole, of a part, in increments, over a
// block's end.
func answers(t testing.TB) (m *memory, signer, source peer.ID, reqs []Request, recorded [][]byte) {
	key, signer := p2ptest.Key(t)
	_, source = p2ptest.Key(t)
	m = newMemory(t, content.BlockSize+40000, key, signer)
	step := 0
	g := &growing{memory: m, key: key, signer: signer, step: func() (int, int) {
		step++
		return []int{3, 1, 0}[step%3], 1
	}}
	small := m.request(70000, 50)
	small.Small = true
	sparse := m.request(5*content.LeafSize, 20*content.LeafSize)
	sparse.sparse = true
	for _, tc := range []struct {
		h   Handler
		req Request
	}{
		{m, m.request(30000, 10)},
		{m, small},
		{m, sparse},
		{m, m.request(content.BlockSize-10, 5000)},
		{m, m.request(content.BlockSize+39999, 1)},
		{g.handler(t), m.request(content.BlockSize-3*content.LeafSize, 100000)},
	} {
		reqs = append(reqs, tc.req)
		recorded = append(recorded, record(t, tc.h, source, tc.req))
	}
	return m, signer, source, reqs, recorded
}

// A flipped bit, wherever in an answer, never yields a wrong byte; in DATA and
// in what proves them it is an error that is the source's.
func TestFlippedBits(t *testing.T) {
	m, signer, source, reqs, recorded := answers(t)
	rnd := rand.New(rand.NewPCG(6, 6))
	c := NewClient(ClientConfig{Trusted: func(p peer.ID) bool { return p == signer }})
	for i, answer := range recorded {
		t.Run(fmt.Sprint(reqs[i].Range), func(t *testing.T) {
			if _, reused, err := play(c, source, reqs[i], answer); err != nil || !reused {
				t.Fatalf("the answer as it was: %v", err)
			}
			for _, f := range framesOf(t, answer) {
				// Every byte of the small frames, some of DATA.
				for at := f.start; at < f.end; at++ {
					if f.kind == kindData && at > f.from+3 && at < f.end-3 {
						at = min(at+rnd.IntN(4000), f.end-3)
					}
					bad := slices.Clone(answer)
					bad[at] ^= 1 << rnd.IntN(8)
					r, _, err := play(c, source, reqs[i], bad)
					if len(r.data) > 0 && !bytes.Equal(r.data, m.data[r.off:r.off+int64(len(r.data))]) {
						t.Fatalf("byte %d of frame kind %d: wrong bytes were yielded", at-f.start, f.kind)
					}
					switch {
					case f.kind == kindHeader && at >= f.from:
						// What it says of the file is for the layers above.
					case err == nil:
						t.Errorf("byte %d of frame kind %d: no error", at-f.start, f.kind)
					case f.kind == kindData && at >= f.from && !errors.Is(err, ErrCorrupt):
						t.Errorf("byte %d of DATA: %v", at-f.start, err)
					case f.kind == kindProof && at >= f.from && !isSources(err):
						t.Errorf("byte %d of PROOF: %v", at-f.start, err)
					}
				}
			}
		})
	}
}

// isSources reports whether an error says that the source is at fault, or signs
// what it may not.
func isSources(err error) bool {
	return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrProtocol) || errors.Is(err, ErrUntrusted)
}

// An answer that ends early, or whose stream does, yields right bytes and an
// error.
func TestTruncatedAnswers(t *testing.T) {
	m, signer, source, reqs, recorded := answers(t)
	c := NewClient(ClientConfig{Trusted: func(p peer.ID) bool { return p == signer }})
	for i, answer := range recorded {
		for n := 0; n < len(answer); n += 1 + n/30 {
			r, reused, err := play(c, source, reqs[i], answer[:n])
			if err == nil || reused || n > 0 && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%v cut to %d bytes: error %v", reqs[i].Range, n, err)
			}
			if len(r.data) > 0 && !bytes.Equal(r.data, m.data[r.off:r.off+int64(len(r.data))]) {
				t.Fatalf("%v cut to %d bytes: wrong bytes", reqs[i].Range, n)
			}
		}
		if _, reused, err := play(c, source, reqs[i], append(slices.Clone(answer), byte(kindEnd), 0)); err != nil || reused {
			t.Errorf("with bytes behind END: error %v, stream reused %v", err, reused)
		}
		header := framesOf(t, answer)[0]
		for name, start := range map[string][]byte{
			"refusal":                 appendFrame(nil, kindHeader, encode(t, NewError(StatusBusy, "full").header())),
			"refusal behind a header": appendFrame(slices.Clone(answer[header.start:header.end]), kindError, encode(t, NewError(StatusBusy, "full").message())),
		} {
			refusal := append(start, byte(kindEnd), 0)
			for n := range len(refusal) + 1 {
				_, reused, err := play(c, source, reqs[i], refusal[:n])
				if whole := n == len(refusal); err == nil || reused != whole || n > 0 && !whole && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("%s cut to %d of %d bytes: error %v, stream reused %t", name, n, len(refusal), err, reused)
				}
			}
		}
	}
}

// Frames that are right by themselves and wrong where they are.
func TestFramesOutOfOrder(t *testing.T) {
	key, id := p2ptest.Key(t)
	_, source := p2ptest.Key(t)
	m := newMemory(t, 100<<10, key, id)
	c := NewClient(ClientConfig{Trusted: func(p peer.ID) bool { return p == id }})
	req := m.request(0, 2*content.LeafSize)
	answer := record(t, m, source, req)
	fs := framesOf(t, answer)
	part := func(kinds ...kind) (out []byte) {
		for _, k := range kinds {
			i := slices.IndexFunc(fs, func(f frame) bool { return f.kind == k })
			out = append(out, answer[fs[i].start:fs[i].end]...)
		}
		return out
	}
	header, proof := part(kindHeader), part(kindProof)
	proofs := slices.Concat(header, bytes.Repeat(proof, maxProofs+1), part(kindData, kindEnd))
	for name, answer := range map[string][]byte{
		"data first":          part(kindData, kindEnd),
		"proof first":         part(kindProof, kindData, kindEnd),
		"end first":           part(kindEnd),
		"error first":         appendFrame(nil, kindError, encode(t, &pb.Error{Status: StatusBusy})),
		"data without proof":  part(kindHeader, kindData, kindEnd),
		"end without data":    part(kindHeader, kindProof, kindEnd),
		"two headers":         part(kindHeader, kindHeader, kindProof, kindData, kindEnd),
		"data twice":          part(kindHeader, kindProof, kindData, kindData, kindEnd),
		"proof behind data":   part(kindHeader, kindProof, kindData, kindProof, kindEnd),
		"proofs without end":  proofs,
		"kind 0":              append(part(kindHeader), 0, 0),
		"kind 7":              append(part(kindHeader), 7, 0),
		"no data":             append(part(kindHeader, kindProof), byte(kindData), 0),
		"end with a payload":  append(part(kindHeader, kindProof, kindData), byte(kindEnd), 1, 0),
		"large wait":          append(part(kindHeader), byte(kindWait), maxWait+1),
		"large data":          binary.AppendUvarint(append(part(kindHeader, kindProof), byte(kindData)), MaxData+1),
		"large header":        binary.AppendUvarint([]byte{byte(kindHeader)}, maxHeader+1),
		"endless length":      append([]byte{byte(kindHeader)}, bytes.Repeat([]byte{0xff}, 11)...),
		"error that is OK":    append(part(kindHeader), appendFrame(nil, kindError, nil)...),
		"error, then data":    slices.Concat(header, appendFrame(nil, kindError, encode(t, &pb.Error{Status: StatusBusy})), part(kindData)),
		"status, then data":   append(appendFrame(nil, kindHeader, encode(t, &pb.Header{Status: StatusBusy})), part(kindData)...),
		"header that is none": appendFrame(nil, kindHeader, []byte{0xff}),
		"header of nothing":   append(appendFrame(nil, kindHeader, nil), part(kindProof, kindData, kindEnd)...),
		"data not whole": slices.Concat(header, proof, appendFrame(nil, kindData, m.data[:content.LeafSize+1]),
			appendFrame(nil, kindData, m.data[content.LeafSize+1:2*content.LeafSize]), part(kindEnd)),
		"more than was asked for": slices.Concat(header, proof, appendFrame(nil, kindData, m.data[:3*content.LeafSize]), part(kindEnd)),
	} {
		r, reused, err := play(c, source, req, answer)
		if !errors.Is(err, ErrProtocol) || reused {
			t.Errorf("%s: error %v, stream reused %v", name, err, reused)
		}
		if !bytes.Equal(r.data, m.data[:len(r.data)]) {
			t.Errorf("%s: wrong bytes", name)
		}
	}
	waits := bytes.Repeat(appendFrame(nil, kindWait, encode(t, &pb.Wait{Reason: WaitDisk, AgeMs: 7})), 3)
	calm := slices.Concat(waits, header, waits, proof, waits, part(kindData), waits, part(kindEnd))
	if r, reused, err := play(c, source, req, calm); err != nil || !reused || len(r.data) != 2*content.LeafSize {
		t.Errorf("WAIT between all frames: %d bytes, error %v, stream reused %v", len(r.data), err, reused)
	}
	if r, _, err := play(c, source, req, slices.Concat(header, bytes.Repeat(proof, maxProofs), part(kindData, kindEnd))); err != nil || len(r.data) == 0 {
		t.Errorf("%d proofs before data: %v", maxProofs, err)
	}
}

// The proofs of complete blocks that a reader must refuse.
func TestProofsForged(t *testing.T) {
	key, id := p2ptest.Key(t)
	other, otherID := p2ptest.Key(t)
	m := newMemory(t, content.BlockSize+content.LeafSize, key, id)
	c := NewClient(ClientConfig{Trusted: func(p peer.ID) bool { return p == id }})
	forged, err := content.SealBlock(other, id, m.name(0), m.seals[0].Root)
	if err != nil {
		t.Fatal(err)
	}
	whole, small, sparse := m.request(content.LeafSize, 100), m.request(content.LeafSize, 100), m.request(content.LeafSize, 12*content.LeafSize)
	small.Small, sparse.sparse = true, true
	for _, tc := range []struct {
		name   string
		req    Request
		change func(p *pb.Proof)
		want   error
	}{
		{"good", whole, func(*pb.Proof) {}, nil},
		{"good part", small, func(*pb.Proof) {}, nil},
		{"whole leaf for a small read", small, func(p *pb.Proof) { p.Part = 0 }, ErrProtocol},
		{"part for a read that wants leaves", whole, func(p *pb.Proof) { p.Part = content.PartSize }, ErrProtocol},
		{"part of another size", small, func(p *pb.Proof) { p.Part = 2 * content.PartSize }, ErrProtocol},
		{"part of no size", small, func(p *pb.Proof) { p.Part = 1 }, ErrProtocol},
		{"part of two leaves", small, func(p *pb.Proof) { p.Leaves = 2 }, ErrProtocol},
		{"signed by another", whole, func(p *pb.Proof) { p.Sig = forged.Sig }, ErrCorrupt},
		{"by one who may not", whole, func(p *pb.Proof) { p.Signer = []byte(otherID) }, ErrUntrusted},
		{"without a signature", whole, func(p *pb.Proof) { p.Sig = nil }, ErrCorrupt},
		{"of another block", whole, func(p *pb.Proof) { p.Block = 1 }, ErrProtocol},
		{"of a block that is not there", whole, func(p *pb.Proof) { p.Block = 1 << 63 }, ErrProtocol},
		{"of another leaf", whole, func(p *pb.Proof) { p.FirstLeaf++ }, ErrProtocol},
		{"of a leaf more", whole, func(p *pb.Proof) { p.Leaves++ }, ErrProtocol},
		{"of very many leaves", whole, func(p *pb.Proof) { p.Leaves = 1 << 31 }, ErrProtocol},
		{"closing in mid-block", whole, func(p *pb.Proof) { p.Leaves, p.Slice = 0, nil }, ErrProtocol},
		{"root and hashes", whole, func(p *pb.Proof) { p.Hashes = make([]byte, 32) }, ErrProtocol},
		{"short root", whole, func(p *pb.Proof) { p.Root = p.Root[:31] }, ErrProtocol},
		{"short slice", whole, func(p *pb.Proof) { p.Slice = p.Slice[64:] }, ErrProtocol},
		{"long slice", whole, func(p *pb.Proof) { p.Slice = append(p.Slice, make([]byte, 64)...) }, ErrProtocol},
		{"good sparse", sparse, func(*pb.Proof) {}, nil},
		{"sparse for a read that did not ask for it", whole, func(p *pb.Proof) { p.Sparse = 8 }, ErrProtocol},
		{"sparse part", small, func(p *pb.Proof) { p.Sparse = 8 }, ErrProtocol},
		{"sparse that is not said to be", sparse, func(p *pb.Proof) { p.Sparse = 0 }, ErrProtocol},
		{"sparse by another measure", sparse, func(p *pb.Proof) { p.Sparse = 4 }, ErrProtocol},
		{"short sparse slice", sparse, func(p *pb.Proof) { p.Slice = p.Slice[64:] }, ErrProtocol},
		{"another sparse slice", sparse, func(p *pb.Proof) { p.Slice[0] ^= 1 }, ErrCorrupt},
		{"another root of a sparse slice", sparse, func(p *pb.Proof) { p.Root[0] ^= 1 }, ErrCorrupt},
		{"another root", whole, func(p *pb.Proof) { p.Root[0] ^= 1 }, ErrCorrupt},
	} {
		answer := changeProof(t, record(t, m, otherID, tc.req), tc.change)
		r, reused, err := play(c, otherID, tc.req, answer)
		if !errors.Is(err, tc.want) || err == nil != (tc.want == nil) || reused != (err == nil) || err != nil && len(r.data) > 0 {
			t.Errorf("%s: %d bytes, error %v, want %v, stream reused %v", tc.name, len(r.data), err, tc.want, reused)
		}
	}
	if r, _, err := play(c, otherID, whole, record(t, m, otherID, small)); !errors.Is(err, ErrProtocol) || len(r.data) > 0 {
		t.Errorf("a part that was not asked for: %d bytes, error %v", len(r.data), err)
	}
}

// A reader of more than a leaf gets a sparse proof, whatever the range: a tenth of
// the bytes for a block, a whole slice with each of its pieces all the same, and no
// frame that has a part of what one hash proves. Who does not ask for it gets what
// always came.
func TestSparseProofs(t *testing.T) {
	key, id := p2ptest.Key(t)
	m := newMemory(t, content.BlockSize+10*content.LeafSize+5, key, id)
	c := NewClient(ClientConfig{Trusted: m.trusted})
	proofs := func(answer []byte) (n int) {
		for _, f := range framesOf(t, answer) {
			if f.kind == kindProof {
				n += f.end - f.from
			}
		}
		return n
	}
	for first := range int64(content.LeavesPerBlock) {
		for _, n := range []int64{2, 8, 9, content.LeavesPerBlock, 2 * content.LeavesPerBlock} {
			req := m.request(first*content.LeafSize, n*content.LeafSize)
			req.sparse = true
			r, _, err := play(c, id, req, record(t, m, id, req))
			if err != nil || !bytes.Equal(r.data, m.data[r.off:r.off+int64(len(r.data))]) || len(r.data) == 0 {
				t.Fatalf("leaves %d+%d: %d bytes, error %v", first, n, len(r.data), err)
			}
			for i, p := range r.pieces {
				block, end := m.name(p.Block).Bytes(), r.off+int64(len(r.data))
				if i+1 < len(r.pieces) {
					end = r.pieces[i+1].Off
				}
				if p.Seal == nil || int64(p.First) != (p.Off-block.Off)/content.LeafSize || p.Last != content.Leaves(end-block.Off) {
					t.Fatalf("leaves %d+%d: the piece from %d to %d comes with a slice of [%d,%d), and a seal %v", first, n, p.Off, end, p.First, p.Last, p.Seal)
				}
				leaves := content.Leaves(block.Len)
				if want := content.AppendSlice(nil, m.outboards[p.Block], leaves, p.First, p.Last); !bytes.Equal(p.Slice, want) {
					t.Fatalf("leaves %d+%d: the slice of [%d,%d) is not the block's", first, n, p.First, p.Last)
				}
			}
		}
	}
	block := m.request(0, content.BlockSize)
	full := proofs(record(t, m, id, block))
	block.sparse = true
	answer := record(t, m, id, block)
	if n := proofs(answer); n*6 > full {
		t.Errorf("%d bytes prove a block, %d for who does not ask for less", n, full)
	}
	var cut []byte // the first frame of data in two
	for _, f := range framesOf(t, answer) {
		if f.kind == kindData && f.end-f.from == MaxData && len(cut) < MaxData {
			cut = appendFrame(cut, kindData, answer[f.from:f.from+content.LeafSize])
			cut = appendFrame(cut, kindData, answer[f.from+content.LeafSize:f.end])
		} else {
			cut = append(cut, answer[f.start:f.end]...)
		}
	}
	if r, reused, err := play(c, id, block, cut); !errors.Is(err, ErrProtocol) || reused || len(r.data) > 0 {
		t.Errorf("a frame with a part of a subtree: %d bytes, error %v", len(r.data), err)
	}
	block.Small, block.sparse = true, false
	e := serve(t, m, id)
	mustRead(t, e.client, e.source, m, block)
}

// From the signer himself a complete proof is taken without a look at its
// signature; who stores it looks.
func TestSealOfTheSource(t *testing.T) {
	key, id := p2ptest.Key(t)
	m := newMemory(t, 10000, key, id)
	good := m.seals[0]
	m.seals[0].Sig = bytes.Repeat([]byte{1}, len(good.Sig))
	c := NewClient(ClientConfig{Trusted: func(p peer.ID) bool { return p == id }})
	r, _, err := play(c, id, m.request(0, 1), record(t, m, id, m.request(0, 1)))
	if err != nil || len(r.pieces) != 1 || r.pieces[0].Seal == nil {
		t.Fatalf("%d pieces, error %v", len(r.pieces), err)
	}
	bad := *r.pieces[0].Seal
	for range 2 {
		if err := c.VerifySeal(m.name(0), bad); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("VerifySeal of a forged signature: %v", err)
		}
		if err := c.VerifySeal(m.name(0), good); err != nil { // which is remembered
			t.Fatal(err)
		}
	}
	if err := c.VerifySeal(m.name(0), content.Seal{Root: good.Root, Signer: id, Sig: append(good.Sig, 0)}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("VerifySeal of a long signature: %v", err)
	}
	if _, _, err := play(c, "another", m.request(0, 1), record(t, m, id, m.request(0, 1))); !errors.Is(err, ErrCorrupt) {
		t.Errorf("the same from another source: %v", err)
	}
}
