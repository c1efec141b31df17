package supernode

import (
	"crypto/rand"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
	"github.com/p2pnode/p2pnode/protocols/heartbeat"
	"github.com/p2pnode/p2pnode/protocols/report"
)

// world is a core with a clock of its own, and what a peer that hears
// everything knows of it.
type world struct {
	t    testing.TB
	now  time.Time
	key  crypto.PrivKey
	core *core

	pool    []peer.ID
	assigns map[content.TaskID]assignment.Assign
	sent    []assignment.Signed
}

func newWorld(t testing.TB, cfg Config) *world {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return (&world{t: t, key: key, now: time.UnixMilli(1_000_000)}).restart(cfg)
}

// restart makes a new core with the key of the old one.
func (w *world) restart(cfg Config) *world {
	id, err := peer.IDFromPrivateKey(w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	w.core = newCore(cfg.withDefaults(), id, w.now)
	w.assigns = make(map[content.TaskID]assignment.Assign)
	w.pool = nil
	return w
}

// step lets time pass, makes one round and returns its updates.
func (w *world) step(d time.Duration) []assignment.Update {
	w.t.Helper()
	w.now = w.now.Add(d)
	plan := w.core.plan(w.now)
	updates := append(plan.updates, w.core.commit(Elect(plan.input), w.now)...)
	for i, u := range updates {
		if i > 0 && u.Seq != updates[i-1].Seq+1 {
			w.t.Fatalf("update %d follows %d", u.Seq, updates[i-1].Seq)
		}
		signed, err := assignment.Sign(w.key, u)
		if err != nil {
			w.t.Fatal(err)
		}
		w.core.log.append(u, signed)
		w.sent = append(w.sent, signed)
		if u.Pool != nil {
			if u.Pool.Page == 0 {
				w.pool = nil
			}
			for _, m := range u.Pool.Members {
				w.pool = append(w.pool, m.ID)
			}
		}
		for _, a := range u.Assigns {
			w.assigns[a.Task] = a
			if a.Lease == 0 {
				delete(w.assigns, a.Task)
			}
		}
	}
	return updates
}

func (w *world) beat(ids ...peer.ID) {
	w.t.Helper()
	for _, id := range ids {
		if _, ok := w.core.beat(id, heartbeat.Beat{Session: 1, Seq: 1, Seed: true}, w.now); !ok {
			w.t.Fatalf("no place for %s", id)
		}
	}
}

func (w *world) report(from peer.ID, task content.TaskID, blocks int) {
	w.t.Helper()
	h := report.Held{Task: task, URL: "http://x/" + task.String()[:4], Generation: content.Generation{1}, Size: 64 << 20, Present: bitmap(blocks)}
	if !w.core.report(from, report.Report{Held: []report.Held{h}}, w.now) {
		w.t.Fatalf("no place for the report of %s", from)
	}
}

func bitmap(n int) []byte {
	b := make([]byte, (n+7)/8)
	for i := range n {
		b[i/8] |= 1 << (i % 8)
	}
	return b
}

func (w *world) wantPool(ids ...peer.ID) {
	w.t.Helper()
	slices.Sort(ids)
	if !slices.Equal(w.pool, ids) {
		w.t.Fatalf("pool is %v, want %v", w.pool, ids)
	}
}

// ids returns n peer IDs that are valid on the wire.
func ids(n int) []peer.ID {
	out := make([]peer.ID, n)
	for i := range out {
		out[i] = peer.ID(append([]byte{0x12, 0x20}, fmt.Appendf(nil, "%032d", i)...))
	}
	return out
}

func TestPoolChanges(t *testing.T) {
	w := newWorld(t, Config{})
	p := ids(4)
	w.beat(p[0])
	w.step(0)
	w.wantPool(p[0]) // the first goes out at once
	w.beat(p[1])
	w.step(100 * time.Millisecond)
	w.wantPool(p[0])
	w.step(100 * time.Millisecond)
	w.wantPool(p[:2]...) // a join waits 200 ms
	w.beat(p[2])
	w.step(200 * time.Millisecond)
	w.wantPool(p[:3]...)
	w.core.leave(p[1])
	w.step(4 * time.Second)
	w.wantPool(p[:3]...) // a departure waits 5 s
	w.step(time.Second)
	w.wantPool(p[0], p[2])
	if got := w.step(time.Minute); len(w.core.members.byID) != 0 || len(got) != 0 {
		t.Errorf("%d members after a minute of silence, updates %v; want none: the last pool stands", len(w.core.members.byID), got)
	}
	w.beat(p[3])
	w.step(0)
	w.wantPool(p[3])
}

func TestPoolTakesSeedsOnly(t *testing.T) {
	w := newWorld(t, Config{})
	p := ids(2)
	w.beat(p[0])
	w.core.beat(p[1], heartbeat.Beat{Session: 1, Seq: 1}, w.now)
	w.step(time.Second)
	w.wantPool(p[0])
}

func TestPoolIsBoundedAndSticky(t *testing.T) {
	w := newWorld(t, Config{})
	p := ids(300)
	w.beat(p[20:]...)
	w.step(0)
	if len(w.pool) != assignment.MaxPool {
		t.Fatalf("pool of %d, want %d", len(w.pool), assignment.MaxPool)
	}
	before := slices.Clone(w.pool)
	w.beat(p...) // twenty more, with lower IDs
	w.core.leave(before[7])
	w.step(10 * time.Second)
	left := 0
	for _, id := range before {
		if !slices.Contains(w.pool, id) {
			left++
		}
	}
	if len(w.pool) != assignment.MaxPool || left != 1 {
		t.Errorf("pool of %d that %d left, want %d and 1", len(w.pool), left, assignment.MaxPool)
	}
}

func TestLargePoolGrowsSlower(t *testing.T) {
	w := newWorld(t, Config{})
	p := ids(81)
	w.beat(p[:80]...)
	w.step(0)
	w.beat(p[80])
	w.step(time.Second)
	if len(w.pool) != 80 {
		t.Fatalf("pool of %d changed for a join after 1 s", len(w.pool))
	}
	w.step(1200 * time.Millisecond)
	if len(w.pool) != 81 {
		t.Errorf("pool of %d after 2.2 s, want 81", len(w.pool))
	}
}

func TestLeases(t *testing.T) {
	w := newWorld(t, Config{})
	p := ids(3)
	w.beat(p...)
	w.step(0)
	w.core.members.suspect(p[1])
	w.step(14 * time.Second)
	w.wantPool(p...) // a suspect stays until its lease is over
	w.beat(p[0], p[2])
	w.step(time.Second)
	w.wantPool(p[0], p[2])
	if got := w.core.members.byID[p[1]]; got != nil {
		t.Errorf("member after three periods of silence: %+v", got)
	}
	w.core.members.suspect(p[2])
	w.beat(p[2])
	if got := w.core.members.byID[p[2]].state; got != Live {
		t.Errorf("a suspect that beats again is %s", got)
	}
}

func TestMembersAreBounded(t *testing.T) {
	w := newWorld(t, Config{MaxPeers: 2})
	p := ids(4)
	w.beat(p[:2]...)
	if _, ok := w.core.beat(p[2], heartbeat.Beat{Session: 1, Seq: 1}, w.now); ok {
		t.Error("a third member found a place among two live ones")
	}
	if w.core.report(p[2], report.Report{}, w.now) {
		t.Error("a report made a third member")
	}
	w.core.members.suspect(p[0])
	w.beat(p[2])
	if w.core.members.byID[p[0]] != nil || w.core.members.byID[p[1]] == nil {
		t.Error("the suspect did not go for the newcomer, or a live one did")
	}
}

func TestElectionAfterReport(t *testing.T) {
	w := newWorld(t, Config{})
	p := ids(5)
	w.beat(p...)
	task := content.TaskID{7}
	w.report(p[0], task, 3)
	w.step(0)
	a := w.assigns[task]
	var members []Candidate
	for _, id := range p {
		members = append(members, Candidate{Member: content.Member{ID: id, Weight: 1}})
	}
	if want := ranked(task, members)[:2]; !slices.Equal(a.Seeds, want) {
		t.Fatalf("seeds %v, want the readers' %v", a.Seeds, want)
	}
	if a.Size != 64<<20 || a.Generation != (content.Generation{1}) || a.URL == "" || a.Lease != 10*time.Minute {
		t.Errorf("assignment lacks metadata: %+v", a)
	}
	w.report(p[0], task, 5)
	if got := w.step(time.Second); len(got) != 0 {
		t.Errorf("progress alone published %v", got)
	}
	// The head dies: who is left stays, another takes the place.
	dead, kept := a.Seeds[0], a.Seeds[1]
	w.core.leave(dead)
	w.step(time.Second)
	b := w.assigns[task]
	if len(b.Seeds) != 2 || slices.Contains(b.Seeds, dead) || !slices.Contains(b.Seeds, kept) {
		t.Errorf("seeds %v after the death of %s, were %v", b.Seeds, dead, a.Seeds)
	}
}

// Who may be dead gets nothing new, and loses nothing before its lease is over.
func TestSuspectsGetNoNewDuties(t *testing.T) {
	w := newWorld(t, Config{})
	p := ids(4)
	w.beat(p...)
	old, later := content.TaskID{1}, content.TaskID{2}
	w.report(p[0], old, 3)
	w.step(0)
	suspect := w.assigns[old].Seeds[0]
	w.core.members.suspect(suspect)
	for i := byte(2); i < 20; i++ {
		later = content.TaskID{i}
		w.report(p[(slices.Index(p, suspect)+1)%4], later, 3)
		w.step(time.Second / 10)
		if seeds := w.assigns[later].Seeds; len(seeds) != 2 || slices.Contains(seeds, suspect) {
			t.Fatalf("task %d: seeds %v, %s is suspect", i, seeds, suspect)
		}
	}
	if !slices.Contains(w.assigns[old].Seeds, suspect) {
		t.Error("a suspect lost its duty before its lease was over")
	}
}

func TestFirstSeedGetsCompany(t *testing.T) {
	w := newWorld(t, Config{})
	p := ids(2)
	w.beat(p[0])
	task := content.TaskID{7}
	w.report(p[0], task, 3)
	w.step(0)
	if got := w.assigns[task].Seeds; !slices.Equal(got, p[:1]) {
		t.Fatalf("seeds %v, want the only member", got)
	}
	w.beat(p[1])
	w.step(time.Second)
	if got := w.assigns[task].Seeds; len(got) != 2 {
		t.Errorf("seeds %v, want both members", got)
	}
}

func TestAssignmentLease(t *testing.T) {
	w := newWorld(t, Config{Lease: 16 * time.Minute, Beat: time.Hour})
	p := ids(3)
	w.beat(p...)
	held, dropped := content.TaskID{1}, content.TaskID{2}
	w.report(p[0], held, 3)
	w.report(p[0], dropped, 3)
	w.step(0)
	w.core.report(p[0], report.Report{Dropped: []content.TaskID{dropped}}, w.now)
	if w.step(7 * time.Minute); w.assigns[held].Lease == 0 || w.assigns[dropped].Lease == 0 {
		t.Fatal("an assignment went before half of its lease")
	}
	renewed := 0
	for range 40 {
		for _, u := range w.step(time.Minute) {
			for _, a := range u.Assigns {
				if a.Task == held && a.Lease > 0 {
					renewed++
				}
			}
		}
	}
	if _, ok := w.assigns[held]; !ok || renewed < 3 || renewed > 7 {
		t.Errorf("a task that is held was renewed %d times in 47 min, and is assigned: %t", renewed, ok)
	}
	if _, ok := w.assigns[dropped]; ok {
		t.Error("a task that nobody holds or reads is still assigned after its lease")
	}
	if w.core.tasks.byID.Len() != 1 {
		t.Errorf("%d tasks known, want 1", w.core.tasks.byID.Len())
	}
}

func TestTasksAreBounded(t *testing.T) {
	w := newWorld(t, Config{MaxTasks: 3})
	p := ids(2)
	w.beat(p...)
	for i := range 5 {
		w.report(p[0], content.TaskID{byte(i)}, 1)
		w.step(time.Second)
	}
	w.step(time.Second)
	if len(w.assigns) != 3 || w.assigns[content.TaskID{4}].Lease == 0 {
		t.Errorf("%d tasks assigned, want the latest 3", len(w.assigns))
	}
}

func TestGenerationOfTheHeadCounts(t *testing.T) {
	w := newWorld(t, Config{})
	p := ids(4)
	w.beat(p...)
	task := content.TaskID{9}
	w.report(p[0], task, 1)
	w.step(0)
	seeds := w.assigns[task].Seeds
	w.report(seeds[0], task, 2)
	changed := report.Held{Task: task, Generation: content.Generation{2}, Size: 5 << 20, Present: bitmap(5)}
	w.core.report(seeds[1], report.Report{Held: []report.Held{changed}}, w.now)
	w.step(time.Second)
	if got := w.assigns[task].Generation; got != (content.Generation{1}) {
		t.Fatalf("generation %s: another's word counted against the head's", got)
	}
	w.core.report(seeds[0], report.Report{Held: []report.Held{changed}}, w.now)
	w.step(time.Second)
	if got := w.assigns[task]; got.Generation != (content.Generation{2}) || got.Size != 5<<20 || !slices.Equal(got.Seeds, seeds) {
		t.Errorf("after the head's word: %+v", got)
	}
	if got := w.core.tasks.byID.Values()[0].holders; len(got) != 1 {
		t.Errorf("holders of the old generation still count: %v", got)
	}
}

func TestRestartKeepsSeeds(t *testing.T) {
	w := newWorld(t, Config{})
	p := ids(6)
	var members []Candidate
	for _, id := range p {
		members = append(members, Candidate{Member: content.Member{ID: id, Weight: 1}})
	}
	task := content.TaskID{1}
	for slices.Equal(ranked(task, members)[:2], ranked(task, members[:4])[:2]) {
		task[0]++ // a task whose seeds tell that the last life is remembered
	}
	w.beat(p[:4]...)
	w.report(p[0], task, 1)
	w.step(0)
	w.beat(p[4], p[5])
	w.step(time.Second)
	before := w.assigns[task].Seeds
	past := w.sent

	w.now = w.now.Add(time.Second)
	w.restart(Config{})
	back := func(ids ...peer.ID) {
		for _, id := range ids {
			w.core.beat(id, heartbeat.Beat{Session: 1, Seq: 9, Seed: true}, w.now)
		}
	}
	back(p[0])
	w.report(p[0], task, 1)
	if got := w.step(100 * time.Millisecond); len(got) != 0 {
		t.Fatalf("published %v before the past was known", got)
	}
	w.core.remember(open(w.core.self, past))
	if got := w.step(time.Second); len(got) != 0 {
		t.Fatalf("published %v while five of the last pool are not yet back", got)
	}
	back(p[1:]...)
	w.step(100 * time.Millisecond)
	w.wantPool(p...)
	if got := w.assigns[task].Seeds; !slices.Equal(got, before) {
		t.Errorf("seeds %v after the restart, want %v", got, before)
	}
}

func TestRestartDoesNotWaitForTheDead(t *testing.T) {
	w := newWorld(t, Config{})
	p := ids(2)
	w.beat(p...)
	w.step(0)
	pool := opened{Update: assignment.Update{
		Cursor: assignment.Cursor{Supernode: w.core.self, Epoch: w.core.epoch, Seq: 1},
		Pool:   &assignment.PoolPage{Pages: 1, Members: w.core.pool.members},
	}}
	w.now = w.now.Add(time.Second)
	for _, tt := range []struct {
		name    string
		answer  bool
		updates []opened
		wait    time.Duration
	}{
		{"no answer", false, nil, restoreWait},
		{"an empty answer", true, nil, 0},
		{"a member of the last pool is dead", true, []opened{pool}, 10 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.t = t
			w.restart(Config{})
			w.core.beat(p[0], heartbeat.Beat{Session: 1, Seq: 9, Seed: true}, w.now)
			if tt.answer {
				w.core.remember(tt.updates)
			}
			if tt.wait > 0 {
				if got := w.step(tt.wait - time.Millisecond); len(got) != 0 {
					t.Fatalf("published %v after %s", got, tt.wait-time.Millisecond)
				}
			}
			w.step(time.Millisecond)
			w.wantPool(p[0])
		})
	}
}

// A supernode whose clock went back, and which has no snapshot, begins behind the
// epoch that its own signature proves, and tells everything anew; nobody else's
// word moves it.
func TestClockWentBack(t *testing.T) {
	w := newWorld(t, Config{})
	p := ids(4)
	w.beat(p...)
	w.report(p[0], content.TaskID{1}, 1)
	w.step(0)
	last, past := w.core.epoch, w.sent
	stranger := newWorld(t, Config{})
	stranger.now = w.now.Add(time.Hour)
	stranger.restart(Config{})
	stranger.beat(p...)
	stranger.step(0)

	w.now = w.now.Add(-10 * time.Minute)
	w.restart(Config{})
	first := w.core.epoch
	w.beat(p...)
	w.report(p[0], content.TaskID{1}, 1)
	w.step(time.Second)
	before := w.assigns[content.TaskID{1}]
	if later := w.core.remember(open(w.core.self, append(slices.Clone(stranger.sent), w.sent[len(past):]...))); later != 0 {
		t.Fatalf("the epoch moves to %d by what nobody, or this life, has signed", later)
	}
	w.step(time.Second)
	if w.core.epoch != first {
		t.Fatalf("epoch %d, was %d", w.core.epoch, first)
	}
	m := w.core.members.byID[p[0]]
	for _, epoch := range []uint64{0, 1, first} {
		if w.core.askable(m, heartbeat.Beat{Seq: 2, Epoch: epoch}, false) {
			t.Errorf("a peer that speaks of epoch %d is asked", epoch)
		}
	}
	if !w.core.askable(m, heartbeat.Beat{Seq: 2, Epoch: last}, false) {
		t.Fatal("a peer that speaks of a later epoch is not asked")
	}
	if later := w.core.remember(open(w.core.self, past)); later != last {
		t.Fatalf("remembered epoch %d, want %d", later, last)
	}
	w.pool, w.assigns = nil, make(map[content.TaskID]assignment.Assign)
	got := w.step(time.Second)
	if len(got) == 0 || got[0].Epoch != last+1 || got[0].Seq != 1 {
		t.Fatalf("published %v, want epoch %d from 1 on", got, last+1)
	}
	w.wantPool(p...)
	if a := w.assigns[content.TaskID{1}]; !slices.Equal(a.Seeds, before.Seeds) {
		t.Errorf("seeds %v, were %v", a.Seeds, before.Seeds)
	}
	if w.core.askable(m, heartbeat.Beat{Seq: 3, Epoch: last}, false) {
		t.Error("a peer that speaks of an epoch that is known is asked")
	}
	if got := w.step(time.Second); len(got) != 0 {
		t.Errorf("published again: %v", got)
	}
}

func floors(updates []assignment.Update) (out []uint64) {
	for _, u := range updates {
		if u.Floor > 0 {
			out = append(out, u.Floor)
		}
	}
	return out
}

func TestFloor(t *testing.T) {
	w := newWorld(t, Config{MaxTasks: 4, Lease: 16 * time.Minute, Beat: time.Hour})
	w.core.log.maxWithdrawn = 20
	p := ids(2)
	w.beat(p...)
	first := content.TaskID{0xff}
	w.report(p[0], first, 1)
	w.step(0)
	if got := floors(w.step(15 * time.Minute)); len(got) != 0 {
		t.Fatalf("floors %v before every task of an earlier life must be known again", got)
	}
	w.step(0) // the renewal of 15 min is in the log now
	assigned := w.core.log.firstAssigned()
	if got := floors(w.step(time.Minute)); !slices.Equal(got, []uint64{assigned}) {
		t.Fatalf("floors %v after a lease, want %d, the oldest live assignment", got, assigned)
	}
	// New tasks push one another out; withdrawals pile up until the first task
	// is gone, or renewed, and a floor takes their place.
	count := 0
	for i := range 60 {
		w.report(p[0], content.TaskID{byte(i)}, 1)
		got := w.step(time.Second)
		for _, f := range floors(got) {
			count++
			for task, a := range w.assigns {
				if seq := w.core.log.byTask[task].entry.seq; a.Lease > 0 && seq < f {
					t.Errorf("floor %d withdraws task %s of update %d", f, task, seq)
				}
			}
		}
	}
	if n := len(w.core.log.withdrawn); count == 0 || n > 20 {
		t.Errorf("%d floors, %d withdrawals kept; want at most 20", count, n)
	}
}
