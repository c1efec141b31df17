package assignment

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment/pb"
	"github.com/p2pnode/p2pnode/protocols/internal/frame"
	"github.com/p2pnode/p2pnode/protocols/internal/frame/frametest"
)

func TestSignAndOpen(t *testing.T) {
	key, id := testKey(t, 1)
	for _, c := range updates(t) {
		t.Run(c.name, func(t *testing.T) {
			s, err := Sign(key, c.u)
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.Open(only(id))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, c.u) {
				t.Errorf("opened\n%+v\nwant\n%+v", got, c.u)
			}
			if cursor, err := s.Cursor(); err != nil || cursor != c.u.Cursor {
				t.Errorf("cursor %v, err %v, want %v", cursor, err, c.u.Cursor)
			}
			batch, err := proto.Marshal(&pb.Batch{Signed: Encode([]Signed{s, s})})
			if err != nil || len(batch) != 2*s.Size() {
				t.Errorf("batch of two has %d bytes, Size is %d: %v", len(batch), s.Size(), err)
			}
		})
	}
}

// shardedPool is what only the vectors after the first have.
func shardedPool(t *testing.T) Update {
	return Update{
		Cursor: Cursor{testID(t, 1), 1_780_000_000_000, 11}, Issued: time.UnixMilli(1_790_000_000_123),
		Pool: &PoolPage{Pages: 1, Replicas: 3, Shards: 16},
	}
}

// What came after the first vectors survives signing too.
func TestShardsAreSigned(t *testing.T) {
	key, _ := testKey(t, 1)
	want := shardedPool(t)
	s, err := Sign(key, want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Open(func(peer.ID) bool { return true }); err != nil || got.Pool.Shards != 16 || got.Pool.Replicas != 3 {
		t.Errorf("err %v, %+v", err, got.Pool)
	}
}

func TestVectors(t *testing.T) {
	key, _ := testKey(t, 1)
	var got []frametest.Vector
	var batch []Signed
	for _, c := range updates(t) {
		s, err := Sign(key, c.u)
		if err != nil {
			t.Fatal(err)
		}
		batch = append(batch, s)
		got = append(got, frametest.Vector{Name: "update-" + c.name, Bytes: s.Raw})
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(&pb.Batch{Signed: Encode(batch)})
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, frametest.Vector{Name: "batch", Bytes: b})
	cut, err := Sign(key, shardedPool(t))
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, frametest.Vector{Name: "update-pool-of-shards", Bytes: cut.Raw})
	entry, pool := EntryDigest(testAssign(t)), PoolDigest([]Member{testMember(t, 3), testMember(t, 2)})
	sum := HashSum(EntryDigest(Assign{Task: task(2), Size: -1}))
	sum.Toggle(entry)
	whole := Hash(1_780_000_000_000, sum, pool)
	filtered := PoolDigest([]Member{testMember(t, 3), testMember(t, 2)}, "UTM", "utm_source")
	empty := Hash(1, HashSum{}, PoolDigest(nil))
	frametest.Check(t, append(got,
		frametest.Vector{Name: "hash-entry", Bytes: entry[:]},
		frametest.Vector{Name: "hash-pool", Bytes: pool[:]},
		frametest.Vector{Name: "hash-filtered-pool", Bytes: filtered[:]},
		frametest.Vector{Name: "hash-map", Bytes: whole[:]},
		frametest.Vector{Name: "hash-empty-map", Bytes: empty[:]},
	))
}

func TestOpenRefuses(t *testing.T) {
	key, id := testKey(t, 1)
	other, otherID := testKey(t, 2)
	good, err := Sign(key, updates(t)[1].u)
	if err != nil {
		t.Fatal(err)
	}
	resign := func(key crypto.PrivKey, domain string, raw []byte) Signed {
		sig, err := key.Sign(append([]byte(domain), raw...))
		if err != nil {
			t.Fatal(err)
		}
		return Signed{Raw: raw, Supernode: id, Sig: sig}
	}
	byOther, err := Sign(other, updates(t)[1].u)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		s    Signed
		want error
	}{
		{"untrusted signer", byOther, ErrUntrusted},
		{"another's signature", resign(other, signDomain, good.Raw), ErrSignature},
		{"another domain", resign(key, "p2pnode-block:", good.Raw), ErrSignature},
		{"no signature", Signed{Raw: good.Raw, Supernode: id}, ErrSignature},
		{"signed garbage", resign(key, signDomain, []byte{0xff}), ErrMalformed},
		{"signed, too large", resign(key, signDomain, make([]byte, MaxUpdate+1)), ErrTooLarge},
		{"signed, no epoch", resign(key, signDomain, protowire.AppendVarint([]byte{0x10}, 4)), ErrMalformed},
		{"no signer", Signed{Raw: good.Raw, Sig: good.Sig}, ErrUntrusted},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := c.s.Open(only(id)); !errors.Is(err, c.want) {
				t.Errorf("err %v, want %v", err, c.want)
			}
		})
	}
	t.Run("every flipped byte", func(t *testing.T) {
		for i := range good.Raw {
			bad := Signed{Raw: bytes.Clone(good.Raw), Supernode: id, Sig: good.Sig}
			bad.Raw[i] ^= 0x40
			if _, err := bad.Open(only(id)); !errors.Is(err, ErrSignature) {
				t.Fatalf("byte %d: err %v", i, err)
			}
		}
	})
	t.Run("signer without inlined key", func(t *testing.T) {
		rsa := Signed{Raw: good.Raw, Supernode: peer.ID("\x12\x20" + strings.Repeat("x", 32)), Sig: good.Sig}
		if _, err := rsa.Open(anybody); !errors.Is(err, ErrSignature) {
			t.Errorf("err %v", err)
		}
	})
	if otherID == id {
		t.Fatal("the two keys are one")
	}
}

func TestSignRefuses(t *testing.T) {
	key, _ := testKey(t, 1)
	at := Cursor{Epoch: 1, Seq: 1}
	assign := func(change func(*Assign)) Update {
		a := testAssign(t)
		change(&a)
		return Update{Cursor: at, Assigns: []Assign{a}}
	}
	member := func(change func(*Member)) Update {
		m := testMember(t, 2)
		change(&m)
		return Update{Cursor: at, Pool: &PoolPage{Pages: 1, Members: []Member{m}}}
	}
	page := func(page, pages, members int) Update {
		return Update{Cursor: Cursor{Epoch: 1, Seq: 9}, Pool: &PoolPage{Page: page, Pages: pages, Members: make([]Member, members)}}
	}
	filter := func(page int, names ...string) Update {
		return Update{Cursor: Cursor{Epoch: 1, Seq: 9}, Pool: &PoolPage{Page: page, Pages: 2, FilterQuery: names}}
	}
	var many []string
	for i := range content.MaxFilterNames + 1 {
		many = append(many, fmt.Sprintf("%04d", i))
	}
	for name, u := range map[string]Update{
		"filter behind":    filter(1, "a"),
		"filter empty":     filter(0, ""),
		"filter no name":   filter(0, "a&b"),
		"filter disorder":  filter(0, "b", "a"),
		"filter twice":     filter(0, "a", "a"),
		"filter many":      filter(0, many...),
		"filter long":      filter(0, strings.Repeat("a", content.MaxFilterBytes)),
		"no epoch":         {Cursor: Cursor{Seq: 1}},
		"no number":        {Cursor: Cursor{Epoch: 1}},
		"floor above":      {Cursor: at, Floor: 2},
		"assigns and pool": {Cursor: at, Assigns: []Assign{testAssign(t)}, Pool: &PoolPage{Pages: 1}},
		"too many assigns": {Cursor: at, Assigns: make([]Assign, MaxAssigns+1)},
		"too many seeds":   assign(func(a *Assign) { a.Seeds = append(biggest(t).Seeds, testID(t, 9)) }),
		"seed twice":       assign(func(a *Assign) { a.Seeds = append(a.Seeds, a.Seeds[0]) }),
		"empty seed":       assign(func(a *Assign) { a.Seeds = append(a.Seeds, "") }),
		"URL too long":     assign(func(a *Assign) { a.URL = strings.Repeat("u", 8<<10+1) }),
		"lease too long":   assign(func(a *Assign) { a.Lease = MaxLease + time.Millisecond }),
		"lease negative":   assign(func(a *Assign) { a.Lease = -time.Second }),
		"size too large":   assign(func(a *Assign) { a.Size = math.MaxInt64 }),
		"share of nobody":  assign(func(a *Assign) { a.Excluded = []Runs{AllRuns} }),
		"mark of nobody":   assign(func(a *Assign) { a.Whole = []bool{false, false, true} }),
		"weight negative":  member(func(m *Member) { m.Weight = -1 }),
		"weight NaN":       member(func(m *Member) { m.Weight = math.NaN() }),
		"weight infinite":  member(func(m *Member) { m.Weight = math.Inf(1) }),
		"site too long":    member(func(m *Member) { m.Site = strings.Repeat("s", frame.MaxSite+1) }),
		"site not UTF-8":   member(func(m *Member) { m.Site = "\xff" }),
		"member nobody":    member(func(m *Member) { m.ID = "" }),
		"page behind last": page(2, 2, 0),
		"page negative":    page(-1, 2, 0),
		"no pages":         page(0, 0, 0),
		"too many pages":   page(0, MaxPool+1, 0),
		"too many members": page(0, 1, MaxPool+1),
		"three shards":     {Cursor: at, Pool: &PoolPage{Pages: 1, Shards: 3}},
		"too many shards":  {Cursor: at, Pool: &PoolPage{Pages: 1, Shards: 512}},
		"shards negative":  {Cursor: at, Pool: &PoolPage{Pages: 1, Shards: -1}},
		"page before 1":    {Cursor: at, Pool: &PoolPage{Page: 1, Pages: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Sign(key, u); !errors.Is(err, ErrMalformed) {
				t.Errorf("err %v, want ErrMalformed", err)
			}
		})
	}
	t.Run("too large", func(t *testing.T) {
		u := Update{Cursor: at, Assigns: []Assign{biggest(t), biggest(t)}}
		if _, err := Sign(key, u); !errors.Is(err, ErrTooLarge) {
			t.Errorf("err %v, want ErrTooLarge", err)
		}
	})
	t.Run("key not inlined", func(t *testing.T) {
		rsa, _, err := crypto.GenerateRSAKeyPair(2048, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Sign(rsa, Update{Cursor: at}); err == nil {
			t.Error("signed with a key that nobody can look up")
		}
	})
}

// A lease shorter than the wire's unit must not become a withdrawal.
func TestShortLeaseIsNoWithdrawal(t *testing.T) {
	key, _ := testKey(t, 1)
	a := testAssign(t)
	a.Lease = time.Microsecond
	s, err := Sign(key, Update{Cursor: Cursor{Epoch: 1, Seq: 1}, Assigns: []Assign{a}})
	if err != nil {
		t.Fatal(err)
	}
	if u, err := s.Open(anybody); err != nil || u.Assigns[0].Lease != time.Millisecond {
		t.Errorf("lease %v, err %v", u.Assigns[0].Lease, err)
	}
}

func TestExcludedTooLong(t *testing.T) {
	m := assignToProto(sharedAssign(t))
	m.Excluded[1] = make([]byte, len(Runs{})+1)
	if _, err := assignFromProto(m); !errors.Is(err, ErrMalformed) {
		t.Errorf("err %v, want ErrMalformed", err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := func() *pb.Signed {
		return &pb.Signed{Update: []byte{1}, Supernode: []byte(testID(t, 1)), Signature: []byte{1}}
	}
	for name, change := range map[string]func(*pb.Signed){
		"no update":           func(m *pb.Signed) { m.Update = nil },
		"update too large":    func(m *pb.Signed) { m.Update = make([]byte, MaxUpdate+1) },
		"no supernode":        func(m *pb.Signed) { m.Supernode = nil },
		"no signature":        func(m *pb.Signed) { m.Signature = nil },
		"signature too large": func(m *pb.Signed) { m.Signature = make([]byte, maxSignature+1) },
	} {
		m := good()
		change(m)
		if _, err := Decode([]*pb.Signed{good(), m}); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: err %v", name, err)
		}
	}
	if _, err := Decode([]*pb.Signed{good()}); err != nil {
		t.Error(err)
	}
}
