package seed

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
)

// owner signs pieces of a file as a seed that read it from the origin.
type owner struct {
	t    *testing.T
	key  crypto.PrivKey
	id   peer.ID
	task content.Task
	meta content.Meta
	data []byte
}

func newOwner(t *testing.T, n int) *owner {
	key, id := p2ptest.Key(t)
	return &owner{t: t, key: key, id: id, task: testTask(t), meta: testMeta(int64(n), `"one"`), data: p2ptest.Bytes(7, n)}
}

func (o *owner) name(i int64) content.BlockName {
	return content.BlockName{Task: o.task.ID, Generation: o.meta.Generation, FileSize: o.meta.Size, Index: i}
}

func (o *owner) block(i int64) []byte {
	b := o.meta.Layout().Block(i)
	return o.data[b.Off:b.End()]
}

// increment is the piece with leaves [first, last) of block i.
func (o *owner) increment(i int64, first, last int) rangeread.Piece {
	block := o.block(i)
	n := content.Leaves(int64(len(block)))
	var hashes []content.LeafHash
	for l := first; l < last; l++ {
		hashes = append(hashes, content.HashLeaf(block[l*content.LeafSize:min(len(block), (l+1)*content.LeafSize)], l, n))
	}
	inc, err := content.SignIncrement(o.key, o.id, o.name(i), first, hashes)
	if err != nil {
		o.t.Fatal(err)
	}
	p := o.leaves(i, first, last)
	p.Increment, p.Leaves = &inc, hashes
	return p
}

func (o *owner) leaves(i int64, first, last int) rangeread.Piece {
	block := o.block(i)
	from, to := min(len(block), first*content.LeafSize), min(len(block), last*content.LeafSize)
	return rangeread.Piece{Block: i, Off: i*content.BlockSize + int64(from), Data: block[from:to]}
}

// complete is the piece with leaves [first, last) of block i that is complete;
// first == last only closes it.
func (o *owner) complete(i int64, first, last int) rangeread.Piece {
	outboard, root := content.Outboard(o.block(i))
	seal, err := content.SealBlock(o.key, o.id, o.name(i), root)
	if err != nil {
		o.t.Fatal(err)
	}
	p := o.leaves(i, first, last)
	p.Seal = &seal
	if p.First, p.Last = first, last; first < last {
		p.Slice = content.AppendSlice(nil, outboard, content.Leaves(int64(len(o.block(i)))), first, last)
	}
	return p
}

// give puts a piece into a job, as a Filler does.
func give(ctx context.Context, job *Job, p rangeread.Piece) error {
	if len(p.Data) > 0 {
		buf, err := job.Buffer(ctx)
		if err != nil {
			return err
		}
		p.Data = buf[:copy(buf, p.Data)]
	}
	return job.Verified(p)
}

// giveAll follows the owner and gives pieces in order.
func (o *owner) giveAll(ctx context.Context, job *Job, pieces ...rangeread.Piece) error {
	job.AskPeer(o.id)
	if err := job.Begin(Found{Meta: o.meta}); err != nil {
		return err
	}
	for _, p := range pieces {
		if err := give(ctx, job, p); err != nil {
			return err
		}
	}
	return nil
}

// TestWaysToABlock: all mixtures of proofs in which a block can arrive make it
// stored, with a record that proves it.
func TestWaysToABlock(t *testing.T) {
	for name, n := range map[string]int{"full": mib, "short": 5*content.LeafSize + 9, "one leaf": 100} {
		leaves := content.Leaves(int64(n))
		k := (leaves + 1) / 2
		o := newOwner(t, n)
		for way, pieces := range map[string][]rangeread.Piece{
			"complete at once":        {o.complete(0, 0, leaves)},
			"increments and seal":     {o.increment(0, 0, k), o.increment(0, k, leaves), o.complete(0, leaves, leaves)},
			"increment then proof":    {o.increment(0, 0, k), o.complete(0, k, leaves)},
			"proof then increment":    {o.complete(0, 0, k), o.increment(0, k, leaves)},
			"two proofs":              {o.complete(0, 0, k), o.complete(0, k, leaves)},
			"one increment in parts":  {part(o.increment(0, 0, leaves), o.leaves(0, 0, k)), part(o.increment(0, 0, leaves), o.leaves(0, k, leaves)), o.complete(0, leaves, leaves)},
			"hashes of the end alone": {unhashed(o.increment(0, 0, k)), o.increment(0, k, leaves), o.complete(0, leaves, leaves)},
		} {
			t.Run(name+"/"+way, func(t *testing.T) {
				var given []rangeread.Piece
				for _, p := range pieces {
					if len(p.Data) > 0 || p.Seal != nil {
						given = append(given, p)
					}
				}
				m := newManager(t, fillFunc(func(ctx context.Context, job *Job) error {
					return o.giveAll(ctx, job, given...)
				}), nil)
				mustRead(t, m, o.data, content.Range{Len: int64(n)})
				waitStored(t, m, 1)
				f := m.held(o.task, content.Generation{})
				rec, err := f.disk.Record(0)
				if err != nil {
					t.Fatal(err)
				}
				if outboard, root := content.Outboard(o.data); rec.Root != root || string(rec.Outboard) != string(outboard) || rec.Signer != o.id {
					t.Error("the record does not prove the block")
				}
			})
		}
	}
}

// part is a piece of p's proof with a part of its data.
func part(p, data rangeread.Piece) rangeread.Piece {
	first := int(data.Off-p.Off) / content.LeafSize
	p.Leaves = p.Leaves[first : first+content.Leaves(int64(len(data.Data)))]
	p.Off, p.Data = data.Off, data.Data
	return p
}

// unhashed is a piece as it comes where the job has the first bytes of it.
func unhashed(p rangeread.Piece) rangeread.Piece {
	p.Leaves = nil
	return p
}

// TestWrongSeal: a seal that the signer did not sign is refused before its bytes
// are used; the next source's is taken.
func TestWrongSeal(t *testing.T) {
	o := newOwner(t, mib)
	var refused error
	m := newManager(t, fillFunc(func(ctx context.Context, job *Job) error {
		bad := o.complete(0, 0, 8)
		bad.Seal.Sig[3] ^= 1
		refused = o.giveAll(ctx, job, bad)
		if job.Pos() != 0 {
			t.Errorf("bytes up to %d were taken with it", job.Pos())
		}
		return o.giveAll(ctx, job, o.complete(0, 0, 64))
	}), nil)
	mustRead(t, m, o.data, content.Range{Len: mib})
	if !errors.Is(refused, content.ErrSignature) {
		t.Errorf("wrong signature: %v", refused)
	}
}

// TestSourcesDisagree: a second source whose root differs, or that says that the
// file is of another size or version, is refused, and one that agrees with the
// first is taken.
func TestSourcesDisagree(t *testing.T) {
	o, liar, larger, newer := newOwner(t, mib), newOwner(t, mib), newOwner(t, mib), newOwner(t, mib)
	liar.data = p2ptest.Bytes(8, mib)
	larger.meta.Size++
	newer.meta = testMeta(mib, `"two"`)
	var refused error
	m := newManager(t, fillFunc(func(ctx context.Context, job *Job) error {
		if err := o.giveAll(ctx, job, o.complete(0, 0, 10)); err != nil {
			return err
		}
		refused = liar.giveAll(ctx, job, liar.complete(0, 10, 64))
		for what, s := range map[string]*owner{"size": larger, "version": newer} {
			if err := s.giveAll(ctx, job); !errors.Is(err, ErrChanged) {
				t.Errorf("another %s: %v, want ErrChanged", what, err)
			}
		}
		return o.giveAll(ctx, job, o.complete(0, 10, 64))
	}), nil)
	mustRead(t, m, o.data, content.Range{Len: mib})
	if !errors.Is(refused, rangeread.ErrCorrupt) {
		t.Errorf("another root: %v, want ErrCorrupt", refused)
	}
}

// TestConflict: a block of which one part came from the origin, or by an owner's
// increments, and whose root another source signed over other bytes, is not
// stored, and its fill ends with an error, for the readers too.
func TestConflict(t *testing.T) {
	o, liar := newOwner(t, 2*mib), newOwner(t, 2*mib)
	liar.data = p2ptest.Bytes(8, 2*mib)
	for name, first := range map[string]func(ctx context.Context, job *Job) error{
		"increments": func(ctx context.Context, job *Job) error { return o.giveAll(ctx, job, o.increment(0, 0, 32)) },
		"origin": func(ctx context.Context, job *Job) error {
			job.AskOrigin()
			if err := job.Begin(Found{Meta: o.meta}); err != nil {
				return err
			}
			buf, err := job.Buffer(ctx)
			if err != nil {
				return err
			}
			return job.Advance(copy(buf, o.data[:32*content.LeafSize]))
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate(0)
			conflict := make(chan error, 1)
			m := newManager(t, fillFunc(func(ctx context.Context, job *Job) error {
				if err := errors.Join(first(ctx, job), g.step(ctx, 0)); err != nil {
					return err
				}
				err := liar.giveAll(ctx, job, liar.complete(0, 32, 64))
				conflict <- err
				return err
			}), nil)
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			f := open(t, m, content.Range{Len: mib})
			holds, err := f.Hold(ctx, content.Range{Len: mib})
			if err != nil {
				t.Fatal(err)
			}
			defer holds[0].Release()
			g.open(always)
			if err := <-conflict; !errors.Is(err, ErrConflict) {
				t.Errorf("the filler was told %v, want ErrConflict", err)
			}
			if n, err := holds[0].ReadAt(ctx, make([]byte, mib), 0); !errors.Is(err, ErrConflict) {
				t.Errorf("read: %d bytes, %v; want ErrConflict", n, err)
			}
			if f := m.held(o.task, content.Generation{}); f == nil || f.disk.Has(0) {
				t.Error("the block was stored")
			}
		})
	}
}

// TestShortLeafWaitsForItsSeal: the last leaf of a file, sent in an increment,
// is followed by the seal when it comes.
func TestShortLeafWaitsForItsSeal(t *testing.T) {
	o := newOwner(t, 77)
	g := newGate(0)
	hosts := p2ptest.Hosts(t, 2)
	if !scoresBelow(t, hosts[1], hosts[0], 0) {
		slices.Reverse(hosts)
	}
	n := newNode(t, hosts[0], func(*node) Filler {
		return fillFunc(func(ctx context.Context, job *Job) error {
			if err := o.giveAll(ctx, job, o.increment(0, 0, 1)); err != nil {
				return err
			}
			if err := g.step(ctx, 0); err != nil {
				return err
			}
			return o.giveAll(ctx, job, o.complete(0, 1, 1))
		})
	}, nil)
	reader := newNode(t, hosts[1], func(*node) Filler { return newFakeOrigin(1) }, nil)
	connectAll(t, n, reader)
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	var p pieces
	done := make(chan error, 1)
	go func() {
		got, err := reader.readPeer(ctx, n.id(), ask(t, content.Range{Len: 77}), p.count)
		done <- sameBytes(got, err, o.data, content.Range{Len: 77})
	}()
	p2ptest.Eventually(t, soon, func() bool { return p.got() == 77 }, "the leaf")
	g.open(always)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if p.seals() != 1 {
		t.Errorf("%d seals, want 1", p.seals())
	}
}

// TestForgo: a block whose seal nobody has is read to its end by those who hold
// it, is not stored, and is fetched again for the next.
func TestForgo(t *testing.T) {
	o := newOwner(t, 2*mib)
	g := newGate(0)
	var fills atomic.Int64
	m := newManager(t, fillFunc(func(ctx context.Context, job *Job) error {
		if fills.Add(1) > 1 {
			return o.giveAll(ctx, job, o.complete(0, 0, 64))
		}
		if err := o.giveAll(ctx, job, o.increment(0, 0, 64)); err != nil {
			return err
		}
		if err := g.step(ctx, 0); err != nil {
			return err
		}
		if !job.Unsealed() {
			t.Error("not unsealed")
		}
		if job.Forgo(); job.Unsealed() || !job.Done() {
			t.Error("still unsealed, or not done")
		}
		return g.step(ctx, 1)
	}), nil)
	f := open(t, m, content.Range{Len: mib})
	holds, err := f.Hold(t.Context(), content.Range{Len: mib})
	if err != nil {
		t.Fatal(err)
	}
	g.open(1)
	p2ptest.Eventually(t, soon, func() bool { return len(flightsNow(m)) == 0 }, "the block is given up")
	got := make([]byte, mib)
	for n := 0; n < mib; {
		k, err := holds[0].ReadAt(t.Context(), got[n:min(mib, n+100*kib)], int64(n))
		if err != nil {
			t.Fatal(err)
		}
		n += k
	}
	if err := sameBytes(got, nil, o.data, content.Range{Len: mib}); err != nil {
		t.Fatal(err)
	}
	if fills.Load() != 1 {
		t.Error("the holder did not read what was there")
	}
	holds[0].Release()
	g.open(always)
	f.Close()
	mustRead(t, m, o.data, content.Range{Len: mib})
	waitStored(t, m, 1)
	if n := fills.Load(); n != 2 {
		t.Errorf("%d fills, want 2", n)
	}
}
