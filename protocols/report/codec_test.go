package report

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/internal/frame"
	"github.com/p2pnode/p2pnode/protocols/internal/frame/frametest"
	"github.com/p2pnode/p2pnode/protocols/report/pb"
)

func task(n int) content.TaskID { return content.TaskID{byte(n), byte(n >> 8), 31: 1} }

func fullHeld() Held {
	return Held{
		Task: task(1), URL: "https://example.org/\xff", Generation: content.Generation{7}, Size: 9<<20 + 1,
		Present: []byte{0x81, 0x02},
	}
}

func fullDemand() Demand {
	return Demand{Task: task(3), Bytes: 1 << 33, Readers: []uint64{7, 1<<64 - 1}}
}

func toProto(t testing.TB, h Held) *pb.Held {
	t.Helper()
	m, err := heldToProto(h)
	if err != nil {
		t.Fatal(err)
	}
	return m
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
	dropped := task(2)
	frametest.Check(t, []frametest.Vector{
		{Name: "report", Bytes: encoded(t, &pb.Report{
			Session: 1 << 63, Seq: 3, Held: []*pb.Held{toProto(t, fullHeld())}, Dropped: [][]byte{dropped[:]},
		})},
		{Name: "report-least", Bytes: encoded(t, &pb.Report{
			Session: 1, Seq: 1, Held: []*pb.Held{toProto(t, Held{Task: task(1), Size: -1})},
		})},
		{Name: "report-demand", Bytes: encoded(t, &pb.Report{
			Session: 1, Seq: 1, Demand: []*pb.Demand{demandToProto(fullDemand())},
		})},
		{Name: "ack", Bytes: encoded(t, &pb.Ack{Seq: 3})},
	})
}

func TestRoundTrip(t *testing.T) {
	for _, want := range []Held{fullHeld(), {Task: task(1), Size: -1}, {Task: task(1), Sequential: true}} {
		if got, err := heldFromProto(toProto(t, want)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("err %v\n%+v\nwant\n%+v", err, got, want)
		}
	}
}

func TestHeldRefuses(t *testing.T) {
	for name, change := range map[string]func(*pb.Held){
		"no task":            func(m *pb.Held) { m.Task = nil },
		"short generation":   func(m *pb.Held) { m.Generation = []byte{1} },
		"URL too long":       func(m *pb.Held) { m.Url = make([]byte, frame.MaxURL+1) },
		"size":               func(m *pb.Held) { m.Size = proto.Uint64(math.MaxUint64) },
		"bitmap too long":    func(m *pb.Held) { m.Size, m.Present = nil, make([]byte, maxPresent+1) },
		"shift too far":      func(m *pb.Held) { m.PresentShift = maxShift + 1 },
		"bit behind the end": func(m *pb.Held) { m.Present[1] |= 4 },
		"byte behind":        func(m *pb.Held) { m.Present = append(m.Present, 0) },
		"bit of an empty":    func(m *pb.Held) { m.Size = proto.Uint64(0) },
	} {
		m := toProto(t, fullHeld())
		change(m)
		if _, err := heldFromProto(m); !errors.Is(err, frame.ErrMalformed) {
			t.Errorf("%s: err %v", name, err)
		}
	}
}

func TestDemandRefuses(t *testing.T) {
	for name, change := range map[string]func(*pb.Demand){
		"no task":          func(m *pb.Demand) { m.Task = nil },
		"bytes":            func(m *pb.Demand) { m.Bytes = math.MaxUint64 },
		"readers in order": func(m *pb.Demand) { m.Readers = []uint64{2, 1} },
		"reader twice":     func(m *pb.Demand) { m.Readers = []uint64{2, 2} },
		"too many readers": func(m *pb.Demand) { m.Readers = make([]uint64, maxReaders+1) },
	} {
		m := demandToProto(fullDemand())
		change(m)
		if _, err := demandFromProto(m); !errors.Is(err, frame.ErrMalformed) {
			t.Errorf("%s: err %v", name, err)
		}
	}
	if got, err := demandFromProto(demandToProto(fullDemand())); err != nil || !reflect.DeepEqual(got, fullDemand()) {
		t.Errorf("%+v, err %v", got, err)
	}
}

func TestFingerprint(t *testing.T) {
	for id, want := range map[peer.ID]uint64{
		"": 0, "\x01": 1 << 56, "abcdefgh": 0x6867666564636261, "xxabcdefgh": 0x6867666564636261,
	} {
		if got := Fingerprint(id); got != want {
			t.Errorf("%q: %x, want %x", string(id), got, want)
		}
	}
}

func TestReportRefuses(t *testing.T) {
	one := task(1)
	many := &pb.Report{Session: 1, Seq: 1}
	for i := range maxTasks + 1 {
		id := task(i)
		many.Dropped = append(many.Dropped, id[:])
	}
	for name, m := range map[string]*pb.Report{
		"no session":       {Seq: 1},
		"no number":        {Session: 1},
		"bad held":         {Session: 1, Seq: 1, Held: []*pb.Held{{}}},
		"bad dropped":      {Session: 1, Seq: 1, Dropped: [][]byte{{1}}},
		"held twice":       {Session: 1, Seq: 1, Held: []*pb.Held{{Task: one[:]}, {Task: one[:]}}},
		"held and dropped": {Session: 1, Seq: 1, Held: []*pb.Held{{Task: one[:]}}, Dropped: [][]byte{one[:]}},
		"too many":         many,
		"bad demand":       {Session: 1, Seq: 1, Demand: []*pb.Demand{{}}},
		"demand twice":     {Session: 1, Seq: 1, Demand: []*pb.Demand{{Task: one[:]}, {Task: one[:]}}},
		"too much demand":  {Session: 1, Seq: 1, Demand: make([]*pb.Demand, maxTasks+1)},
	} {
		if _, err := reportFromProto(m); !errors.Is(err, frame.ErrMalformed) {
			t.Errorf("%s: err %v", name, err)
		}
	}
	many.Dropped = many.Dropped[1:]
	if r, err := reportFromProto(many); err != nil || len(r.Dropped) != maxTasks {
		t.Errorf("most tasks: %d, err %v", len(r.Dropped), err)
	}
}

// A coarser bitmap must never claim a block that is not held, and must claim
// each whole run.
func TestCoarsen(t *testing.T) {
	for _, blocks := range []int64{maxPresent*8 + 1, maxPresent*8 + 9, 2 * maxPresent * 8, 5*maxPresent*8 + 3, 40 * maxPresent * 8} {
		bits := make([]byte, (blocks+7)/8)
		for i := range blocks {
			if i >= blocks-20 || i%4096 > 100 && rand.IntN(5000) > 0 {
				bits[i/8] |= 1 << (i % 8)
			}
		}
		want := Held{Task: task(1), Size: blocks << 20, Present: bits}
		got, err := heldFromProto(toProto(t, want))
		if err != nil {
			t.Fatalf("%d blocks: %v", blocks, err)
		}
		var count int64
		for first := int64(0); first < blocks; first += 1 << got.Shift {
			whole := true
			for i := first; i < min(blocks, first+1<<got.Shift); i++ {
				whole = whole && want.Has(i)
			}
			for i := first; i < min(blocks, first+1<<got.Shift); i++ {
				if got.Has(i) != whole {
					t.Fatalf("%d blocks, shift %d: block %d held %v, its run whole %v", blocks, got.Shift, i, got.Has(i), whole)
				}
				if whole {
					count++
				}
			}
		}
		if got.Shift == 0 || len(got.Present) > maxPresent || got.Blocks() != count {
			t.Errorf("%d blocks: shift %d, %d bytes, Blocks %d, want %d", blocks, got.Shift, len(got.Present), got.Blocks(), count)
		}
	}
	unknown := Held{Task: task(1), Size: -1, Present: bytes.Repeat([]byte{0xff}, maxPresent+1)}
	got, err := heldFromProto(toProto(t, unknown))
	if err != nil || got.Shift != 1 || got.Blocks() != maxPresent*8+8 {
		t.Errorf("unknown size: err %v, shift %d, %d blocks", err, got.Shift, got.Blocks())
	}
}

func TestHeldBlocks(t *testing.T) {
	h := fullHeld() // 10 blocks; 0, 7 and 9
	for i := range int64(20) {
		if want := i == 0 || i == 7 || i == 9; h.Has(i) != want {
			t.Errorf("Has(%d) = %v", i, !want)
		}
	}
	if h.Has(-1) || h.Blocks() != 3 {
		t.Errorf("%d blocks, block -1 %v", h.Blocks(), h.Has(-1))
	}
	if none := (Held{Size: 5}); none.Blocks() != 0 {
		t.Errorf("%d blocks of nothing", none.Blocks())
	}
}

func FuzzReport(f *testing.F) {
	for _, v := range frametest.Read(f) {
		f.Add(v.Bytes)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m pb.Report
		if frame.NewReader(bytes.NewReader(raw), maxReport).Read(&m) != nil {
			return
		}
		r, err := reportFromProto(&m)
		if err != nil {
			return
		}
		for _, h := range r.Held {
			p, err := heldToProto(h)
			if err != nil {
				t.Fatalf("decoded but not encoded: %v", err)
			}
			again, err := heldFromProto(p)
			h.Present = bytes.TrimRight(h.Present, "\x00")
			if err != nil || len(h.Present) != len(again.Present) || h.Blocks() != again.Blocks() || h.Size != again.Size {
				t.Fatalf("err %v, decoded\n%+v\nthen\n%+v", err, h, again)
			}
			if h.Blocks() < 0 || h.Size >= 0 && h.Blocks() > (content.Layout{Size: h.Size}).Blocks() {
				t.Fatalf("%d blocks of %+v", h.Blocks(), h)
			}
		}
	})
}

func TestLargestReportsFit(t *testing.T) {
	h := fullHeld()
	h.URL, h.Size = strings.Repeat("u", frame.MaxURL), 1<<40
	h.Present = bytes.Repeat([]byte{0xff}, 1<<17)
	size, _, err := encode(item{held: h})
	if err != nil || size > reportRoom/2 {
		t.Errorf("largest task takes %d bytes of %d: %v", size, reportRoom, err)
	}
}
