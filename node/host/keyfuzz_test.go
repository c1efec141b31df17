package host

import (
	"crypto/ed25519"
	"encoding/pem"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
)

// FuzzKey: a key file that is read holds an Ed25519 key that signs, and can be
// written and read again. The second input is what the PEM block holds.
func FuzzKey(f *testing.F) {
	good, err := formatKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		f.Fatal(err)
	}
	block, _ := pem.Decode(good)
	f.Add(good, []byte(nil))
	f.Add([]byte(nil), block.Bytes)
	f.Add(good[:60], block.Bytes[:20])
	f.Add(append([]byte("x\n"), good...), append(block.Bytes, 0))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"), []byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, text, der []byte) {
		for _, text := range [][]byte{text, pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})} {
			key, err := parseKey(text)
			if err != nil {
				if key != nil {
					t.Fatalf("a key with the error %v", err)
				}
				continue
			}
			raw, err := key.Raw()
			if err != nil || key.Type() != crypto.Ed25519 {
				t.Fatalf("key of type %v, %v", key.Type(), err)
			}
			sig, err := key.Sign(text)
			if ok, err2 := key.GetPublic().Verify(text, sig); err != nil || err2 != nil || !ok {
				t.Fatalf("it signs %t, %v, %v", ok, err, err2)
			}
			again, err := formatKey(raw)
			if err != nil {
				t.Fatal(err)
			}
			if k, err := parseKey(again); err != nil || !k.Equals(key) {
				t.Fatalf("written and read it is another, %v", err)
			}
		}
	})
}
