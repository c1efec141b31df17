package content

import (
	"encoding/binary"

	"lukechampine.com/blake3/guts"
)

// PartSize is the least that can be verified. The block's tree goes on below
// its leaves: the same root stands over leaves of 16 KiB and over parts of 8 or
// 4 KiB. Outboards leave these levels out; a source makes them from the leaf to
// answer a small read with one part.
const PartSize = 4 << 10

// Part returns the smallest part of a leaf that holds all of an asked range of
// a file of size bytes, and the unit, PartSize or twice that, of which it is one
// (the last of a leaf may be short). unit is LeafSize, and part the leaves that
// hold the range, where that is no less.
func Part(asked Range, size int64) (part Range, unit int64) {
	file := Range{Len: size}
	asked = asked.Intersect(file)
	leaves := asked.Align(LeafSize).Intersect(file)
	for unit = PartSize; unit < LeafSize; unit *= 2 {
		part = asked.Align(unit).Intersect(file)
		if part.Len <= unit && leaves.Len > part.Len {
			return part, unit
		}
	}
	return leaves, LeafSize
}

// AppendParents appends what AppendSlice leaves out of the slice for a part:
// the parents between the hash of its leaf and the part, as parent appends that
// of one node of the block's tree. leaf and part, of some unit, are in the
// coordinates of the block.
func AppendParents(dst []byte, leaf, part Range, unit int64, parent func(dst []byte, node Range) []byte) []byte {
	for node := leaf; node.Len > unit; {
		dst = parent(dst, node)
		left := int64(leftOf(int(count(node.Len, unit)))) * unit
		if part.Off < node.Off+left {
			node.Len = left
		} else {
			node = Span(node.Off+left, node.End())
		}
	}
	return dst
}

// AppendParent appends the hashes of both children, 64 bytes, of the node of a
// block's tree that has the bytes data, more than PartSize, at byte off of the
// block. hash is the node's own, unless it is the root. Cost: that of HashLeaf.
func AppendParent(dst, data []byte, off int64) (children []byte, hash LeafHash) {
	node := compress(alone(data), off)
	for _, w := range node.Block {
		dst = binary.LittleEndian.AppendUint32(dst, w)
	}
	return dst, hashOf(node)
}

// VerifyPart reports whether data, which are one part of a unit at byte off of a
// block of size bytes, and slice, the parents from the root down to it, are what
// the root says. bao.VerifyChunk, with an outboard of that unit, says the same;
// here a path is all there is. Where data have a capacity of LeafSize, nobody
// may write there meanwhile: they are then hashed where they are. Cost: 5 µs.
func VerifyPart(data, slice []byte, size, off, unit int64, root Root) bool {
	if len(data) == 0 || off < 0 || off%unit != 0 || (Range{off, unit}).Intersect(Range{0, size}).Len != int64(len(data)) {
		return false
	}
	want, flags := root[:], uint32(guts.FlagRoot)
	node := Range{0, size}
	for ; node.Len > unit; flags = 0 {
		if len(slice) < 2*HashSize {
			return false
		}
		left, right := slice[:HashSize], slice[HashSize:2*HashSize]
		if guts.ChainingValue(guts.ParentNode(wordsOf(left), wordsOf(right), &guts.IV, flags)) != wordsOf(want) {
			return false
		}
		slice = slice[2*HashSize:]
		n := int64(leftOf(int(count(node.Len, unit)))) * unit
		if want = left; off < node.Off+n {
			node.Len = n
		} else {
			want, node = right, Span(node.Off+n, node.End())
		}
	}
	leaf := compress(data, off)
	leaf.Flags |= flags
	return len(slice) == 0 && guts.ChainingValue(leaf) == wordsOf(want)
}
