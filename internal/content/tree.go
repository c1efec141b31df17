package content

import (
	"encoding/binary"
	"errors"
	"math/bits"

	"lukechampine.com/blake3/bao"
	"lukechampine.com/blake3/guts"
)

// group is the Bao chunk group: 2^4 chunks of 1 KiB are one leaf.
const group = 4

// HashSize is the size in bytes of a root and of a leaf hash.
const HashSize = 32

// Root is the BLAKE3 hash of a block, which is the root of its Bao tree.
type Root [HashSize]byte

// LeafHash is the chaining value of one leaf at its place in its block: a node
// of the block's tree.
type LeafHash [HashSize]byte

// ErrSlice says that a slice does not have the form its leaves demand.
var ErrSlice = errors.New("malformed tree slice")

// Outboard builds the tree of a block: its root, and the Bao outboard encoding
// (8 bytes of length, then 64 bytes a parent in pre-order; 4040 bytes for a
// full block). The block may be short but not empty. It says what bao.EncodeBuf
// says, which copies the block twice first. Cost: 0.31 ms for 1 MiB.
func Outboard(block []byte) (outboard []byte, root Root) {
	n := Leaves(int64(len(block)))
	leaves := make([]LeafHash, n)
	for i := range leaves {
		leaves[i] = HashLeaf(block[i*LeafSize:min((i+1)*LeafSize, len(block))], i, n)
	}
	return OutboardOf(leaves, int64(len(block)))
}

// OutboardOf is Outboard for a block of size bytes whose leaves have these
// hashes, each as HashLeaf gives it. Cost: 7 µs for 1 MiB.
func OutboardOf(leaves []LeafHash, size int64) (outboard []byte, root Root) {
	if len(leaves) == 0 || len(leaves) != Leaves(size) {
		panic("content: not the leaves of a block of this size")
	}
	outboard = make([]byte, OutboardSize(size))
	binary.LittleEndian.PutUint64(outboard, uint64(size))
	b := builder{leaves, outboard}
	return outboard, Root(b.node(0, len(leaves), 8, guts.FlagRoot))
}

// builder makes the tree over leaves.
type builder struct {
	leaves   []LeafHash
	outboard []byte
}

// node makes the subtree of count leaves from first on, whose parents go to byte
// at of the outboard, and returns its hash.
func (b *builder) node(first, count, at int, flags uint32) LeafHash {
	if count == 1 {
		return b.leaves[first]
	}
	left := leftOf(count)
	l := b.node(first, left, at+64, 0)
	r := b.node(first+left, count-left, at+64*left, 0)
	copy(b.outboard[at:], l[:])
	copy(b.outboard[at+HashSize:], r[:])
	return hashOf(guts.ParentNode(wordsOf(l[:]), wordsOf(r[:]), &guts.IV, flags))
}

// OutboardSize returns the length of the outboard of a block of n bytes.
func OutboardSize(n int64) int { return bao.EncodedSize(int(n), group, true) }

// Leaves returns the number of leaves of a block of n bytes.
func Leaves(n int64) int { return int(count(n, LeafSize)) }

// HashLeaf returns the hash of leaf number i of a block of n leaves; that of the
// only leaf of a block is the block's root. leaf must be 1 to LeafSize bytes
// long. It allocates nothing. Cost: 4.8 µs.
func HashLeaf(leaf []byte, i, n int) LeafHash {
	node := compress(alone(leaf), int64(i)*LeafSize)
	if n == 1 {
		node.Flags |= guts.FlagRoot
	}
	return hashOf(node)
}

// compress returns the node, not yet compressed itself, of up to LeafSize bytes
// at off of their block. It may read p up to its capacity.
func compress(p []byte, off int64) guts.Node {
	if cap(p) >= LeafSize {
		return guts.CompressBuffer((*[LeafSize]byte)(p[:LeafSize]), len(p), &guts.IV, uint64(off)/guts.ChunkSize, 0)
	}
	var buf [LeafSize]byte
	copy(buf[:], p)
	return guts.CompressBuffer(&buf, len(p), &guts.IV, uint64(off)/guts.ChunkSize, 0)
}

// alone cuts the capacity of a leaf that others may write behind.
func alone(leaf []byte) []byte { return leaf[:len(leaf):len(leaf)] }

func hashOf(node guts.Node) (h LeafHash) {
	for i, w := range guts.ChainingValue(node) {
		binary.LittleEndian.PutUint32(h[4*i:], w)
	}
	return h
}

// VerifyLeaves reports whether data, which are whole leaves (the last of a
// block may be short) from byte off of a block on, are what the outboard and
// the root say. Of the outboard only the path to these leaves is looked at, so
// one that ExpandSlice filled in part will do. It says what bao.VerifyChunk
// says, which copies the data first. Cost: 5 µs for one leaf, 0.31 ms for 1 MiB
// (0.37 with the copies).
func VerifyLeaves(data, outboard []byte, off int64, root Root) bool {
	v := verifier{data: data, outboard: outboard}
	return v.check(off, root)
}

// FillLeaves is VerifyLeaves for an outboard that ExpandSparse filled for leaves
// [from, to) of the block, and puts into it the parents between the data's
// leaves that are not there. The data must be all of each subtree whose parents
// the slice left out: from the edge of SparseLeaves, or leaf from, to another,
// or leaf to. It reports false where they are not. The cost is that of
// VerifyLeaves.
func FillLeaves(data, outboard []byte, off int64, from, to int, root Root) bool {
	v := verifier{data: data, outboard: outboard, sparse: span{from, to}}
	return v.check(off, root)
}

// check says whether the data are right, from byte off of their block on.
func (v *verifier) check(off int64, root Root) bool {
	data, outboard := v.data, v.outboard
	if len(outboard) < 8 {
		return false
	}
	size := int64(binary.LittleEndian.Uint64(outboard))
	end := off + int64(len(data))
	if size <= 0 || size > BlockSize || len(outboard) != OutboardSize(size) ||
		len(data) == 0 || off < 0 || off%LeafSize != 0 || end > size || end%LeafSize != 0 && end != size {
		return false
	}
	v.from, v.to = int(off/LeafSize), Leaves(end)
	return v.node(wordsOf(root[:]), 0, Leaves(size), 8, guts.FlagRoot)
}

// verifier checks the tree on the path to leaves [from, to), whose bytes are
// data.
type verifier struct {
	data, outboard []byte
	from, to       int
	// sparse are the leaves of a slice without the parents of whole subtrees: see
	// span.covers. They are made of the data.
	sparse span
}

// node checks the subtree of count leaves from first on, of which cv is the
// hash and whose parents start at byte at of the outboard.
func (v *verifier) node(cv [8]uint32, first, count, at int, flags uint32) bool {
	if first >= v.to || first+count <= v.from {
		return true
	}
	if count == 1 || v.sparse.covers(first, count) {
		if first < v.from || first+count > v.to {
			return false
		}
		top := v.build(first, count, at)
		top.Flags |= flags
		return guts.ChainingValue(top) == cv
	}
	l, r := wordsOf(v.outboard[at:]), wordsOf(v.outboard[at+HashSize:])
	if guts.ChainingValue(guts.ParentNode(l, r, &guts.IV, flags)) != cv {
		return false
	}
	left := leftOf(count)
	return v.node(l, first, left, at+64, 0) && v.node(r, first+left, count-left, at+64*left, 0)
}

// build returns the node over count leaves from first on, not yet compressed, and
// puts the parents below it into the outboard, from byte at on.
func (v *verifier) build(first, count, at int) guts.Node {
	if count == 1 {
		p := v.data[(first-v.from)*LeafSize:]
		return compress(alone(p[:min(len(p), LeafSize)]), int64(first)*LeafSize)
	}
	left := leftOf(count)
	l := guts.ChainingValue(v.build(first, left, at+64))
	r := guts.ChainingValue(v.build(first+left, count-left, at+64*left))
	putWords(v.outboard[at:], l)
	putWords(v.outboard[at+HashSize:], r)
	return guts.ParentNode(l, r, &guts.IV, 0)
}

// leftOf returns the number of leaves in the left subtree of a tree of count:
// the largest power of two below it.
func leftOf(count int) int { return 1 << (bits.Len(uint(count-1)) - 1) }

func wordsOf(b []byte) (cv [8]uint32) {
	for i := range cv {
		cv[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return cv
}

func putWords(b []byte, cv [8]uint32) {
	for i, w := range cv {
		binary.LittleEndian.PutUint32(b[4*i:], w)
	}
}

// SparseLeaves is the number of leaves of the largest subtree whose parents a
// sparse slice leaves out: who has all of its bytes can make them. They begin at
// multiples of it.
const SparseLeaves = 8

// span is a run of leaves, [from, to).
type span struct{ from, to int }

// covers reports whether a sparse slice for these leaves has no parent of the
// subtree of count leaves from first on.
func (s span) covers(first, count int) bool {
	return count <= SparseLeaves && first >= s.from && first+count <= s.to
}

// walkSlice calls visit with the offset, in an outboard, of every parent on the
// path to the leaves [from, to) of a tree of n leaves, in pre-order, but for
// those in the subtrees that without covers.
func walkSlice(n, from, to int, without span, visit func(off int)) {
	var rec func(first, count, off int)
	rec = func(first, count, off int) {
		if count <= 1 || first >= to || first+count <= from || without.covers(first, count) {
			return
		}
		visit(off)
		left := leftOf(count)
		rec(first, left, off+64)
		rec(first+left, count-left, off+64*left) // the left subtree has left-1 parents
	}
	rec(0, n, 8)
}

// SliceSize returns the length of the slice for leaves [from, to) of a tree of
// n leaves.
func SliceSize(n, from, to int) int { return sliceSize(n, from, to, span{}) }

func sliceSize(n, from, to int, without span) int {
	size := 0
	walkSlice(n, from, to, without, func(int) { size += 64 })
	return size
}

// AppendSlice appends to dst the parents that a receiver needs to verify leaves
// [from, to) of a block: a Bao slice without its length header and its leaves.
func AppendSlice(dst, outboard []byte, n, from, to int) []byte {
	return appendSlice(dst, outboard, n, from, to, span{})
}

// AppendSparse is AppendSlice without the parents that FillLeaves makes: 448
// bytes for a full block, of 4032.
func AppendSparse(dst, outboard []byte, n, from, to int) []byte {
	return appendSlice(dst, outboard, n, from, to, span{from, to})
}

func appendSlice(dst, outboard []byte, n, from, to int, without span) []byte {
	walkSlice(n, from, to, without, func(off int) { dst = append(dst, outboard[off:off+64]...) })
	return dst
}

// ExpandSlice puts the parents of a slice for leaves [from, to) of a block of
// size bytes where they stand in the block's outboard, which must have
// OutboardSize(size) bytes. It returns ErrSlice where the slice is of another
// length; whether its hashes are right only VerifyLeaves tells.
func ExpandSlice(outboard, slice []byte, size int64, from, to int) error {
	return expandSlice(outboard, slice, size, from, to, span{})
}

// ExpandSparse is ExpandSlice for a slice of AppendSparse. FillLeaves puts the
// rest into the outboard.
func ExpandSparse(outboard, slice []byte, size int64, from, to int) error {
	return expandSlice(outboard, slice, size, from, to, span{from, to})
}

func expandSlice(outboard, slice []byte, size int64, from, to int, without span) error {
	n := Leaves(size)
	if from < 0 || to > n || from >= to || len(outboard) != OutboardSize(size) || len(slice) != sliceSize(n, from, to, without) {
		return ErrSlice
	}
	binary.LittleEndian.PutUint64(outboard, uint64(size))
	walkSlice(n, from, to, without, func(off int) {
		copy(outboard[off:off+64], slice)
		slice = slice[64:]
	})
	return nil
}
