package content

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// fixedKey returns the key of a seed of 32 equal bytes.
func fixedKey(t testing.TB, b byte) (crypto.PrivKey, peer.ID) {
	t.Helper()
	std := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
	priv, err := crypto.UnmarshalEd25519PrivateKey(std)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	return priv, id
}

func testBlock() BlockName {
	return BlockName{Task: TaskID{1}, Generation: Generation{2}, FileSize: 3<<20 + 5, Index: 2}
}

// others returns names that differ from b in one respect each.
func others(b BlockName) map[string]BlockName {
	out := make(map[string]BlockName)
	o := b
	o.Task[31] ^= 1
	out["task"] = o
	o = b
	o.Generation[15] ^= 1
	out["generation"] = o
	o = b
	o.FileSize++
	out["file size"] = o
	o = b
	o.Index--
	out["index"] = o
	return out
}

func TestSeal(t *testing.T) {
	priv, id := fixedKey(t, 7)
	_, other := fixedKey(t, 8)
	b := testBlock()
	seal, err := SealBlock(priv, id, b, Root{9})
	if err != nil {
		t.Fatal(err)
	}
	if err := seal.Verify(b); err != nil {
		t.Fatal(err)
	}
	for what, name := range others(b) {
		if err := seal.Verify(name); !errors.Is(err, ErrSignature) {
			t.Errorf("another %s: %v", what, err)
		}
	}
	for what, bad := range map[string]Seal{
		"root":            {Root{8}, id, seal.Sig},
		"signer":          {seal.Root, other, seal.Sig},
		"no signer":       {seal.Root, "", seal.Sig},
		"hashed signer":   {seal.Root, peer.ID("\x12\x20" + string(make([]byte, 32))), seal.Sig},
		"no signature":    {seal.Root, id, nil},
		"short signature": {seal.Root, id, seal.Sig[1:]},
		"signature":       {seal.Root, id, append([]byte{seal.Sig[0] ^ 1}, seal.Sig[1:]...)},
	} {
		if err := bad.Verify(b); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestIncrement(t *testing.T) {
	priv, id := fixedKey(t, 7)
	b := testBlock()
	hashes := []LeafHash{{1}, {2}, {3}}
	inc, err := SignIncrement(priv, id, b, 5, hashes)
	if err != nil {
		t.Fatal(err)
	}
	if err := inc.Verify(b); err != nil || inc.End() != 8 {
		t.Fatalf("End %d, %v", inc.End(), err)
	}
	for what, name := range others(b) {
		if err := inc.Verify(name); !errors.Is(err, ErrSignature) {
			t.Errorf("another %s: %v", what, err)
		}
	}
	for what, change := range map[string]func(*Increment){
		"another place":    func(i *Increment) { i.First++ },
		"before the block": func(i *Increment) { i.First = -1 },
		"fewer hashes":     func(i *Increment) { i.Hashes = i.Hashes[:2] },
		"no hashes":        func(i *Increment) { i.Hashes = nil },
		"another hash":     func(i *Increment) { i.Hashes = []LeafHash{{1}, {2}, {4}} },
		"other order":      func(i *Increment) { i.Hashes = []LeafHash{{2}, {1}, {3}} },
		"no signature":     func(i *Increment) { i.Sig = nil },
	} {
		bad := inc
		bad.Hashes = slices.Clone(inc.Hashes)
		change(&bad)
		if err := bad.Verify(b); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestIncrementMustLieInItsBlock(t *testing.T) {
	priv, id := fixedKey(t, 7)
	last := testBlock()
	last.Index = 3 // of 5 bytes: one leaf
	for _, tc := range []struct {
		b     BlockName
		first int
		n     int
		ok    bool
	}{
		{testBlock(), 0, LeavesPerBlock, true},
		{testBlock(), 63, 1, true},
		{testBlock(), 63, 2, false},
		{testBlock(), 1 << 32, 1, false},
		{last, 0, 1, true},
		{last, 0, 2, false},
	} {
		inc, err := SignIncrement(priv, id, tc.b, tc.first, make([]LeafHash, tc.n))
		if err != nil {
			t.Fatal(err)
		}
		if err := inc.Verify(tc.b); tc.ok != (err == nil) {
			t.Errorf("%d leaves from %d of %v: %v", tc.n, tc.first, tc.b.Bytes(), err)
		}
	}
	nowhere := testBlock()
	nowhere.Index = 1 << 44 // times the block size wraps round to 0
	inc, _ := SignIncrement(priv, id, nowhere, 0, make([]LeafHash, 1))
	if err := inc.Verify(nowhere); !errors.Is(err, ErrSignature) {
		t.Errorf("a leaf of no block: %v", err)
	}
}

// A seal must not stand for an increment, whatever their bytes.
func TestSignatureDomains(t *testing.T) {
	b := testBlock()
	seal := b.sealMessage(Root{1})
	inc := Increment{First: 0, Hashes: []LeafHash{{1}}}.message(b)
	if !bytes.HasPrefix(seal, []byte("p2pnode-block:")) || !bytes.HasPrefix(inc, []byte("p2pnode-increment:")) {
		t.Errorf("messages %q and %q", seal, inc)
	}
}
