package frame

import (
	"bytes"
	"errors"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/protocols/internal/frame/frametest"
)

func newPeerID(t testing.TB) peer.ID {
	t.Helper()
	key, _, err := crypto.GenerateKeyPair(crypto.Ed25519, -1)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestPeerIDs(t *testing.T) {
	a, b := []byte(newPeerID(t)), []byte(newPeerID(t))
	long := append([]byte{0, MaxPeerID - 1}, make([]byte, MaxPeerID-1)...) // a good identity multihash
	for _, c := range []struct {
		name string
		in   [][]byte
		good bool
	}{
		{"none", nil, true},
		{"two", [][]byte{a, b}, true},
		{"three", [][]byte{a, b, []byte(newPeerID(t))}, false},
		{"one twice", [][]byte{a, a}, false},
		{"empty", [][]byte{{}}, false},
		{"no multihash", [][]byte{[]byte("peer")}, false},
		{"49 bytes", [][]byte{long}, false},
		{"48 bytes", [][]byte{append([]byte{0, MaxPeerID - 2}, long[3:]...)}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			ids, err := PeerIDs(c.in, 2)
			if (err == nil) != c.good || err != nil && !errors.Is(err, ErrMalformed) {
				t.Fatalf("err %v", err)
			}
			if c.good && len(ids) != len(c.in) {
				t.Errorf("%d IDs of %d", len(ids), len(c.in))
			}
		})
	}
}

func TestAddrs(t *testing.T) {
	short := multiaddr.StringCast("/ip4/192.0.2.1/tcp/4001")
	long := multiaddr.StringCast("/dns4/" + string(bytes.Repeat([]byte{'a'}, 300)) + "/tcp/1")
	many := []multiaddr.Multiaddr{long}
	for range MaxAddrs + 3 {
		many = append(many, short)
	}
	got, err := Addrs(AppendAddrs(nil, many))
	if err != nil || len(got) != MaxAddrs || !got[0].Equal(short) {
		t.Errorf("%d addresses, err %v", len(got), err)
	}
	for name, bad := range map[string][][]byte{
		"too many": AppendAddrs(AppendAddrs(nil, many), nil)[:MaxAddrs:MaxAddrs],
		"too long": {long.Bytes()},
		"empty":    {{}},
		"garbage":  {{0xff, 0xff, 0xff}},
	} {
		if name == "too many" {
			bad = append(bad, short.Bytes())
		}
		if _, err := Addrs(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: err %v", name, err)
		}
	}
}

func TestInt64(t *testing.T) {
	if v, err := Int64("size", MaxInt); v != MaxInt || err != nil {
		t.Errorf("2^62: %d, %v", v, err)
	}
	if _, err := Int64("size", MaxInt+1); !errors.Is(err, ErrMalformed) {
		t.Errorf("2^62+1: err %v", err)
	}
	for in, want := range map[int64]uint64{-5: 0, 7: 7, 1<<63 - 1: MaxInt} {
		if got := Uint64(in); got != want {
			t.Errorf("Uint64(%d) = %d, want %d", in, got, want)
		}
	}
}

func TestMetricsOfOneRegistryAreShared(t *testing.T) {
	reg := prometheus.NewRegistry()
	a, b := NewMetrics(reg, "test"), NewMetrics(reg, "test")
	a.Count(Malformed("field %d", 1))
	b.Count(ErrTooLarge)
	b.Count(nil)
	want := map[string]float64{
		"p2pnode_test_malformed_total": 1, "p2pnode_test_oversized_total": 1,
		"p2pnode_test_failed_streams_total": 2, "p2pnode_test_refused_streams_total": 0,
	}
	for name, v := range want {
		if got := frametest.Count(t, reg, name); got != v {
			t.Errorf("%s = %v, want %v", name, got, v)
		}
	}
	NewMetrics(nil, "test").Count(ErrTooLarge) // counts nowhere
}
