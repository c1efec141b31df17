package content

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Domain strings keep a signature of one kind from standing for another.
const (
	blockDomain     = "p2pnode-block:"
	incrementDomain = "p2pnode-increment:"
)

// ErrSignature says that a signature is not the signer's, or not over these
// bytes.
var ErrSignature = errors.New("bad signature")

// BlockName says which block a proof speaks of.
type BlockName struct {
	Task       TaskID
	Generation Generation
	// FileSize is the file's size in bytes: it fixes the length of the block.
	FileSize int64
	Index    int64
}

// Bytes returns the range of the block in its file.
func (b BlockName) Bytes() Range { return Layout{Size: b.FileSize}.Block(b.Index) }

func (b BlockName) append(dst []byte) []byte {
	dst = append(dst, b.Task[:]...)
	dst = append(dst, b.Generation[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(b.FileSize))
	return binary.BigEndian.AppendUint64(dst, uint64(b.Index))
}

// Seal is an owner's signature over a complete block's root.
type Seal struct {
	Root Root
	// Signer is the seed that read the block from the origin.
	Signer peer.ID
	Sig    []byte
}

func (b BlockName) sealMessage(r Root) []byte {
	return append(b.append([]byte(blockDomain)), r[:]...)
}

// SealBlock signs the root of a complete block. Cost: 28 µs.
func SealBlock(key crypto.PrivKey, signer peer.ID, b BlockName, r Root) (Seal, error) {
	sig, err := key.Sign(b.sealMessage(r))
	if err != nil {
		return Seal{}, fmt.Errorf("sign block %d of %s: %w", b.Index, b.Task, err)
	}
	return Seal{Root: r, Signer: signer, Sig: sig}, nil
}

// Verify checks the signature; whether the signer may sign is the caller's to
// know. Cost: 68 µs. The error wraps ErrSignature.
func (s Seal) Verify(b BlockName) error {
	if err := verify(s.Signer, b.sealMessage(s.Root), s.Sig); err != nil {
		return fmt.Errorf("block %d of %s: %w", b.Index, b.Task, err)
	}
	return nil
}

// Increment is an owner's signature over the leaves of a block that is still
// arriving, whose root nobody can know yet. The block's Seal replaces it.
type Increment struct {
	// First is the index, in its block, of the first leaf.
	First int
	// Hashes are those of the leaves First, First+1, …; at most LeavesPerBlock.
	Hashes []LeafHash
	Signer peer.ID
	Sig    []byte
}

// End returns the index behind the last leaf.
func (inc Increment) End() int { return inc.First + len(inc.Hashes) }

func (inc Increment) message(b BlockName) []byte {
	m := b.append([]byte(incrementDomain))
	m = binary.BigEndian.AppendUint32(m, uint32(inc.First))
	for _, h := range inc.Hashes {
		m = append(m, h[:]...)
	}
	return m
}

// SignIncrement signs the hashes of consecutive leaves of a block. Cost: 28 µs.
func SignIncrement(key crypto.PrivKey, signer peer.ID, b BlockName, first int, hashes []LeafHash) (Increment, error) {
	inc := Increment{First: first, Hashes: hashes, Signer: signer}
	sig, err := key.Sign(inc.message(b))
	if err != nil {
		return Increment{}, fmt.Errorf("sign leaves from %d of block %d of %s: %w", first, b.Index, b.Task, err)
	}
	inc.Sig = sig
	return inc, nil
}

// Verify checks the signature and that the leaves lie in the block; whether the
// signer may sign is the caller's to know. The error wraps ErrSignature.
func (inc Increment) Verify(b BlockName) error {
	if inc.First < 0 || len(inc.Hashes) == 0 || inc.End() > Leaves(b.Bytes().Len) {
		return fmt.Errorf("leaves %d to %d of block %d of %s: %w: no such leaves", inc.First, inc.End(), b.Index, b.Task, ErrSignature)
	}
	if err := verify(inc.Signer, inc.message(b), inc.Sig); err != nil {
		return fmt.Errorf("leaves from %d of block %d of %s: %w", inc.First, b.Index, b.Task, err)
	}
	return nil
}

func verify(signer peer.ID, msg, sig []byte) error {
	pub, err := signer.ExtractPublicKey()
	if err != nil {
		return fmt.Errorf("%w: no key in signer %q: %w", ErrSignature, signer, err)
	}
	ok, err := pub.Verify(msg, sig)
	if err != nil || !ok {
		return ErrSignature
	}
	return nil
}
