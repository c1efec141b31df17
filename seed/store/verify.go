package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/p2pnode/p2pnode/internal/content"
)

// errMismatch says that bytes and record of a block do not fit each other, as
// far as a reader without a claim on the block can tell.
var errMismatch = errors.New("block and record do not match")

// checkSpan is how much of a block a check reads at once: whole leaves, and a
// divisor of the block size.
const checkSpan = 128 << 10

var (
	leafBuffers  = sync.Pool{New: func() any { return new([content.LeafSize]byte) }}
	checkBuffers = sync.Pool{New: func() any { return new([checkSpan]byte) }}
)

// Limits on what a Record and an Info may hold, in bytes.
const (
	maxSigner = 128
	maxSig    = 1024
	maxText   = 1<<16 - 1
)

func validateInfo(key Key, info Info) error {
	if info.Size < 0 {
		return fmt.Errorf("size %d of task %s: a file needs a known size", info.Size, key.Task)
	}
	if info.Size > MaxFileSize {
		return fmt.Errorf("size %d of task %s, at most %d: %w", info.Size, key.Task, int64(MaxFileSize), ErrFull)
	}
	if info.Generation != key.Generation {
		return fmt.Errorf("task %s: generation %s in the metadata, %s in the key", key.Task, info.Generation, key.Generation)
	}
	for _, s := range []string{info.URL, info.Digest, info.ETag, info.LastModified, info.ContentType, info.CacheControl, string(info.Fields)} {
		if len(s) > maxText {
			return fmt.Errorf("task %s: a text of %d bytes in the metadata: at most %d", key.Task, len(s), maxText)
		}
	}
	return nil
}

// validateRecord checks that rec has the form that a block of n bytes demands.
func validateRecord(rec Record, n int64) error {
	if want := content.OutboardSize(n); len(rec.Outboard) != want {
		return fmt.Errorf("outboard of %d bytes for a block of %d: want %d", len(rec.Outboard), n, want)
	}
	if size := binary.LittleEndian.Uint64(rec.Outboard); size != uint64(n) {
		return fmt.Errorf("outboard of a block of %d bytes: want %d", size, n)
	}
	if len(rec.Signer) > maxSigner || len(rec.Sig) > maxSig {
		return fmt.Errorf("signer of %d bytes, signature of %d: at most %d and %d", len(rec.Signer), len(rec.Sig), maxSigner, maxSig)
	}
	return nil
}

// validateBlock checks what costs little: that the sizes are right, and that
// the first leaf belongs to the record (6 µs).
func validateBlock(layout content.Layout, i int64, data []byte, rec Record) error {
	block := layout.Block(i)
	if i < 0 || block.Empty() {
		return fmt.Errorf("no block %d in a file of %d bytes", i, layout.Size)
	}
	if int64(len(data)) != block.Len {
		return fmt.Errorf("%d bytes for a block of %d", len(data), block.Len)
	}
	if err := validateRecord(rec, block.Len); err != nil {
		return err
	}
	if !content.VerifyLeaves(data[:min(len(data), content.LeafSize)], rec.Outboard, 0, rec.Root) {
		return errMismatch
	}
	return nil
}

// readVerified fills p with the bytes from off on of the block that src holds
// from base on, size bytes long. It reads whole leaves: those that p covers
// straight into p, those at its edges through a buffer.
func readVerified(src io.ReaderAt, base, size int64, rec *Record, p []byte, off int64) error {
	for len(p) > 0 {
		leaf := off - off%content.LeafSize
		end := min(leaf+content.LeafSize, size)
		n := min(end-off, int64(len(p)))
		var err error
		if whole := wholeLeaves(off, size, len(p)); whole > 0 {
			n = whole
			err = readLeaves(src, base, rec, p[:n], off)
		} else {
			buf := leafBuffers.Get().(*[content.LeafSize]byte)
			if err = readLeaves(src, base, rec, buf[:end-leaf], leaf); err == nil {
				copy(p[:n], buf[off-leaf:])
			}
			leafBuffers.Put(buf)
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// wholeLeaves returns how many of the n bytes from off on, in a block of size
// bytes, are whole leaves.
func wholeLeaves(off, size int64, n int) int64 {
	if off%content.LeafSize != 0 {
		return 0
	}
	if off+int64(n) >= size {
		return size - off
	}
	return int64(n) - int64(n)%content.LeafSize
}

// readLeaves fills p, which is as long as some whole leaves, from off on.
func readLeaves(src io.ReaderAt, base int64, rec *Record, p []byte, off int64) error {
	if n, err := src.ReadAt(p, base+off); n < len(p) {
		return err
	}
	if !content.VerifyLeaves(p, rec.Outboard, off, rec.Root) {
		return errMismatch
	}
	return nil
}

// checkBlock compares a whole block with its record.
func checkBlock(src io.ReaderAt, base, size int64, rec *Record) error {
	buf := checkBuffers.Get().(*[checkSpan]byte)
	defer checkBuffers.Put(buf)
	for off := int64(0); off < size; off += checkSpan {
		if err := readLeaves(src, base, rec, buf[:min(checkSpan, size-off)], off); err != nil {
			return err
		}
	}
	return nil
}

// checkRange returns an error where [off, off+n) is not in a file of size bytes.
func checkRange(off int64, n int, size int64) error {
	if off < 0 || off > size || int64(n) > size-off {
		return fmt.Errorf("read %d bytes from %d: the file has %d", n, off, size)
	}
	return nil
}
