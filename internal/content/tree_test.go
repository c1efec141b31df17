package content

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"lukechampine.com/blake3"
	"lukechampine.com/blake3/bao"
)

var treeSizes = []int{1, 1000, LeafSize - 1, LeafSize, LeafSize + 1, 2 * LeafSize, 3*LeafSize + 5, 100 << 10, 37 * LeafSize, BlockSize - 1, BlockSize}

func randomBlock(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}).Read(b)
	return b
}

// leavesOf returns the bytes of the leaves [from, to).
func leavesOf(block []byte, from, to int) []byte {
	return block[from*LeafSize : min(to*LeafSize, len(block))]
}

func TestOutboard(t *testing.T) {
	for _, size := range treeSizes {
		block := randomBlock(size)
		ob, root := Outboard(block)
		if root != blake3.Sum256(block) {
			t.Errorf("size %d: the root is not the BLAKE3 hash", size)
		}
		if want, _ := bao.EncodeBuf(block, group, true); !bytes.Equal(ob, want) {
			t.Errorf("size %d: the outboard is not Bao's", size)
		}
		if len(ob) != OutboardSize(int64(size)) || !bao.VerifyBuf(block, ob, group, root) {
			t.Errorf("size %d: outboard of %d bytes does not verify", size, len(ob))
		}
		if want := (size + LeafSize - 1) / LeafSize; Leaves(int64(size)) != want {
			t.Errorf("size %d: %d leaves, want %d", size, Leaves(int64(size)), want)
		}
	}
}

// Every slice that AppendSlice makes is the one of the reference, and is
// accepted for its leaves and for no others.
func TestSlicesAgainstBao(t *testing.T) {
	for _, size := range treeSizes {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			block := randomBlock(size)
			ob, root := Outboard(block)
			n := Leaves(int64(size))
			got := make([]byte, OutboardSize(int64(size)))
			for from := range n {
				for to := from + 1; to <= n; to++ {
					if n > 10 && to-from > 2 && to != n && (from+to)%7 != 0 {
						continue // all pairs of a full block take seconds
					}
					data := leavesOf(block, from, to)
					slice := AppendSlice([]byte("before"), ob, n, from, to)[len("before"):]
					if len(slice) != SliceSize(n, from, to) {
						t.Fatalf("leaves [%d,%d): slice of %d bytes, SliceSize %d", from, to, len(slice), SliceSize(n, from, to))
					}
					compareWithBao(t, block, ob, root, from, data, slice)
					clear(got)
					if err := ExpandSlice(got, slice, int64(size), from, to); err != nil {
						t.Fatalf("leaves [%d,%d): %v", from, to, err)
					}
					if !VerifyLeaves(data, got, int64(from)*LeafSize, root) {
						t.Fatalf("leaves [%d,%d) do not verify", from, to)
					}
				}
			}
		})
	}
}

func compareWithBao(t *testing.T, block, ob []byte, root Root, from int, data, slice []byte) {
	t.Helper()
	off, length := uint64(from)*LeafSize, uint64(len(data))
	var ref bytes.Buffer
	if err := bao.ExtractSlice(&ref, bytes.NewReader(data), bytes.NewReader(ob), group, off, length); err != nil {
		t.Fatal(err)
	}
	plain, ok := bao.VerifySlice(ref.Bytes(), group, off, length, root)
	if !ok || !bytes.Equal(plain, data) {
		t.Fatalf("the reference does not verify its own slice of %d bytes from leaf %d", len(data), from)
	}
	// The reference has the length first, and each leaf behind its parents.
	parents := ref.Bytes()[8:]
	for rest := slice; len(rest) > 0; rest = rest[64:] {
		i := bytes.Index(parents, rest[:64])
		if i < 0 {
			t.Fatalf("a parent of the slice from leaf %d is not in the reference's, or not in its order", from)
		}
		parents = parents[i+64:]
	}
	if want := len(ref.Bytes()) - 8 - len(data); len(slice) != want {
		t.Fatalf("the slice from leaf %d has %d bytes, the reference's %d", from, len(slice), want)
	}
}

func TestSliceOfOneLeafIs392Bytes(t *testing.T) {
	// Beside the leaf a read pays 6 levels of 64 bytes; 8 of length are not sent.
	if got := SliceSize(LeavesPerBlock, 17, 18); got != 392-8 {
		t.Errorf("slice of one leaf: %d bytes", got)
	}
	if got := OutboardSize(BlockSize); got != 4040 {
		t.Errorf("outboard of a full block: %d bytes, the package promises 4040", got)
	}
}

// VerifyLeaves gives the answers of bao.VerifyChunk, for right data and for
// data, trees and places of which something is wrong.
func TestVerifyLeavesIsBaos(t *testing.T) {
	rnd := rand.New(rand.NewPCG(4, 4))
	for _, size := range treeSizes {
		block := randomBlock(size)
		ob, root := Outboard(block)
		n := Leaves(int64(size))
		good, bad := 0, 0
		for range 300 {
			from := rnd.IntN(n)
			to := from + 1 + rnd.IntN(min(9, n-from))
			data, tree, off := slices.Clone(leavesOf(block, from, to)), slices.Clone(ob), from*LeafSize
			switch rnd.IntN(5) {
			case 0:
				flip(rnd, data)
			case 1:
				if len(tree) > 8 { // the length is the receiver's own
					flip(rnd, tree[8:])
				}
			case 2:
				off = rnd.IntN(n) * LeafSize
			}
			want := bao.VerifyChunk(data, tree, group, uint64(off), root)
			if got := VerifyLeaves(data, tree, int64(off), root); got != want {
				t.Fatalf("size %d, leaves [%d,%d) at %d: %v, bao says %v", size, from, to, off, got, want)
			}
			if want {
				good++
			} else {
				bad++
			}
		}
		if good < 50 || bad < 50 && n > 1 {
			t.Errorf("size %d: %d good and %d bad cases prove little", size, good, bad)
		}
	}
}

func TestFlippedBitIsDetected(t *testing.T) {
	rnd := rand.New(rand.NewPCG(8, 9))
	for _, size := range []int{1, LeafSize, LeafSize + 1, 100 << 10, BlockSize} {
		block := randomBlock(size)
		ob, root := Outboard(block)
		n := Leaves(int64(size))
		for range 60 {
			from := rnd.IntN(n)
			to := from + 1 + rnd.IntN(min(3, n-from))
			data := slices.Clone(leavesOf(block, from, to))
			slice := AppendSlice(nil, ob, n, from, to)
			bad := root
			var what string
			switch where := rnd.IntN(3); {
			case where == 0:
				flip(rnd, data)
				what = "data"
			case where == 1 && len(slice) > 0:
				flip(rnd, slice)
				what = "slice"
			default:
				flip(rnd, bad[:])
				what = "root"
			}
			got := make([]byte, OutboardSize(int64(size)))
			if err := ExpandSlice(got, slice, int64(size), from, to); err != nil {
				t.Fatal(err)
			}
			if VerifyLeaves(data, got, int64(from)*LeafSize, bad) {
				t.Errorf("size %d, leaves [%d,%d): a flipped bit in the %s went through", size, from, to, what)
			}
		}
	}
}

// A sparse slice with the bytes of its leaves, in pieces that have whole subtrees,
// makes the parents that a full slice has; with a bit flipped anywhere, or other
// pieces, nothing verifies.
func TestSparseSlices(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 5))
	for _, size := range treeSizes {
		block := randomBlock(size)
		ob, root := Outboard(block)
		n := Leaves(int64(size))
		for range 80 {
			from := rnd.IntN(n)
			to := from + 1 + rnd.IntN(n-from)
			slice := AppendSparse([]byte("before"), ob, n, from, to)[len("before"):]
			got := make([]byte, OutboardSize(int64(size)))
			fill := func(slice []byte, root Root, step int) (ok bool, last int) {
				clear(got)
				if err := ExpandSparse(got, slice, int64(size), from, to); err != nil {
					t.Fatalf("size %d, leaves [%d,%d): %v", size, from, to, err)
				}
				for at := from; at < to; {
					end := min((at/step+1)*step, to)
					if !FillLeaves(leavesOf(block, at, end), got, int64(at)*LeafSize, from, to, root) {
						return false, at
					}
					at = end
				}
				return true, to
			}
			if ok, at := fill(slice, root, SparseLeaves); !ok {
				t.Fatalf("size %d, leaves [%d,%d): not verified at %d", size, from, to, at)
			}
			if !bytes.Equal(AppendSlice(nil, got, n, from, to), AppendSlice(nil, ob, n, from, to)) {
				t.Fatalf("size %d, leaves [%d,%d): other parents than the block's", size, from, to)
			}
			if ok, _ := fill(slice, root, 1); ok != (len(slice) == SliceSize(n, from, to)) {
				t.Fatalf("size %d, leaves [%d,%d): a leaf at a time verified: %v", size, from, to, ok)
			}
			bad := root
			flip(rnd, bad[:])
			if ok, at := fill(slice, bad, SparseLeaves); ok || at != from {
				t.Fatalf("size %d, leaves [%d,%d): another root went through", size, from, to)
			}
			if len(slice) > 0 {
				flip(rnd, slice)
				if ok, _ := fill(slice, root, SparseLeaves); ok {
					t.Fatalf("size %d, leaves [%d,%d): a flipped bit in the slice went through", size, from, to)
				}
				flip(rnd, slice)
				if err := ExpandSparse(got, slice[1:], int64(size), from, to); !errors.Is(err, ErrSlice) {
					t.Fatalf("a short slice: %v", err)
				}
			}
			at := leavesOf(block, from, to)
			flip(rnd, at)
			if ok, _ := fill(AppendSparse(nil, ob, n, from, to), root, SparseLeaves); ok {
				t.Fatalf("size %d, leaves [%d,%d): a flipped bit in the data went through", size, from, to)
			}
			block = randomBlock(size)
		}
	}
	if got := sliceSize(LeavesPerBlock, 0, LeavesPerBlock, span{0, LeavesPerBlock}); got != 448 {
		t.Errorf("sparse slice of a full block: %d bytes, the package promises 448", got)
	}
}

func flip(rnd *rand.Rand, b []byte) { b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8) }

func TestVerifyLeavesRefusesOtherPlaces(t *testing.T) {
	const size = 100 << 10
	block := randomBlock(size)
	ob, root := Outboard(block)
	leaf := block[LeafSize : 2*LeafSize]
	if !VerifyLeaves(leaf, ob, LeafSize, root) {
		t.Fatal("the right leaf does not verify")
	}
	for _, tc := range []struct {
		name string
		data []byte
		off  int64
	}{
		{"no data", nil, LeafSize},
		{"another leaf", leaf, 0},
		{"not at a leaf's edge", leaf, LeafSize + 1},
		{"before the block", leaf, -LeafSize},
		{"far before the block", leaf, -1 << 62},
		{"behind the block", leaf, size},
		{"far behind the block", leaf, 1 << 62},
		{"cut", leaf[:LeafSize-1], LeafSize},
		{"with a byte too many", block[LeafSize : 2*LeafSize+1], LeafSize},
	} {
		if VerifyLeaves(tc.data, ob, tc.off, root) {
			t.Errorf("%s: verified", tc.name)
		}
	}
	for n := range ob {
		if VerifyLeaves(leaf, ob[:n], LeafSize, root) {
			t.Fatalf("an outboard cut to %d bytes was accepted", n)
		}
	}
}

func TestExpandSliceRefuses(t *testing.T) {
	const size = 100 << 10
	ob, _ := Outboard(randomBlock(size))
	n := Leaves(size)
	good := AppendSlice(nil, ob, n, 2, 4)
	for _, tc := range []struct {
		name     string
		outboard int
		slice    []byte
		size     int64
		from, to int
	}{
		{"short slice", len(ob), good[1:], size, 2, 4},
		{"long slice", len(ob), append(slices.Clone(good), 0), size, 2, 4},
		{"other leaves", len(ob), good, size, 0, n},
		{"no leaves", len(ob), nil, size, 2, 2},
		{"backwards", len(ob), nil, size, 4, 2},
		{"negative leaf", len(ob), good, size, -1, 1},
		{"leaf behind the end", len(ob), good, size, 2, n + 1},
		{"short outboard", len(ob) - 1, good, size, 2, 4},
		{"no outboard", 0, good, size, 2, 4},
		{"empty block", 8, nil, 0, 0, 1},
		{"negative block", 8, nil, -5, 0, 1},
	} {
		if err := ExpandSlice(make([]byte, tc.outboard), tc.slice, tc.size, tc.from, tc.to); !errors.Is(err, ErrSlice) {
			t.Errorf("%s: got %v, want ErrSlice", tc.name, err)
		}
	}
}

// HashLeaf gives the nodes that stand in the outboard, so that increments and
// the tree agree about every leaf.
func TestHashLeafIsInOutboard(t *testing.T) {
	for _, size := range treeSizes {
		block := randomBlock(size)
		ob, root := Outboard(block)
		n := Leaves(int64(size))
		if n == 1 {
			if Root(HashLeaf(block, 0, 1)) != root {
				t.Errorf("size %d: the only leaf's hash is not the root", size)
			}
			continue
		}
		for i := range n {
			h := HashLeaf(leavesOf(block, i, i+1), i, n)
			// Its parent is the last one on its path; the left half is for
			// the left child.
			path := AppendSlice(nil, ob, n, i, i+1)
			parent := path[len(path)-64:]
			if !bytes.Equal(h[:], parent[:HashSize]) && !bytes.Equal(h[:], parent[HashSize:]) {
				t.Errorf("size %d: hash of leaf %d is not in its parent", size, i)
			}
		}
	}
}

func TestLeafAllocations(t *testing.T) {
	block := randomBlock(BlockSize)
	ob, root := Outboard(block)
	leaf := block[5*LeafSize : 6*LeafSize]
	if n := testing.AllocsPerRun(50, func() { HashLeaf(leaf, 5, LeavesPerBlock) }); n != 0 {
		t.Errorf("HashLeaf allocates %v times", n)
	}
	if n := testing.AllocsPerRun(50, func() {
		if !VerifyLeaves(leaf, ob, 5*LeafSize, root) {
			t.Fatal("leaf does not verify")
		}
	}); n != 0 {
		t.Errorf("VerifyLeaves allocates %v times", n)
	}
	slice := AppendSlice(nil, ob, LeavesPerBlock, 5, 6)
	dst := make([]byte, 0, 4096)
	room := make([]byte, OutboardSize(BlockSize))
	if n := testing.AllocsPerRun(50, func() {
		dst = AppendSlice(dst[:0], ob, LeavesPerBlock, 5, 6)
		if ExpandSlice(room, slice, BlockSize, 5, 6) != nil {
			t.Fatal("slice does not expand")
		}
	}); n > 2 {
		t.Errorf("AppendSlice and ExpandSlice allocate %v times", n)
	}
}

// FuzzExpandSlice feeds slices as they come off the wire. None may pass for the
// leaves of a block unless it is theirs.
func FuzzExpandSlice(f *testing.F) {
	const size = 5*LeafSize + 100
	block := randomBlock(size)
	ob, root := Outboard(block)
	n := Leaves(size)
	f.Add(AppendSlice(nil, ob, n, 0, 1), int64(size), 0, 1)
	f.Add(AppendSlice(nil, ob, n, 2, 6), int64(size), 2, 6)
	f.Add([]byte{}, int64(1), 0, 1)
	f.Add([]byte{}, int64(-1), -1, 1<<30)
	f.Fuzz(func(t *testing.T, slice []byte, blockSize int64, from, to int) {
		if blockSize > BlockSize {
			return
		}
		room := make([]byte, max(0, OutboardSize(max(blockSize, 0))))
		if err := ExpandSlice(room, slice, blockSize, from, to); err != nil {
			return
		}
		if to > n || from >= n {
			return
		}
		data := leavesOf(block, from, to)
		if !VerifyLeaves(data, room, int64(from)*LeafSize, root) {
			return
		}
		// A tree of another size may have the same path to the first leaves.
		if !bytes.Equal(slice, AppendSlice(nil, ob, n, from, to)) {
			t.Errorf("a made-up slice for leaves [%d,%d) of %d bytes was accepted", from, to, blockSize)
		}
	})
}

func BenchmarkOutboard(b *testing.B) {
	block := randomBlock(BlockSize)
	b.SetBytes(BlockSize)
	b.ReportAllocs()
	for b.Loop() {
		Outboard(block)
	}
}

func BenchmarkHashLeaf(b *testing.B) {
	leaf := randomBlock(LeafSize)
	b.SetBytes(LeafSize)
	b.ReportAllocs()
	for b.Loop() {
		HashLeaf(leaf, 3, LeavesPerBlock)
	}
}

func BenchmarkVerifyLeaf(b *testing.B) {
	block := randomBlock(BlockSize)
	ob, root := Outboard(block)
	b.SetBytes(LeafSize)
	b.ReportAllocs()
	for b.Loop() {
		VerifyLeaves(block[5*LeafSize:6*LeafSize], ob, 5*LeafSize, root)
	}
}
