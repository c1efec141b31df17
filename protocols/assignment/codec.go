package assignment

import (
	"bytes"
	"fmt"
	"math"
	"math/bits"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment/pb"
	"github.com/p2pnode/p2pnode/protocols/internal/frame"
)

// encode marshals an update after the checks that decode makes.
func encode(u Update) ([]byte, error) {
	m := toProto(u)
	if _, err := fromProto(m); err != nil {
		return nil, err
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode update %d: %w", u.Seq, err)
	}
	if len(b) > MaxUpdate {
		return nil, fmt.Errorf("%w: update %d of %d bytes, at most %d", frame.ErrTooLarge, u.Seq, len(b), MaxUpdate)
	}
	return b, nil
}

// decode reads an update; its Cursor lacks the supernode, which is not in the
// signed bytes. The error wraps ErrMalformed or ErrTooLarge.
func decode(b []byte) (Update, error) {
	if len(b) > MaxUpdate {
		return Update{}, fmt.Errorf("%w: update of %d bytes, at most %d", frame.ErrTooLarge, len(b), MaxUpdate)
	}
	var m pb.Update
	if err := frame.Unmarshal(b, &m); err != nil {
		return Update{}, err
	}
	return fromProto(&m)
}

func toProto(u Update) *pb.Update {
	m := &pb.Update{Epoch: u.Epoch, Seq: u.Seq, IssuedMs: uint64(max(u.Issued.UnixMilli(), 0)), Floor: u.Floor}
	for _, a := range u.Assigns {
		m.Assigns = append(m.Assigns, assignToProto(a))
	}
	if u.Pool != nil {
		m.Pool = &pb.PoolPage{Page: clip(u.Pool.Page), Pages: clip(u.Pool.Pages), Replicas: clip(u.Pool.Replicas), Shards: clip(u.Pool.Shards)}
		for _, p := range u.Pool.Members {
			m.Pool.Members = append(m.Pool.Members, memberToProto(p))
		}
		for _, name := range u.Pool.FilterQuery {
			m.Pool.FilterQuery = append(m.Pool.FilterQuery, []byte(name))
		}
	}
	return m
}

// clip makes of a number that is out of range one that the checks refuse.
func clip(n int) uint32 {
	if n < 0 || n > math.MaxUint32 {
		return math.MaxUint32
	}
	return uint32(n)
}

func assignToProto(a Assign) *pb.Assign {
	m := &pb.Assign{
		Task:       a.Task[:],
		Url:        []byte(a.URL),
		Sequential: a.Sequential,
		LeaseMs:    uint64(a.Lease.Milliseconds()),
	}
	if a.Lease > 0 && m.LeaseMs == 0 {
		m.LeaseMs = 1 // no live lease rounds to a withdrawal
	}
	if !a.Generation.IsZero() {
		m.Generation = a.Generation[:]
	}
	if a.Size >= 0 {
		m.Size = proto.Uint64(uint64(a.Size))
	}
	for _, s := range a.Seeds {
		m.Seeds = append(m.Seeds, []byte(s))
	}
	m.Excluded, m.Whole = a.excluded(), a.whole()
	return m
}

func memberToProto(p Member) *pb.Member {
	return &pb.Member{Id: []byte(p.ID), Addrs: frame.AppendAddrs(nil, p.Addrs), Site: p.Site, Weight: p.Weight, Cordoned: p.Cordoned}
}

func fromProto(m *pb.Update) (Update, error) {
	u := Update{Cursor: Cursor{Epoch: m.GetEpoch(), Seq: m.GetSeq()}, Floor: m.GetFloor()}
	issued, err := frame.Int64("issued_ms", m.GetIssuedMs())
	if err != nil {
		return Update{}, err
	}
	u.Issued = time.UnixMilli(issued)
	switch {
	case u.Epoch == 0 || u.Epoch > math.MaxInt64 || u.Seq == 0:
		return Update{}, frame.Malformed("update (%d, %d): epoch and number start at 1", u.Epoch, u.Seq)
	case u.Floor > u.Seq:
		return Update{}, frame.Malformed("floor %d of update %d", u.Floor, u.Seq)
	case m.GetPool() != nil && len(m.GetAssigns()) > 0:
		return Update{}, frame.Malformed("update %d has assigns and a pool", u.Seq)
	case len(m.GetAssigns()) > MaxAssigns:
		return Update{}, frame.Malformed("update %d has %d assigns: at most %d", u.Seq, len(m.GetAssigns()), MaxAssigns)
	}
	for _, a := range m.GetAssigns() {
		assign, err := assignFromProto(a)
		if err != nil {
			return Update{}, fmt.Errorf("update %d: %w", u.Seq, err)
		}
		u.Assigns = append(u.Assigns, assign)
	}
	if m.GetPool() != nil {
		page, err := pageFromProto(m.GetPool(), u.Seq)
		if err != nil {
			return Update{}, fmt.Errorf("update %d: %w", u.Seq, err)
		}
		u.Pool = page
	}
	return u, nil
}

func assignFromProto(m *pb.Assign) (Assign, error) {
	task, err := content.TaskIDFromBytes(m.GetTask())
	if err != nil {
		return Assign{}, frame.Malformed("%w", err)
	}
	a := Assign{Task: task, URL: string(m.GetUrl()), Size: -1, Sequential: m.GetSequential()}
	if len(a.URL) > frame.MaxURL {
		return Assign{}, frame.Malformed("URL of %d bytes: at most %d", len(a.URL), frame.MaxURL)
	}
	if a.Generation, err = content.GenerationFromBytes(m.GetGeneration()); err != nil {
		return Assign{}, frame.Malformed("%w", err)
	}
	if m.Size != nil {
		if a.Size, err = frame.Int64("size", m.GetSize()); err != nil {
			return Assign{}, err
		}
	}
	if a.Seeds, err = frame.PeerIDs(m.GetSeeds(), MaxSeeds); err != nil {
		return Assign{}, fmt.Errorf("task %s: %w", task, err)
	}
	if err := a.marksFromProto(m); err != nil {
		return Assign{}, err
	}
	if m.GetLeaseMs() > uint64(MaxLease.Milliseconds()) {
		return Assign{}, frame.Malformed("task %s: lease of %d ms: at most %s", task, m.GetLeaseMs(), MaxLease)
	}
	a.Lease = time.Duration(m.GetLeaseMs()) * time.Millisecond
	return a, nil
}

// marksFromProto reads what is said of each seed.
func (a *Assign) marksFromProto(m *pb.Assign) error {
	if n := len(m.GetExcluded()); n != 0 && n != len(a.Seeds) {
		return frame.Malformed("task %s: %d sets of excluded stripes for %d seeds", a.Task, n, len(a.Seeds))
	}
	for _, b := range m.GetExcluded() {
		var r Runs
		if len(b) > len(r) {
			return frame.Malformed("task %s: excluded stripes of %d bytes: at most %d", a.Task, len(b), len(r))
		}
		copy(r[:], b)
		a.Excluded = append(a.Excluded, r)
	}
	if a.excluded() == nil {
		a.Excluded = nil
	}
	whole := bytes.TrimRight(m.GetWhole(), "\x00")
	if len(whole) == 0 {
		return nil
	}
	if last := len(whole)*8 - bits.LeadingZeros8(whole[len(whole)-1]); last > len(a.Seeds) {
		return frame.Malformed("task %s: mark of seed %d of %d", a.Task, last, len(a.Seeds))
	}
	a.Whole = make([]bool, len(a.Seeds))
	for i := range a.Whole {
		a.Whole[i] = i/8 < len(whole) && whole[i/8]&(1<<(i%8)) != 0
	}
	return nil
}

func pageFromProto(m *pb.PoolPage, seq uint64) (*PoolPage, error) {
	if m.GetPages() == 0 || m.GetPages() > MaxPool || m.GetPage() >= m.GetPages() || uint64(m.GetPage()) >= seq {
		return nil, frame.Malformed("page %d of %d with number %d", m.GetPage(), m.GetPages(), seq)
	}
	if len(m.GetMembers()) > MaxPool {
		return nil, frame.Malformed("%d members: at most %d", len(m.GetMembers()), MaxPool)
	}
	if m.GetReplicas() > MaxSeeds {
		return nil, frame.Malformed("%d replicas: at most %d", m.GetReplicas(), MaxSeeds)
	}
	if n := m.GetShards(); n != 0 && (n > content.MaxShards || !content.ValidShards(int(n))) {
		return nil, frame.Malformed("%d shards: a power of two up to %d", n, content.MaxShards)
	}
	page := &PoolPage{Page: int(m.GetPage()), Pages: int(m.GetPages()), Replicas: int(m.GetReplicas()), Shards: int(m.GetShards())}
	for _, p := range m.GetMembers() {
		member, err := memberFromProto(p)
		if err != nil {
			return nil, err
		}
		page.Members = append(page.Members, member)
	}
	if err := page.filterFromProto(m); err != nil {
		return nil, err
	}
	return page, nil
}

// filterFromProto reads the names of query parameters.
func (p *PoolPage) filterFromProto(m *pb.PoolPage) error {
	names := m.GetFilterQuery()
	if len(names) > content.MaxFilterNames || len(names) > 0 && p.Page > 0 {
		return frame.Malformed("%d names of query parameters on page %d: at most %d, on page 0", len(names), p.Page, content.MaxFilterNames)
	}
	size := 0
	for i, b := range names {
		name := string(b)
		if !content.IsFilterName(name) || i > 0 && name <= p.FilterQuery[i-1] {
			return frame.Malformed("query parameter %q: not a name, or not in order", name)
		}
		if size += len(name) + 1; size > content.MaxFilterBytes {
			return frame.Malformed("names of query parameters of %d bytes: at most %d", size, content.MaxFilterBytes)
		}
		p.FilterQuery = append(p.FilterQuery, name)
	}
	return nil
}

func memberFromProto(m *pb.Member) (Member, error) {
	id, err := frame.PeerID(m.GetId())
	if err != nil {
		return Member{}, err
	}
	p := Member{ID: id, Site: m.GetSite(), Weight: m.GetWeight(), Cordoned: m.GetCordoned()}
	if len(p.Site) > frame.MaxSite || !utf8.ValidString(p.Site) {
		return Member{}, frame.Malformed("member %s: site of %d bytes: at most %d, UTF-8", id, len(p.Site), frame.MaxSite)
	}
	if !(p.Weight >= 0 && p.Weight <= MaxWeight) {
		return Member{}, frame.Malformed("member %s: weight %v: 0 to %d", id, p.Weight, int64(MaxWeight))
	}
	if p.Addrs, err = frame.Addrs(m.GetAddrs()); err != nil {
		return Member{}, fmt.Errorf("member %s: %w", id, err)
	}
	return p, nil
}
