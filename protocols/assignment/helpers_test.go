package assignment

import (
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/p2pnode/p2pnode/internal/content"
)

// testKey returns the same key for the same n, with its ID.
func testKey(t testing.TB, n byte) (crypto.PrivKey, peer.ID) {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = n
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

func testID(t testing.TB, n byte) peer.ID {
	_, id := testKey(t, n)
	return id
}

func anybody(peer.ID) bool { return true }

func only(ids ...peer.ID) func(peer.ID) bool {
	return func(id peer.ID) bool {
		for _, o := range ids {
			if id == o {
				return true
			}
		}
		return false
	}
}

func task(n byte) content.TaskID { return content.TaskID{n, 31: n} }

func testAssign(t testing.TB) Assign {
	return Assign{
		Task: task(1), URL: "https://example.org/file?x=%C3%A9\xff", Generation: content.Generation{9},
		Size: 1 << 30, Seeds: []peer.ID{testID(t, 2), testID(t, 3)}, Lease: 90 * time.Second,
	}
}

// sharedAssign has a seed of everything, one that was added and has the whole
// file, and one that stands for a site.
func sharedAssign(t testing.TB) Assign {
	a := testAssign(t)
	a.Seeds = append(a.Seeds, testID(t, 4))
	a.Excluded = []Runs{{}, {0x81, 2: 1}, AllRuns}
	a.Whole = []bool{false, true, false}
	return a
}

func testMember(t testing.TB, n byte) Member {
	return Member{
		ID: testID(t, n), Site: "edge-1", Weight: 4.5,
		Addrs: []multiaddr.Multiaddr{
			multiaddr.StringCast("/ip4/192.0.2.1/tcp/65000"), multiaddr.StringCast("/ip4/192.0.2.1/udp/65000/quic-v1"),
		},
	}
}

// updates are the kinds of update, by name; their Supernode is testKey 1.
func updates(t testing.TB) []struct {
	name string
	u    Update
} {
	issued := time.UnixMilli(1_790_000_000_123)
	at := func(seq uint64) Cursor { return Cursor{testID(t, 1), 1_780_000_000_000, seq} }
	unknown := Assign{Task: task(2), Size: -1, Sequential: true, Lease: time.Millisecond}
	return []struct {
		name string
		u    Update
	}{
		{"nothing", Update{Cursor: at(1), Issued: issued}},
		{"assign", Update{Cursor: at(2), Issued: issued, Floor: 2, Assigns: []Assign{testAssign(t)}}},
		{"assigns", Update{Cursor: at(3), Issued: issued, Assigns: []Assign{testAssign(t), unknown}}},
		{"empty-file", Update{Cursor: at(4), Issued: issued, Assigns: []Assign{{Task: task(3), URL: "http://a/", Lease: MaxLease}}}},
		{"withdrawn", Update{Cursor: at(5), Issued: issued, Assigns: []Assign{{Task: task(1), Size: -1}}}},
		{"pool", Update{Cursor: at(7), Issued: issued, Pool: &PoolPage{
			Page: 1, Pages: 2, Members: []Member{testMember(t, 2), {ID: testID(t, 3)}},
		}}},
		{"shares", Update{Cursor: at(9), Issued: issued, Assigns: []Assign{sharedAssign(t)}}},
		{"cordoned-pool", Update{Cursor: at(10), Issued: issued, Pool: &PoolPage{Pages: 1, Members: []Member{{ID: testID(t, 3), Weight: 1, Cordoned: true}}}}},
		{"filtered-pool", Update{Cursor: at(11), Issued: issued, Pool: &PoolPage{Pages: 1, Members: []Member{{ID: testID(t, 3), Weight: 1}}, FilterQuery: []string{"UTM", "utm_source", "x%20\xff"}}}},
		{"empty-pool", Update{Cursor: at(8), Issued: issued, Pool: &PoolPage{Pages: 1}}},
	}
}

// biggest returns an assignment of the largest size that is allowed.
func biggest(t testing.TB) Assign {
	t.Helper()
	a := Assign{Task: task(1), URL: strings.Repeat("u", 8<<10), Generation: content.Generation{1}, Size: 1 << 60, Sequential: true, Lease: MaxLease}
	for i := range MaxSeeds {
		id := make([]byte, 48)
		id[1], id[2] = 46, byte(i) // identity multihash of 46 bytes
		a.Seeds = append(a.Seeds, peer.ID(id))
		a.Excluded = append(a.Excluded, AllRuns)
		a.Whole = append(a.Whole, true)
	}
	return a
}
