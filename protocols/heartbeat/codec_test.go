package heartbeat

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/heartbeat/pb"
	"github.com/p2pnode/p2pnode/protocols/internal/frame"
	"github.com/p2pnode/p2pnode/protocols/internal/frame/frametest"
)

func fullBeat() Beat {
	return Beat{
		Session: 1 << 63, Seq: 77, Site: "edge-1", Seed: true, Capacity: 10 << 30, Free: 5 << 30,
		Addrs:        []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/192.0.2.1/tcp/65000")},
		Load:         Load{Uploads: 3, UploadRate: 1e6, DownloadRate: 2e6, CPU: 0.125},
		Reachability: ReachabilityPrivate, Version: "v1.2.3",
	}
}

func fullAck() Ack {
	return Ack{Seq: 77, Cursor: Cursor{1_780_000_000_000, 5}, MapHash: [32]byte{1, 31: 2}, Revoked: [][]byte{{1, 2}}, Time: time.UnixMicro(1_780_000_000_123_456)}
}

// withoutTime is what a supernode answers that does not tell its clock.
func withoutTime(a Ack) Ack {
	a.Time = time.Time{}
	return a
}

func encoded(t testing.TB, m proto.Message) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := frame.NewWriter(&b, 1<<20).Write(m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestVectors(t *testing.T) {
	frametest.Check(t, []frametest.Vector{
		{Name: "beat", Bytes: encoded(t, beatToProto(fullBeat()))},
		{Name: "beat-least", Bytes: encoded(t, beatToProto(Beat{Session: 1, Seq: 1}))},
		{Name: "beat-goodbye", Bytes: encoded(t, beatToProto(Beat{Session: 1, Seq: 2, Goodbye: true}))},
		{Name: "beat-epoch", Bytes: encoded(t, beatToProto(Beat{Session: 1, Seq: 2, Epoch: 1_780_000_000_001}))},
		{Name: "beat-revoked", Bytes: encoded(t, beatToProto(Beat{Session: 1, Seq: 2, RevokedSum: 1 << 60, Revoked: [][]byte{{7}, {8, 9}}}))},
		{Name: "beat-prefixes", Bytes: encoded(t, beatToProto(Beat{Session: 1, Seq: 2, Prefixes: &content.Prefixes{1, 31: 128}}))},
		{Name: "ack-revoked-sum", Bytes: encoded(t, ackToProto(Ack{Seq: 1, RevokedSum: 1 << 60}))},
		{Name: "ack", Bytes: encoded(t, ackToProto(withoutTime(fullAck())))},
		{Name: "ack-time", Bytes: encoded(t, ackToProto(fullAck()))},
		{Name: "ack-least", Bytes: encoded(t, ackToProto(Ack{Seq: 1}))},
	})
}

func TestRoundTrip(t *testing.T) {
	for _, want := range []Beat{fullBeat(), {Session: 1, Seq: 1}, {Session: 1, Seq: 2, Goodbye: true}, {Session: 1, Seq: 3, Epoch: 9}, {Session: 1, Seq: 4, RevokedSum: 3, Revoked: [][]byte{{1}}}, {Session: 1, Seq: 5, Prefixes: &content.Prefixes{}}, {Session: 1, Seq: 6, Prefixes: &content.Prefixes{7: 9}}} {
		if got, err := beatFromProto(beatToProto(want)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("err %v\n%+v\nwant\n%+v", err, got, want)
		}
	}
	for _, want := range []Ack{fullAck(), {Seq: 1}, {Seq: 2, RevokedSum: 4}, {Seq: 3, Time: time.UnixMicro(1)}} {
		if got, err := ackFromProto(ackToProto(want)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("err %v\n%+v\nwant\n%+v", err, got, want)
		}
	}
}

// A node must be able to beat whatever its gauges say.
func TestEncodeClampsNumbers(t *testing.T) {
	b := Beat{Session: 1, Seq: 1, Capacity: -1, Free: math.MaxInt64, Load: Load{Uploads: -4, UploadRate: -1, CPU: math.NaN()}}
	got, err := beatFromProto(beatToProto(b))
	if err != nil || got.Capacity != 0 || got.Free != frame.MaxInt || got.Load != (Load{}) {
		t.Errorf("err %v, %+v", err, got)
	}
	for in, want := range map[float64]float64{-1: 0, 0.5004: 0.5, 1: 1, 7: 1, math.Inf(1): 1} {
		if got := float64(permille(in)) / 1000; got != want {
			t.Errorf("CPU %v became %v", in, got)
		}
	}
}

func TestBeatRefuses(t *testing.T) {
	for name, change := range map[string]func(*pb.Beat){
		"no session":         func(m *pb.Beat) { m.Session = 0 },
		"no number":          func(m *pb.Beat) { m.Seq = 0 },
		"site too long":      func(m *pb.Beat) { m.Site = strings.Repeat("s", frame.MaxSite+1) },
		"version too long":   func(m *pb.Beat) { m.Version = strings.Repeat("v", maxVersion+1) },
		"bad address":        func(m *pb.Beat) { m.Addrs = [][]byte{{1}} },
		"too many addresses": func(m *pb.Beat) { m.Addrs = make([][]byte, frame.MaxAddrs+1) },
		"capacity":           func(m *pb.Beat) { m.Capacity = math.MaxUint64 },
		"free":               func(m *pb.Beat) { m.Free = math.MaxUint64 },
		"upload rate":        func(m *pb.Beat) { m.Load.UploadRate = math.MaxUint64 },
		"download rate":      func(m *pb.Beat) { m.Load.DownloadRate = math.MaxUint64 },
		"uploads":            func(m *pb.Beat) { m.Load.Uploads = math.MaxUint32 },
		"CPU over 1":         func(m *pb.Beat) { m.Load.CpuPermille = 1001 },

		"prefixes too few":     func(m *pb.Beat) { m.Prefixes = make([]byte, 31) },
		"prefixes too many":    func(m *pb.Beat) { m.Prefixes = make([]byte, 33) },
		"empty revocation":     func(m *pb.Beat) { m.Revoked = [][]byte{{}} },
		"revocation too long":  func(m *pb.Beat) { m.Revoked = [][]byte{make([]byte, maxBeatRevocation+1)} },
		"too many revocations": func(m *pb.Beat) { m.Revoked = make([][]byte, maxBeatRevoked+1) },
	} {
		m := beatToProto(fullBeat())
		change(m)
		if _, err := beatFromProto(m); !errors.Is(err, frame.ErrMalformed) {
			t.Errorf("%s: err %v", name, err)
		}
	}
	m := beatToProto(fullBeat())
	m.Reachability = 99
	m.Load = nil
	if b, err := beatFromProto(m); err != nil || b.Reachability != ReachabilityUnknown || b.Load != (Load{}) {
		t.Errorf("unknown reachability, no load: err %v, %+v", err, b)
	}
}

func TestAckRefuses(t *testing.T) {
	for name, change := range map[string]func(*pb.Ack){
		"no hash":               func(m *pb.Ack) { m.MapHash = nil },
		"time":                  func(m *pb.Ack) { m.TimeUs = 1 << 63 },
		"short hash":            func(m *pb.Ack) { m.MapHash = m.MapHash[:31] },
		"long hash":             func(m *pb.Ack) { m.MapHash = append(m.MapHash, 0) },
		"empty revocation":      func(m *pb.Ack) { m.Revoked = [][]byte{{}} },
		"revocation too long":   func(m *pb.Ack) { m.Revoked = [][]byte{make([]byte, maxRevocation+1)} },
		"too many revocations":  func(m *pb.Ack) { m.Revoked = make([][]byte, maxRevoked+1) },
		"revocations all empty": func(m *pb.Ack) { m.Revoked = make([][]byte, 2) },
	} {
		m := ackToProto(fullAck())
		change(m)
		if _, err := ackFromProto(m); !errors.Is(err, frame.ErrMalformed) {
			t.Errorf("%s: err %v", name, err)
		}
	}
}

// The largest messages that the rules allow must fit their frames.
func TestLargestMessagesFit(t *testing.T) {
	b := fullBeat()
	b.Site, b.Version = strings.Repeat("s", frame.MaxSite), strings.Repeat("v", maxVersion)
	long := multiaddr.StringCast("/dns4/" + strings.Repeat("a", 240) + "/tcp/65000")
	b.Addrs = nil
	for range frame.MaxAddrs {
		b.Addrs = append(b.Addrs, long)
	}
	if n := proto.Size(beatToProto(b)); n > maxBeat {
		t.Errorf("beat of %d bytes", n)
	}
}

func FuzzBeat(f *testing.F) {
	for _, v := range frametest.Read(f) {
		f.Add(v.Bytes)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m pb.Beat
		if frame.NewReader(bytes.NewReader(raw), maxBeat).Read(&m) != nil {
			return
		}
		b, err := beatFromProto(&m)
		if err != nil {
			return
		}
		again, err := beatFromProto(beatToProto(b))
		if err != nil || !reflect.DeepEqual(b, again) {
			t.Fatalf("err %v, decoded\n%+v\nthen\n%+v", err, b, again)
		}
	})
}

func FuzzAck(f *testing.F) {
	for _, v := range frametest.Read(f) {
		f.Add(v.Bytes)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m pb.Ack
		if frame.NewReader(bytes.NewReader(raw), maxAck).Read(&m) != nil {
			return
		}
		a, err := ackFromProto(&m)
		if err != nil {
			return
		}
		again, err := ackFromProto(ackToProto(a))
		if err != nil || !reflect.DeepEqual(a, again) {
			t.Fatalf("err %v, decoded\n%+v\nthen\n%+v", err, a, again)
		}
	})
}

// Every revocation of a list is told, the newest first.
func TestBeatRevoked(t *testing.T) {
	for _, n := range []int{0, 1, 6, 7, 40} {
		var all [][]byte
		for i := range n {
			all = append(all, []byte{byte(i)})
		}
		told := make(map[byte]bool)
		for round := range (n + maxBeatRevoked - 1) / maxBeatRevoked {
			some := BeatRevoked(all, round)
			if round == 0 && some[0][0] != byte(n-1) {
				t.Errorf("of %d revocations number %d is told first", n, some[0][0])
			}
			if len(some) > maxBeatRevoked {
				t.Errorf("%d revocations in a beat", len(some))
			}
			for _, r := range some {
				told[r[0]] = true
			}
		}
		if len(told) != n {
			t.Errorf("%d of %d revocations are told", len(told), n)
		}
	}
}
