package report

import (
	"bytes"

	"google.golang.org/protobuf/proto"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/internal/frame"
	"github.com/p2pnode/p2pnode/protocols/report/pb"
)

// heldToProto encodes a task after the checks that heldFromProto makes.
func heldToProto(h Held) (*pb.Held, error) {
	present, shift := coarsen(h)
	m := &pb.Held{
		Task:         h.Task[:],
		Url:          []byte(h.URL),
		Sequential:   h.Sequential,
		Present:      bytes.TrimRight(present, "\x00"),
		PresentShift: uint32(shift),
	}
	if !h.Generation.IsZero() {
		m.Generation = h.Generation[:]
	}
	if h.Size >= 0 {
		m.Size = proto.Uint64(uint64(h.Size))
	}
	_, err := heldFromProto(m)
	return m, err
}

// coarsen doubles the runs of a task's bitmap until it fits maxPresent. A run is
// set where both of its halves are, so nothing is said to be held that is not; a
// last run without a partner stands for itself where the size is known.
func coarsen(h Held) (present []byte, shift uint8) {
	for ; len(h.Present) > maxPresent && h.Shift <= maxShift; h.Shift++ {
		all := runs(h)
		half := make([]byte, (len(h.Present)+1)/2)
		for i := range int64(len(half)) * 8 {
			left, right := bit(h.Present, 2*i), bit(h.Present, 2*i+1) || 2*i+1 == all
			if left && right {
				half[i/8] |= 1 << (i % 8)
			}
		}
		h.Present = half
	}
	return h.Present, h.Shift
}

func bit(b []byte, i int64) bool { return i < int64(len(b))*8 && b[i/8]&(1<<(i%8)) != 0 }

func heldFromProto(m *pb.Held) (Held, error) {
	task, err := content.TaskIDFromBytes(m.GetTask())
	if err != nil {
		return Held{}, frame.Malformed("%w", err)
	}
	h := Held{Task: task, URL: string(m.GetUrl()), Size: -1, Sequential: m.GetSequential(), Present: m.GetPresent()}
	if h.Generation, err = content.GenerationFromBytes(m.GetGeneration()); err != nil {
		return Held{}, frame.Malformed("%w", err)
	}
	if m.Size != nil {
		if h.Size, err = frame.Int64("size", m.GetSize()); err != nil {
			return Held{}, err
		}
	}
	switch {
	case len(h.URL) > frame.MaxURL:
		return Held{}, frame.Malformed("task %s: URL of %d bytes: at most %d", task, len(h.URL), frame.MaxURL)
	case len(h.Present) > maxPresent || m.GetPresentShift() > maxShift:
		return Held{}, frame.Malformed("task %s: bitmap of %d bytes, shift %d: at most %d and %d",
			task, len(h.Present), m.GetPresentShift(), maxPresent, maxShift)
	}
	h.Shift = uint8(m.GetPresentShift())
	if end := runs(h); end >= 0 && int64(len(h.Present)) > (end+7)/8 {
		return Held{}, frame.Malformed("task %s: bitmap of %d bytes for %d runs", task, len(h.Present), end)
	} else if end >= 0 && int64(len(h.Present))*8 > end && h.Present[end/8]>>(end%8) != 0 {
		return Held{}, frame.Malformed("task %s: bits behind the last of %d runs", task, end)
	}
	return h, nil
}

// runs returns the number of runs of the file, -1 where its size is not known.
func runs(h Held) int64 {
	if h.Size < 0 {
		return -1
	}
	blocks := content.Layout{Size: h.Size}.Blocks()
	return (blocks + 1<<h.Shift - 1) >> h.Shift
}

func demandToProto(d Demand) *pb.Demand {
	return &pb.Demand{Task: d.Task[:], Bytes: frame.Uint64(d.Bytes), Readers: d.Readers}
}

func demandFromProto(m *pb.Demand) (Demand, error) {
	task, err := content.TaskIDFromBytes(m.GetTask())
	if err != nil {
		return Demand{}, frame.Malformed("%w", err)
	}
	d := Demand{Task: task, Readers: m.GetReaders()}
	if d.Bytes, err = frame.Int64("demand", m.GetBytes()); err != nil {
		return Demand{}, err
	}
	if len(d.Readers) > maxReaders {
		return Demand{}, frame.Malformed("task %s: %d readers: at most %d", task, len(d.Readers), maxReaders)
	}
	for i := 1; i < len(d.Readers); i++ {
		if d.Readers[i] <= d.Readers[i-1] {
			return Demand{}, frame.Malformed("task %s: readers out of order", task)
		}
	}
	return d, nil
}

func reportFromProto(m *pb.Report) (Report, error) {
	var r Report
	if m.GetSession() == 0 || m.GetSeq() == 0 {
		return r, frame.Malformed("report %d of session %d: both start at 1", m.GetSeq(), m.GetSession())
	}
	if n := max(len(m.GetHeld())+len(m.GetDropped()), len(m.GetDemand())); n > maxTasks {
		return r, frame.Malformed("report %d has %d tasks: at most %d", m.GetSeq(), n, maxTasks)
	}
	seen := make(map[content.TaskID]struct{}, len(m.GetHeld())+len(m.GetDropped()))
	for _, p := range m.GetHeld() {
		h, err := heldFromProto(p)
		if err != nil {
			return r, err
		}
		seen[h.Task] = struct{}{}
		r.Held = append(r.Held, h)
	}
	for _, b := range m.GetDropped() {
		task, err := content.TaskIDFromBytes(b)
		if err != nil {
			return r, frame.Malformed("%w", err)
		}
		seen[task] = struct{}{}
		r.Dropped = append(r.Dropped, task)
	}
	twice := len(seen) != len(r.Held)+len(r.Dropped)
	clear(seen)
	for _, p := range m.GetDemand() {
		d, err := demandFromProto(p)
		if err != nil {
			return r, err
		}
		seen[d.Task] = struct{}{}
		r.Demand = append(r.Demand, d)
	}
	if twice || len(seen) != len(r.Demand) {
		return r, frame.Malformed("report %d names a task twice", m.GetSeq())
	}
	return r, nil
}
