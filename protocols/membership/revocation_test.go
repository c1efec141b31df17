package membership

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// What one revocation says counts once, however it is encoded: else a supernode
// that was broken into fills its members' tables with copies of one, and its own
// revocation finds no room.
func TestRevocationsCountOnce(t *testing.T) {
	key, _, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	swarm, err := SwarmID(key)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(other)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := Revoke(key, Revocation{Peer: id, NotBefore: time.Unix(1_800_000_000, 0)})
	if err != nil {
		t.Fatal(err)
	}
	s := NewRevocations(swarm)
	if fresh, err := s.Add(signed); err != nil || !fresh {
		t.Fatal(fresh, err)
	}
	// An empty body in front of the real one: protobuf takes the last.
	for _, twin := range [][]byte{append([]byte{0x0a, 0}, signed...), append([]byte{0x12, 0}, signed...), append([]byte{0x12, 1, 7}, signed...)} {
		if fresh, _ := s.Add(twin); fresh || len(s.List()) != 1 {
			t.Errorf("the same revocation encoded otherwise is another one: %d known", len(s.List()))
		}
	}
	// What is no more than is known takes no room, what goes further takes its place.
	older, err := Revoke(key, Revocation{Peer: id, NotBefore: time.Unix(1_700_000_000, 0)})
	if err != nil {
		t.Fatal(err)
	}
	if fresh, err := s.Add(older); fresh || err != nil {
		t.Errorf("a revocation that adds nothing: %v, %v", fresh, err)
	}
}

// Two sets that void the same have one sum, whatever way they came to it.
func TestRevocationsSum(t *testing.T) {
	key, swarm := p2ptest.Key(t)
	_, a := p2ptest.Key(t)
	_, b := p2ptest.Key(t)
	early := Revocation{Peer: a, NotBefore: time.Unix(1_700_000_000, 0)}
	late := Revocation{Peer: a, NotBefore: time.Unix(1_800_000_000, 0)}
	whole, other, token := Revocation{Peer: a}, Revocation{Peer: b}, Revocation{Token: TokenID{1}}
	sum := func(list ...Revocation) uint64 {
		s := NewRevocations(swarm)
		for _, r := range list {
			signed, err := Revoke(key, r)
			if err == nil {
				_, err = s.Add(signed)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		return s.Sum()
	}
	if sum() != 0 {
		t.Error("an empty set has a sum")
	}
	if sum(early, late, whole, other, token) != sum(token, other, whole, late) {
		t.Error("two ways to one set have two sums")
	}
	seen := make(map[uint64]int)
	for i, list := range [][]Revocation{{early}, {late}, {whole}, {other}, {token}, {early, other}, {early, token}, {whole, other, token}} {
		if j, twice := seen[sum(list...)]; twice {
			t.Errorf("sets %d and %d have one sum", i, j)
		}
		seen[sum(list...)] = i
	}
}
