package content

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"lukechampine.com/blake3/bao"
)

// partsOf yields every part of a block that is less than its leaf.
func partsOf(block []byte, visit func(part Range, unit int64, i int, leaf []byte)) {
	size := int64(len(block))
	for unit := int64(PartSize); unit < LeafSize; unit *= 2 {
		for off := int64(0); off < size; off += unit {
			part := Range{off, unit}.Intersect(Range{Len: size})
			i := int(off / LeafSize)
			if leaf := leavesOf(block, i, i+1); int64(len(leaf)) > part.Len {
				visit(part, unit, i, leaf)
			}
		}
	}
}

func TestPart(t *testing.T) {
	const size = 3*LeafSize + 9000
	for _, tc := range []struct {
		asked, want Range
		unit        int64
	}{
		{Range{0, 1}, Range{0, PartSize}, PartSize},
		{Range{0, PartSize}, Range{0, PartSize}, PartSize},
		{Range{1, PartSize}, Range{0, 2 * PartSize}, 2 * PartSize},
		{Range{PartSize - 1, 2}, Range{0, 2 * PartSize}, 2 * PartSize},
		{Range{2*PartSize - 1, 1}, Range{PartSize, PartSize}, PartSize},
		{Range{2*PartSize - 1, 2}, Range{0, LeafSize}, LeafSize},
		{Range{2 * PartSize, 2 * PartSize}, Range{2 * PartSize, 2 * PartSize}, 2 * PartSize},
		{Range{LeafSize - 1, 1}, Range{LeafSize - PartSize, PartSize}, PartSize},
		{Range{LeafSize - 1, 2}, Range{0, 2 * LeafSize}, LeafSize},
		{Range{0, size}, Range{0, size}, LeafSize},
		{Range{LeafSize, LeafSize}, Range{LeafSize, LeafSize}, LeafSize},
		{Range{3 * LeafSize, 1}, Range{3 * LeafSize, PartSize}, PartSize},
		{Range{3*LeafSize + 8191, 1}, Range{3*LeafSize + PartSize, PartSize}, PartSize},
		{Range{3*LeafSize + 8191, 2}, Range{3 * LeafSize, 9000}, LeafSize},
		{Range{3*LeafSize + 8192, 1}, Range{3*LeafSize + 8192, 9000 - 8192}, PartSize},
		{Range{3*LeafSize + 8999, 100}, Range{3*LeafSize + 8192, 9000 - 8192}, PartSize},
		{Range{size, 1}, Range{}, LeafSize},
		{Range{5, 0}, Range{}, LeafSize},
	} {
		if part, unit := Part(tc.asked, size); part != tc.want || unit != tc.unit {
			t.Errorf("Part(%v): %v of %d, want %v of %d", tc.asked, part, unit, tc.want, tc.unit)
		}
	}
	for _, size := range []int64{1, 1024, PartSize} {
		if part, unit := Part(Range{0, 1}, size); part != (Range{0, size}) || unit != LeafSize {
			t.Errorf("file of %d bytes: %v of %d", size, part, unit)
		}
	}
}

var partSizes = append(slices.Clone(treeSizes), 1025, PartSize, PartSize+1, 2*PartSize, 2*PartSize+1, 3*PartSize+5, LeafSize+PartSize+1)

// sliceOfPart is what a source sends.
func sliceOfPart(block, ob []byte, part Range, unit int64, i int, leaf []byte) []byte {
	n := Leaves(int64(len(block)))
	slice := AppendSlice([]byte("before"), ob, n, i, i+1)
	all := Range{int64(i) * LeafSize, int64(len(leaf))}
	return AppendParents(slice, all, part, unit, func(dst []byte, node Range) []byte {
		dst, hash := AppendParent(dst, block[node.Off:node.End()], node.Off)
		if node == all && n > 1 && hash != HashLeaf(leaf, i, n) {
			panic("the top parent's hash is not the leaf's")
		}
		if above := dst[:len(dst)-2*HashSize]; len(above) >= len("before")+2*HashSize && !bytes.Contains(above[len(above)-2*HashSize:], hash[:]) {
			panic("a parent's hash is not in the one above")
		}
		return dst
	})[len("before"):]
}

// The slice of a part is the one from a tree that goes down to its unit, and is
// accepted for the part; a flipped bit in either is not.
func TestPartsAgainstBao(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 5))
	for _, size := range partSizes {
		block := randomBlock(size)
		ob, root := Outboard(block)
		partsOf(block, func(part Range, unit int64, i int, leaf []byte) {
			slice := sliceOfPart(block, ob, part, unit, i, leaf)
			fine, fineRoot := bao.EncodeBuf(block, group-int(LeafSize/unit/2), true)
			n := int(count(int64(size), unit))
			want := AppendSlice(nil, fine, n, int(part.Off/unit), int(part.Off/unit)+1)
			if root != fineRoot || !bytes.Equal(slice, want) {
				t.Fatalf("size %d: slice of part %v is not the finer tree's", size, part)
			}
			data := slices.Clone(block[part.Off:part.End()])
			verify := func() bool { return VerifyPart(data, slice, int64(size), part.Off, unit, root) }
			if !verify() {
				t.Fatalf("size %d: part %v does not verify", size, part)
			}
			for what, b := range map[string][]byte{"data": data, "slice": slice, "root": root[:]} {
				good := slices.Clone(b)
				flip(rnd, b)
				if verify() {
					t.Errorf("size %d, part %v: a flipped bit in the %s went through", size, part, what)
				}
				copy(b, good)
			}
		})
	}
}

func TestVerifyPartRefuses(t *testing.T) {
	const size = 2*LeafSize + 9000
	block := randomBlock(size)
	ob, root := Outboard(block)
	part := Range{LeafSize + PartSize, PartSize}
	data := block[part.Off:part.End()]
	slice := sliceOfPart(block, ob, part, PartSize, 1, block[LeafSize:2*LeafSize])
	if !VerifyPart(data, slice, size, part.Off, PartSize, root) {
		t.Fatal("the right part does not verify")
	}
	for _, tc := range []struct {
		name        string
		data, slice []byte
		size, off   int64
	}{
		{"no data", nil, slice, size, part.Off},
		{"another part", data, slice, size, LeafSize},
		{"another leaf", data, slice, size, PartSize},
		{"two parts", block[LeafSize : LeafSize+2*PartSize], slice, size, LeafSize},
		{"not at an edge", data, slice, size, part.Off + 1},
		{"before the block", data, slice, size, -PartSize},
		{"far before the block", data, slice, size, -1 << 62},
		{"behind the block", data, slice, size, size},
		{"far behind the block", data, slice, size, 1 << 62},
		{"cut", data[:len(data)-1], slice, size, part.Off},
		{"no slice", data, nil, size, part.Off},
		{"short slice", data, slice[:len(slice)-64], size, part.Off},
		{"half a parent", data, slice[:len(slice)-32], size, part.Off},
		{"long slice", data, append(slices.Clone(slice), slice[:64]...), size, part.Off},
		{"block of another size", data, slice, 8 * LeafSize, part.Off},
		{"block of no size", data, slice, 0, part.Off},
	} {
		if VerifyPart(tc.data, tc.slice, tc.size, tc.off, PartSize, root) {
			t.Errorf("%s: verified", tc.name)
		}
	}
}

func TestPartAllocations(t *testing.T) {
	block := randomBlock(BlockSize)
	ob, root := Outboard(block)
	leaf := Range{5 * LeafSize, LeafSize}
	part := Range{5*LeafSize + PartSize, PartSize}
	slice := sliceOfPart(block, ob, part, PartSize, 5, block[leaf.Off:leaf.End()])
	room := make([]byte, 0, 128)
	if n := testing.AllocsPerRun(50, func() {
		AppendParents(room, leaf, part, PartSize, func(dst []byte, node Range) []byte {
			dst, _ = AppendParent(dst, block[node.Off:node.End()], node.Off)
			return dst
		})
		if !VerifyPart(block[part.Off:part.End()], slice, BlockSize, part.Off, PartSize, root) {
			t.Fatal("part does not verify")
		}
	}); n != 0 {
		t.Errorf("AppendParents and VerifyPart allocate %v times", n)
	}
	short := block[:LeafSize-1]
	if n := testing.AllocsPerRun(50, func() { HashLeaf(short, 0, 2) }); n != 0 {
		t.Errorf("HashLeaf of a short leaf allocates %v times", n)
	}
}

func BenchmarkVerifyPart(b *testing.B) {
	block := randomBlock(BlockSize)
	ob, root := Outboard(block)
	part := Range{5 * LeafSize, PartSize}
	slice := sliceOfPart(block, ob, part, PartSize, 5, block[5*LeafSize:6*LeafSize])
	b.SetBytes(PartSize)
	b.ReportAllocs()
	for b.Loop() {
		VerifyPart(block[part.Off:part.End()], slice, BlockSize, part.Off, PartSize, root)
	}
}

func BenchmarkAppendParent(b *testing.B) {
	leaf := randomBlock(LeafSize)
	room := make([]byte, 0, 128)
	b.SetBytes(LeafSize)
	b.ReportAllocs()
	for b.Loop() {
		AppendParent(room, leaf, 5*LeafSize)
	}
}
