package supernode

import (
	"crypto/rand"
	"maps"
	mrand "math/rand/v2"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// mirror is what a peer's map makes of updates, in any order: the least that
// fetch and the hash need.
type mirror struct {
	assigns map[content.TaskID]mirrored
	floor   uint64
	pool    map[uint64][]*assignment.PoolPage // by version
	cursor  assignment.Cursor
}

type mirrored struct {
	assignment.Assign
	seq uint64
}

func newMirror() *mirror {
	return &mirror{assigns: make(map[content.TaskID]mirrored), pool: make(map[uint64][]*assignment.PoolPage)}
}

func (m *mirror) apply(t *testing.T, s assignment.Signed) {
	t.Helper()
	u, err := s.Open(func(peer.ID) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	if u.Compare(m.cursor) > 0 {
		m.cursor = u.Cursor
	}
	m.floor = max(m.floor, u.Floor)
	for _, a := range u.Assigns {
		if u.Seq > m.assigns[a.Task].seq {
			m.assigns[a.Task] = mirrored{a, u.Seq}
		}
	}
	if u.Pool != nil {
		m.pool[u.PoolVersion()] = append(m.pool[u.PoolVersion()], u.Pool)
	}
}

func (m *mirror) hash(epoch uint64) [32]byte {
	var sum assignment.HashSum
	for _, a := range m.assigns {
		if a.Lease > 0 && a.seq >= m.floor {
			sum.Toggle(assignment.EntryDigest(a.Assign))
		}
	}
	var newest uint64
	for version, pages := range m.pool {
		if len(pages) == pages[0].Pages {
			newest = max(newest, version)
		}
	}
	var members []assignment.Member
	for _, p := range m.pool[newest] {
		members = append(members, p.Members...)
	}
	return assignment.Hash(epoch, sum, assignment.PoolDigest(members))
}

// history appends random updates to a log.
type history struct {
	t   *testing.T
	key crypto.PrivKey
	log *log
	rng *mrand.Rand
}

func newHistory(t *testing.T, maxWithdrawn int) *history {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &history{t: t, key: key, log: newLog(id, 5, maxWithdrawn), rng: mrand.New(mrand.NewPCG(3, 4))}
}

func (h *history) append(u assignment.Update) assignment.Signed {
	h.t.Helper()
	u.Cursor = assignment.Cursor{Supernode: h.log.supernode, Epoch: h.log.epoch, Seq: h.log.seq + 1}
	u.Issued = time.UnixMilli(1)
	s, err := assignment.Sign(h.key, u)
	if err != nil {
		h.t.Fatal(err)
	}
	h.log.append(u, s)
	return s
}

func (h *history) random(tasks int) []assignment.Signed {
	switch h.rng.IntN(12) {
	case 0:
		pages := 1 + h.rng.IntN(3)
		var out []assignment.Signed
		for i := range pages {
			members := []assignment.Member{{ID: ids(10)[h.rng.IntN(10)], Weight: 1}}
			out = append(out, h.append(assignment.Update{Pool: &assignment.PoolPage{Page: i, Pages: pages, Members: members}}))
		}
		return out
	case 1:
		return []assignment.Signed{h.append(assignment.Update{Floor: h.log.firstAssigned()})}
	}
	var u assignment.Update
	named := make(map[content.TaskID]bool)
	for range 1 + h.rng.IntN(4) {
		a := assignment.Assign{Task: content.TaskID{byte(h.rng.IntN(tasks))}, Size: h.rng.Int64N(9), Seeds: ids(2)}
		if named[a.Task] {
			continue
		}
		named[a.Task] = true
		if h.rng.IntN(3) > 0 {
			a.Lease = time.Minute
		}
		u.Assigns = append(u.Assigns, a)
	}
	return []assignment.Signed{h.append(u)}
}

// fetch brings a mirror up to date, in pages of at most maxBytes.
func (h *history) fetch(m *mirror, maxBytes int) (entries int) {
	h.t.Helper()
	cursor := m.cursor
	for {
		page, more := h.log.since([]assignment.Cursor{cursor}, nil, maxBytes)
		size := 0
		for _, s := range page {
			size += s.Size()
			m.apply(h.t, s)
			cursor = m.cursor
		}
		if len(page) > 1 && size > maxBytes {
			h.t.Fatalf("page of %d bytes, at most %d", size, maxBytes)
		}
		entries += len(page)
		if !more {
			return entries
		}
		if len(page) == 0 {
			h.t.Fatal("an empty page promises more")
		}
	}
}

// A peer that wants some tasks alone gets them and what is for all, and the hash is
// over these.
func TestLogOfSomeTasks(t *testing.T) {
	h := newHistory(t, 1000)
	var want content.Prefixes
	for _, b := range []byte{3, 4, 17, 39} {
		want.Add(b)
	}
	follower := newMirror()
	for i := range 2000 {
		h.random(40)
		if i%9 > 0 {
			continue
		}
		for {
			page, more := h.log.since([]assignment.Cursor{follower.cursor}, &want, 1+h.rng.IntN(4000))
			for _, s := range page {
				follower.apply(t, s)
			}
			if !more {
				break
			}
		}
		maps.DeleteFunc(follower.assigns, func(id content.TaskID, _ mirrored) bool { return !want.Has(id[0]) })
		if follower.hash(h.log.epoch) != h.log.hash(&want) {
			t.Fatalf("step %d: a peer that has all of some tasks has another hash", i)
		}
	}
	if follower.hash(h.log.epoch) == h.log.hash(nil) {
		t.Error("some tasks are all")
	}
	entries, _ := h.log.since(nil, &content.Prefixes{}, 1<<30)
	for _, s := range entries {
		if u, err := s.Open(func(peer.ID) bool { return true }); err != nil || len(u.Assigns) > 0 {
			t.Errorf("err %v, %d assignments for who wants none", err, len(u.Assigns))
		}
	}
}

func TestLogServesWhatCounts(t *testing.T) {
	h := newHistory(t, 1000)
	faithful, lagging := newMirror(), newMirror()
	lagging.cursor = assignment.Cursor{Supernode: h.log.supernode, Epoch: h.log.epoch}
	for i := range 2000 {
		for _, s := range h.random(40) {
			faithful.apply(t, s)
		}
		want := h.log.hash(nil)
		if got := faithful.hash(h.log.epoch); got != want {
			t.Fatalf("step %d: a peer that heard all has another hash than the log", i)
		}
		if i%37 == 0 {
			fresh := newMirror()
			h.fetch(fresh, 1+h.rng.IntN(4000))
			if fresh.hash(h.log.epoch) != want {
				t.Fatalf("step %d: fetching all does not make the map", i)
			}
		}
		if i%53 == 0 {
			h.fetch(lagging, 1+h.rng.IntN(4000))
			if lagging.hash(h.log.epoch) != want {
				t.Fatalf("step %d: fetching from the cursor on does not make the map", i)
			}
		}
	}
	if n := len(h.log.entries); n > 400 {
		t.Errorf("%d entries are kept for 40 tasks", n)
	}
	h.fetch(lagging, 1<<20)
	if n := h.fetch(lagging, 1<<20); n != 0 {
		t.Errorf("%d entries behind the last one", n)
	}
}

func TestLogCursorOfAnotherEpoch(t *testing.T) {
	h := newHistory(t, 10)
	h.append(assignment.Update{Assigns: []assignment.Assign{{Task: content.TaskID{1}, Lease: time.Minute}}})
	for _, tt := range []struct {
		cursor assignment.Cursor
		want   int
	}{
		{assignment.Cursor{Supernode: h.log.supernode, Epoch: 4, Seq: 9}, 1},
		{assignment.Cursor{Supernode: h.log.supernode, Epoch: 5, Seq: 1}, 0},
		{assignment.Cursor{Supernode: h.log.supernode, Epoch: 6, Seq: 0}, 0},
		{assignment.Cursor{Supernode: ids(1)[0], Epoch: 5, Seq: 9}, 1},
	} {
		if got, more := h.log.since([]assignment.Cursor{tt.cursor}, nil, 1<<20); len(got) != tt.want || more {
			t.Errorf("cursor %+v: %d entries, more %t; want %d", tt.cursor, len(got), more, tt.want)
		}
	}
}

func TestLogBoundsWithdrawals(t *testing.T) {
	h := newHistory(t, 10)
	h.append(assignment.Update{Assigns: []assignment.Assign{{Task: content.TaskID{255}, Lease: time.Minute}}})
	for i := range 200 {
		h.append(assignment.Update{Assigns: []assignment.Assign{{Task: content.TaskID{byte(i)}, Size: -1}}})
	}
	if len(h.log.withdrawn) > 10 || len(h.log.byTask) > 11 || len(h.log.entries) > 200 {
		t.Errorf("%d withdrawals, %d tasks, %d entries kept; want 10 withdrawals", len(h.log.withdrawn), len(h.log.byTask), len(h.log.entries))
	}
	if h.log.firstAssigned() != 1 {
		t.Errorf("floor %d, want the live assignment's 1", h.log.firstAssigned())
	}
}
