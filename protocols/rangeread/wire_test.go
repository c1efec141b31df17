package rangeread

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/quick"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/internal/frame/frametest"
	"github.com/p2pnode/p2pnode/protocols/rangeread/pb"
)

// generated is a request as the generated code has it.
func (r *Request) generated() *pb.Request {
	m := &pb.Request{
		Task: r.Task[:], Offset: uint64(r.Range.Off), Length: uint64(r.Range.Len), Grant: r.Grant,
	}
	if !r.Generation.IsZero() {
		m.Generation = r.Generation[:]
	}
	if r.NoFill || r.Recheck || r.Small || r.FillOnly || r.Fields || r.Validate || r.Authorize || r.Site || r.sparse {
		m.Flags = &pb.Flags{NoFill: r.NoFill, Recheck: r.Recheck, Small: r.Small, FillOnly: r.FillOnly, Fields: r.Fields, Validate: r.Validate, Authorize: r.Authorize, Site: r.Site, Sparse: r.sparse}
	}
	for _, id := range r.Path {
		m.Path = append(m.Path, []byte(id))
	}
	for _, id := range r.Skip {
		m.Skip = append(m.Skip, []byte(id))
	}
	if r.Origin != nil {
		m.Origin = r.Origin.marshal()
	}
	if r.Epoch != 0 || r.Seq != 0 {
		m.Map = &pb.MapVersion{Epoch: r.Epoch, Seq: r.Seq}
	}
	return m
}

func (p *proof) generated() *pb.Proof {
	return &pb.Proof{
		Block: p.block, Root: p.root, Slice: p.slice, FirstLeaf: p.first, Leaves: p.leaves, Hashes: p.hashes,
		Signer: p.signer, Sig: p.sig, Part: p.part, Sparse: p.sparse,
	}
}

func requests(t testing.TB) map[string]Request {
	_, a := seedKey(t, 1)
	_, b := seedKey(t, 2)
	full := Request{
		Task: content.TaskID{1, 2, 3}, Generation: content.Generation{4, 5}, Range: content.Range{Off: 1 << 40, Len: 4096},
		NoFill: true, Recheck: true, Small: true, Path: []peer.ID{a, b}, Skip: []peer.ID{b}, Grant: []byte("grant"),
		Origin: &Origin{
			URL: "https://example.org/x?y=z", Header: []Field{{"Authorization", "Basic eA=="}, {"Cookie", ""}},
			FilterVersion: 3, Size: 0,
		},
		Epoch: 1764000000000, Seq: math.MaxUint64,
	}
	small := Request{Task: content.TaskID{9}, Range: content.Range{Off: 4096, Len: 1}, Small: true, Epoch: 1}
	fill := Request{Task: content.TaskID{8}, Range: content.Range{Off: 1 << 20, Len: 1 << 20}, FillOnly: true}
	first := Request{Task: content.TaskID{9}, Fields: true, Validate: true}
	authorize := Request{Task: content.TaskID{7}, Authorize: true, Origin: &Origin{URL: "https://example.org/x?X-Amz-Signature=s", Header: []Field{{"Authorization", "Bearer t"}}, Size: -1}}
	site := Request{Task: content.TaskID{6}, Site: true}
	sparse := Request{Task: content.TaskID{5}, Range: content.Range{Len: 1 << 20}, sparse: true}
	unknown := Request{Origin: &Origin{URL: "http://o/", Size: -1}}
	return map[string]Request{"full": full, "small": small, "fill-only": fill, "first": first, "authorize": authorize, "site": site, "sparse": sparse, "unknown-size": unknown, "empty": {}}
}

// What we encode and decode by hand is what the generated code does.
func TestRequestsAgainstGenerated(t *testing.T) {
	for name, r := range requests(t) {
		got, err := r.append([]byte("before"))
		if err != nil {
			t.Fatal(err)
		}
		got = got[len("before"):]
		if want := encode(t, r.generated()); !bytes.Equal(got, want) {
			t.Errorf("%s:\n%x, generated\n%x", name, got, want)
		}
		back, err := decodeRequest(got)
		if err != nil || !reflect.DeepEqual(back, r) {
			t.Errorf("%s: %+v, error %v, want %+v", name, back, err, r)
		}
		clear(got) // nothing of it may be part of the buffer
		if !reflect.DeepEqual(back, r) {
			t.Errorf("%s: the request is part of the buffer", name)
		}
	}
	// Fields of later versions, of all wire types, are passed over.
	r := requests(t)["full"]
	b, err := r.append(nil)
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, 100<<3&0x7f|0x80, 100<<3>>7, 5)                           // varint
	b = append(b, 99<<3&0x7f|5|0x80, 99<<3>>7, 1, 2, 3, 4)                  // 32 bits
	b = append(b, 98<<3&0x7f|1|0x80, 98<<3>>7, 1, 2, 3, 4, 5, 6, 7, 8)      // 64 bits
	b = append(b, 97<<3&0x7f|2|0x80, 97<<3>>7, 2, 1, 2)                     // bytes
	b = append(b, 96<<3&0x7f|3|0x80, 96<<3>>7, 96<<3&0x7f|4|0x80, 96<<3>>7) // group
	if back, err := decodeRequest(b); err != nil || !reflect.DeepEqual(back, r) {
		t.Errorf("with unknown fields: error %v", err)
	}
}

func TestProofsAgainstGenerated(t *testing.T) {
	if err := quick.Check(func(block uint64, root, slice, hashes, signer, sig []byte, first, leaves, part, sparse uint32) bool {
		p := proof{block: block, root: root, slice: slice, hashes: hashes, signer: signer, sig: sig, first: first, leaves: leaves, part: part, sparse: sparse}
		b := p.append(nil)
		back, err := decodeProof(b)
		return bytes.Equal(b, encode(t, p.generated())) && err == nil && proto.Equal(back.generated(), p.generated())
	}, nil); err != nil {
		t.Error(err)
	}
}

func headers(t testing.TB) map[string]Header {
	_, a := seedKey(t, 1)
	addr, err := ma.NewMultiaddr("/ip4/10.1.2.3/tcp/65000")
	if err != nil {
		t.Fatal(err)
	}
	return map[string]Header{
		"full": {
			Meta: content.Meta{
				Size: 1 << 40, Generation: content.Generation{4, 5}, ETag: `"e"`, LastModified: "Mon, 02 Jan 2006 15:04:05 GMT",
				ContentType: "text/plain", Sequential: true,
			},
			Source: SourceOrigin, CacheControl: "max-age=60", Age: 1500 * time.Millisecond,
			Holders: []peer.AddrInfo{{ID: a, Addrs: []ma.Multiaddr{addr, addr}}, {ID: a}},
		},
		"private":    {Meta: content.Meta{Size: 1, Generation: content.Generation{1}}, Private: true, Grant: []byte("grant")},
		"empty-file": {Meta: content.Meta{Generation: content.Generation{1}}},
		"fields":     {Meta: content.Meta{Size: 1, Generation: content.Generation{1}, Fields: "Expires: 0\nX: \xff\n"}},
	}
}

func TestHeadersAgainstGenerated(t *testing.T) {
	for name, h := range headers(t) {
		size := uint64(h.Size)
		want := encode(t, &pb.Header{
			Size: &size, Generation: h.Generation[:], Etag: h.ETag, LastModified: h.LastModified, ContentType: h.ContentType,
			Sequential: h.Sequential, Source: h.Source, CacheControl: h.CacheControl, AgeS: uint32(h.Age / time.Second),
			Holders: marshalHolders(h.Holders), Fields: []byte(h.Fields),
			Private: h.Private, Grant: h.Grant,
		})
		got, err := h.append(nil)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: error %v\n%x, generated\n%x", name, err, got, want)
		}
	}
}

// seedKey returns the same key on every run.
func seedKey(t testing.TB, n byte) (crypto.PrivKey, peer.ID) {
	t.Helper()
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

// vectors are requests and answers as they go over the wire.
func vectors(t testing.TB) (out []frametest.Vector) {
	t.Helper()
	add := func(name string, b []byte) { out = append(out, frametest.Vector{Name: name, Bytes: b}) }
	rs := requests(t)
	for _, name := range []string{"full", "small", "fill-only", "unknown-size", "empty", "first", "authorize", "sparse"} {
		st := &scripted{}
		r := rs[name]
		if err := newConn(st, nil, nil).send(&r); err != nil {
			t.Fatal(err)
		}
		add("request-"+name, st.out.Bytes())
	}
	hs := headers(t)
	for _, name := range []string{"full", "empty-file", "fields", "private"} {
		h := hs[name]
		b, err := h.append(nil)
		if err != nil {
			t.Fatal(err)
		}
		add("header-"+name, appendFrame(nil, kindHeader, b))
	}
	key, id := seedKey(t, 1)
	m := newMemory(t, content.LeafSize+5, key, id)
	tail := m.request(content.LeafSize, 5)
	small := m.request(content.LeafSize-1, 1)
	small.Small = true
	g := &growing{memory: m, key: key, signer: id, step: func() (int, int) { return 1, 1 }}
	add("answer-complete", record(t, m, id, tail))
	add("answer-increment", record(t, g.handler(t), id, tail))
	add("answer-part", record(t, m, id, small))
	both := m.request(0, content.LeafSize+5)
	both.sparse = true
	add("answer-sparse", record(t, m, id, both))
	fail := &Error{Status: StatusRefer, OriginStatus: 3, RetryAfter: time.Second, Detail: "d", Holders: hs["full"].Holders, Size: -1}
	add("answer-status", record(t, handler(func(context.Context, Request, *Answer) error { return fail }), id, tail))
	add("answer-error", record(t, handler(func(_ context.Context, _ Request, a *Answer) error {
		if _, err := a.Header(Header{Meta: m.meta}); err != nil {
			return err
		}
		return fail
	}), id, tail))
	add("wait", appendFrame(nil, kindWait, encode(t, &pb.Wait{Reason: WaitDisk, AgeMs: 250})))
	return out
}

func TestVectors(t *testing.T) { frametest.Check(t, vectors(t)) }

// FuzzRequest holds our decoding to the generated one, for any bytes.
func FuzzRequest(f *testing.F) {
	for _, v := range frametest.Read(f) {
		if n, size := binary.Uvarint(v.Bytes); size > 0 && int(n) == len(v.Bytes)-size {
			f.Add(v.Bytes[size:])
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := decodeRequest(slices.Clone(raw))
		var m pb.Request
		if gerr := proto.Unmarshal(raw, &m); gerr != nil {
			if err == nil {
				t.Fatalf("decoded what the generated code refuses: %v", gerr)
			}
			return
		}
		if err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		if r.Range.Off < 0 || r.Range.Len < 0 || len(r.Path) > MaxPath || len(r.Skip) > MaxPath || len(r.Grant) > maxGrant {
			t.Fatalf("out of bounds: %+v", r)
		}
		if !bytes.Equal(m.Task, r.Task[:]) || m.Offset != uint64(r.Range.Off) || m.Length != uint64(r.Range.Len) ||
			m.Flags.GetNoFill() != r.NoFill || m.Flags.GetRecheck() != r.Recheck || m.Flags.GetSmall() != r.Small || m.Flags.GetFillOnly() != r.FillOnly ||
			m.Map.GetEpoch() != r.Epoch || m.Map.GetSeq() != r.Seq || len(m.Path) != len(r.Path) || len(m.Skip) != len(r.Skip) ||
			!bytes.Equal(m.Grant, r.Grant) || (m.Origin == nil) != (r.Origin == nil) || r.Origin != nil && r.Origin.URL != m.Origin.Url {
			t.Fatalf("decoded\n%+v, generated\n%+v", r, &m)
		}
		b, err := r.append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decodeRequest(b); err != nil || !reflect.DeepEqual(back, r) {
			t.Fatalf("again: %+v, error %v", back, err)
		}
	})
}

// FuzzProof does the same for proofs.
func FuzzProof(f *testing.F) {
	for _, v := range frametest.Read(f) {
		if v.Bytes[0] == byte(kindHeader) {
			for _, fr := range framesOf(f, v.Bytes) {
				f.Add(v.Bytes[fr.from:fr.end])
			}
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := decodeProof(raw)
		var m pb.Proof
		if gerr := proto.Unmarshal(raw, &m); (gerr == nil) != (err == nil) {
			t.Fatalf("error %v, generated %v", err, gerr)
		}
		if err == nil {
			m.ProtoReflect().SetUnknown(nil)
			if !proto.Equal(&m, p.generated()) {
				t.Fatalf("decoded\n%+v, generated\n%+v", p, &m)
			}
		}
	})
}

// A message of more fields than any of ours is refused before the generated code
// makes structs of them.
func TestFieldsAreBounded(t *testing.T) {
	key, id := seedKey(t, 1)
	m := newMemory(t, 1000, key, id)
	c := NewClient(ClientConfig{Trusted: m.trusted})
	unknown := func(n int) []byte { return bytes.Repeat([]byte{100<<3&0x7f | 2 | 0x80, 100 << 3 >> 7, 0}, n) }
	nested := func(n, of int) []byte {
		b := protowire.AppendTag(nil, protowire.Number(n), protowire.BytesType)
		return protowire.AppendBytes(b, append(protowire.AppendBytes([]byte{1<<3 | 2}, []byte(id)), bytes.Repeat([]byte{2<<3 | 2, 1, 4}, of)...))
	}
	h := Header{Meta: m.meta}
	for _, tc := range []struct {
		name string
		more []byte
		ok   bool
	}{
		{"few", unknown(1000), true},
		{"many", unknown(1025), false},
		{"many in a holder", nested(100, 2000), true}, // not a holder for us
		{"many addresses", nested(9, 1025), false},
		{"many addresses of two holders", append(nested(9, 600), nested(9, 600)...), false},
	} {
		b, err := h.append(nil)
		if err != nil {
			t.Fatal(err)
		}
		answer := append(appendFrame(nil, kindHeader, append(b, tc.more...)), byte(kindEnd), 0)
		if _, _, err := play(c, id, m.request(0, 0), answer); (err == nil) != tc.ok || err != nil && !strings.Contains(err.Error(), "fields") {
			t.Errorf("header with %s: %v", tc.name, err)
		}
	}
	r := requests(t)["full"]
	for n, ok := range map[int]bool{300: true, 600: false} { // and as many again
		b, err := r.append(nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			b = append(protowire.AppendTag(b, 9, protowire.BytesType), protowire.AppendBytes(nil, unknown(n))...)
		}
		if _, err := decodeRequest(b); (err == nil) != ok || err != nil && !errors.Is(err, ErrProtocol) {
			t.Errorf("origin with two times %d fields: %v", n, err)
		}
	}
}

func addAnswers(f *testing.F) {
	for _, v := range frametest.Read(f) {
		for small := range 3 {
			f.Add(v.Bytes, int64(content.LeafSize-1), int64(1), small == 0)
			f.Add(v.Bytes, int64(content.LeafSize), int64(5), small == 1)
		}
	}
}

// FuzzAnswer feeds a reader any bytes for an answer. None may crash it or yield
// a byte that is not the file's.
func FuzzAnswer(f *testing.F) {
	addAnswers(f)
	key, id := seedKey(f, 1)
	m := newMemory(f, content.LeafSize+5, key, id)
	c := NewClient(ClientConfig{Trusted: m.trusted})
	f.Fuzz(func(t *testing.T, answer []byte, off, n int64, small bool) {
		if off < 0 || n < 0 {
			return
		}
		req := m.request(off, n)
		req.Small = small
		// Not from the signer, whose signature would not be looked at.
		r, _, err := play(c, "another", req, answer)
		if len(r.data) > 0 && (r.off < 0 || r.off+int64(len(r.data)) > m.meta.Size || !bytes.Equal(r.data, m.data[r.off:r.off+int64(len(r.data))])) {
			t.Fatalf("%d wrong bytes at %d, error %v", len(r.data), r.off, err)
		}
		if errors.Is(err, errNeither) {
			t.Fatal(err)
		}
	})
}

// FuzzSignersAnswer does so as the signer, who may say what the bytes are, but
// not yield any that were not asked for or that lie behind the file's end, nor
// leave out some.
func FuzzSignersAnswer(f *testing.F) {
	addAnswers(f)
	key, id := seedKey(f, 1)
	m := newMemory(f, content.LeafSize+5, key, id)
	c := NewClient(ClientConfig{Trusted: m.trusted})
	f.Fuzz(func(t *testing.T, answer []byte, off, n int64, small bool) {
		if off < 0 || n < 0 {
			return
		}
		req := m.request(off, n)
		req.Small, req.Generation = small, content.Generation{} // of any file
		r, _, err := play(c, id, req, answer)
		if errors.Is(err, errNeither) {
			t.Fatal(err)
		}
		got := content.Range{Off: max(r.off, 0), Len: int64(len(r.data))}
		asked, may := req.Range.Intersect(content.Range{Len: sizeOf(r.header.Size)}), req.body(r.header.Size)
		if r.header.Size < 0 { // all of it, as far as that goes
			asked = content.Range{}
		}
		if got.Len > 0 && !may.Contains(got) || err == nil && !got.Contains(asked) {
			t.Fatalf("%s of %d bytes asked, got %s, error %v", req.Range, r.header.Size, got, err)
		}
	})
}
