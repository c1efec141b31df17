package rangeread

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// openEnded answers with the whole of a file of which it does not tell the size
// before its end.
func openEnded(t testing.TB, m *memory, key crypto.PrivKey, signer peer.ID) handler {
	gen, _ := content.OpenGeneration(`"x"`)
	size := int64(len(m.data))
	return func(_ context.Context, req Request, a *Answer) error {
		r, err := a.Header(Header{Meta: content.Meta{Size: -1, Generation: gen, Sequential: true}, Source: SourceOrigin})
		if err != nil || r.Empty() {
			return err
		}
		if r != (content.Range{Len: content.OpenSize}) {
			t.Errorf("the answer is %v", r)
		}
		for a.Pos() < size {
			block, leaf := a.Pos()/content.BlockSize, int(a.Pos()%content.BlockSize/content.LeafSize)
			to := min(size, (block+1)*content.BlockSize, a.Pos()+5*content.LeafSize)
			var hashes []content.LeafHash
			for off := a.Pos(); off < to; off += content.LeafSize {
				hashes = append(hashes, content.HashLeaf(m.data[off:min(to, off+content.LeafSize)], leaf+len(hashes), content.LeavesPerBlock))
			}
			name := content.BlockName{Task: m.task, Generation: gen, FileSize: content.OpenSize, Index: block}
			inc, err := content.SignIncrement(key, signer, name, leaf, hashes)
			if err != nil {
				return err
			}
			if err := a.Increment(block, to, inc, m.read); err != nil {
				return err
			}
		}
		return a.Ended()
	}
}

// A file of unknown size comes whole, whatever was asked, and its end tells the
// size.
func TestOpenEnded(t *testing.T) {
	for _, size := range []int64{0, 1, content.LeafSize, 3*content.LeafSize + 1, content.BlockSize, content.BlockSize + 40001} {
		key, id := p2ptest.Key(t)
		m := newMemory(t, max(size, 1), key, id)
		m.data = m.data[:size]
		e := serve(t, handler(func(ctx context.Context, req Request, a *Answer) error {
			return openEnded(t, m, key, id)(ctx, req, a)
		}), id)
		// Over the network the source has its host's key.
		key, id = e.sh.Peerstore().PrivKey(e.source), e.source
		for _, asked := range []content.Range{{Len: 10}, {Off: 2 << 20, Len: 1 << 20}} {
			body, err := e.client.Open(t.Context(), e.source, Request{Task: m.task, Range: asked})
			if err != nil {
				t.Fatal(err)
			}
			if body.Header.Size != -1 {
				t.Errorf("the header says %d bytes", body.Header.Size)
			}
			r, err := drain(body)
			if err != nil || !bytes.Equal(r.data, m.data) || body.Header.Size != size {
				t.Errorf("%d bytes, asked for %v: got %d, then size %d: %v", size, asked, len(r.data), body.Header.Size, err)
			}
			_ = body.Close()
		}
		body, err := e.client.Open(t.Context(), e.source, Request{Task: m.task})
		if err != nil || body.Header.Size != -1 {
			t.Fatal(err)
		}
		if r, err := drain(body); err != nil || len(r.data) > 0 || body.Header.Size != -1 {
			t.Errorf("the header alone: %d bytes, size %d, %v", len(r.data), body.Header.Size, err)
		}
		_ = body.Close()
		if n := e.client.idle(e.source); n != 1 {
			t.Errorf("%d streams are idle, want 1, used again", n)
		}
	}
}

// Nobody but the source itself vouches for where such a file ends; what was
// changed on the way, or cut, is no whole file, and yields no wrong byte.
func TestOpenEndedTampered(t *testing.T) {
	key, source := p2ptest.Key(t)
	_, other := p2ptest.Key(t)
	m := newMemory(t, 6*content.LeafSize+1, key, source)
	req := Request{Task: m.task, Range: content.Range{Len: 1}}
	c := NewClient(ClientConfig{Trusted: func(peer.ID) bool { return true }})
	answer := record(t, openEnded(t, m, key, source), source, req)
	if r, reused, err := play(c, source, req, answer); err != nil || !reused || !bytes.Equal(r.data, m.data) {
		t.Fatalf("the answer as it was: %v", err)
	}
	if _, _, err := play(c, other, req, answer); !errors.Is(err, ErrUntrusted) {
		t.Errorf("from another than its signer: %v", err)
	}
	rnd := rand.New(rand.NewPCG(6, 7))
	fs := framesOf(t, answer)
	right := func(what string, bad []byte) {
		t.Helper()
		r, _, err := play(c, source, req, bad)
		if err == nil || !bytes.Equal(r.data, m.data[:len(r.data)]) {
			t.Errorf("%s: %d bytes, error %v", what, len(r.data), err)
		}
	}
	for _, f := range fs[1:] {
		for at := f.start; at < f.end; at++ {
			if f.kind == kindData && at > f.from+3 && at < f.end-3 {
				at = min(at+rnd.IntN(4000), f.end-3)
			}
			bad := slices.Clone(answer)
			bad[at] ^= 1 << rnd.IntN(8)
			right("a flipped bit", bad)
		}
	}
	end, last := fs[len(fs)-1], fs[len(fs)-2]
	for n := 0; n < len(answer); n += 1 + n/30 {
		right("cut short", answer[:n])
	}
	right("an end without the size", append(slices.Clone(answer[:end.start]), byte(kindEnd), 0))
	early := binary.AppendUvarint(nil, uint64(len(m.data)-1))
	right("another size", append(append(slices.Clone(answer[:end.start]), byte(kindEnd), byte(len(early))), early...))
	right("the last leaf twice", slices.Concat(answer[:last.end], answer[last.start:]))
}
