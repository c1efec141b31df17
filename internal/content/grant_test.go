package content

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

func newSigner(t testing.TB) (crypto.PrivKey, peer.ID) {
	t.Helper()
	key, pub, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

func someGrant(t testing.TB) (Grant, []byte) {
	t.Helper()
	key, issuer := newSigner(t)
	_, reader := newSigner(t)
	g := Grant{
		Task: TaskID{1}, Generation: Generation{2}, Upstream: "https://origin.test", Peer: reader,
		Expires: 1_800_000_000, Issuer: issuer,
	}
	b, err := SignGrant(key, issuer, g)
	if err != nil {
		t.Fatal(err)
	}
	return g, b
}

// TestGrant: what was signed comes back, and no byte of it can be changed.
func TestGrant(t *testing.T) {
	want, b := someGrant(t)
	got, err := ParseGrant(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := got.Verify(); err != nil {
		t.Error(err)
	}
	got.Sig = nil
	if got.Task != want.Task || got.Generation != want.Generation || got.Upstream != want.Upstream || got.Peer != want.Peer ||
		got.Issuer != want.Issuer || got.Expires != want.Expires {
		t.Errorf("%+v, want %+v", got, want)
	}
	for i := range b {
		for _, bit := range []byte{1, 128} {
			other := bytes.Clone(b)
			other[i] ^= bit
			g, err := ParseGrant(other)
			if err == nil {
				err = g.Verify()
			}
			if !errors.Is(err, ErrGrant) && !errors.Is(err, ErrSignature) {
				t.Errorf("byte %d changed by %d: %v", i, bit, err)
			}
		}
		if _, err := ParseGrant(b[:i]); !errors.Is(err, ErrGrant) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
	if _, err := ParseGrant(append(bytes.Clone(b), 0)); !errors.Is(err, ErrGrant) {
		t.Errorf("a byte too many: %v", err)
	}
	key, issuer := newSigner(t)
	want.Upstream = string(make([]byte, 255))
	if b, err := SignGrant(key, issuer, want); err != nil {
		t.Errorf("an upstream of 255 bytes: %v", err)
	} else if got, err := ParseGrant(b); err != nil || got.Upstream != want.Upstream {
		t.Errorf("an upstream of 255 bytes becomes one of %d: %v", len(got.Upstream), err)
	}
	want.Upstream = string(make([]byte, 256))
	if _, err := SignGrant(key, issuer, want); !errors.Is(err, ErrGrant) {
		t.Errorf("an upstream of 256 bytes: %v", err)
	}
}

// FuzzParseGrant: nothing crashes the parser, and what it takes is encoded in one
// way alone.
func FuzzParseGrant(f *testing.F) {
	_, b := someGrant(f)
	f.Add(b)
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := ParseGrant(b)
		if err != nil {
			return
		}
		if again := append(append(g.body(), byte(len(g.Sig))), g.Sig...); !bytes.Equal(again, b) {
			t.Errorf("%x becomes %x", b, again)
		}
		_ = g.Verify()
	})
}
