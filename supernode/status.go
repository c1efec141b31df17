package supernode

import (
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
)

// statusTasks bounds the tasks listed in a Status.
const statusTasks = 1000

// Status is a picture of a supernode, for people and scripts.
type Status struct {
	Peer peer.ID `json:"peer"`
	// Epoch is the start in Unix milliseconds, Seq the last update published.
	Epoch uint64 `json:"epoch"`
	Seq   uint64 `json:"seq"`
	// Members are all who beat, oldest first; Pool those who may be seeds, as
	// published.
	Members []MemberStatus `json:"members"`
	Pool    []peer.ID      `json:"pool"`
	// Orders in force, by peer, also of peers that are no members.
	Orders []PeerOrder `json:"orders,omitempty"`
	// TaskCount counts all tasks known; Tasks lists the 1,000 that were
	// reported last, latest first.
	TaskCount int          `json:"task_count"`
	Tasks     []TaskStatus `json:"tasks"`
}

// MemberStatus is one member.
type MemberStatus struct {
	Peer  peer.ID `json:"peer"`
	State State   `json:"state"`
	// AgeMs is the time since the last heartbeat, in milliseconds; -1 before
	// the first.
	AgeMs  int64   `json:"age_ms"`
	Site   string  `json:"site,omitempty"`
	Seed   bool    `json:"seed"`
	Weight float64 `json:"weight"`
	// Capacity of the cache and Duty, what the peer is bound to hold, in bytes.
	Capacity int64 `json:"capacity"`
	Duty     int64 `json:"duty"`
	// Uploads are the bulk answers to peers that ran at the last heartbeat,
	// UploadRate and DownloadRate bytes a second to and from peers.
	Uploads      int   `json:"uploads"`
	UploadRate   int64 `json:"upload_rate"`
	DownloadRate int64 `json:"download_rate"`
	// Order is an operator's, empty where there is none.
	Order   Order    `json:"order,omitempty"`
	Addrs   []string `json:"addrs"`
	Version string   `json:"version,omitempty"`
}

// TaskStatus is one task.
type TaskStatus struct {
	Task content.TaskID `json:"-"`
	ID   string         `json:"id"`
	URL  string         `json:"url"`
	// Size in bytes, -1 where it is not known.
	Size int64 `json:"size"`
	// Seeds are the elected ones, the head first; Replicas is how many demand
	// asks for, and Sites are those that get one of their own.
	Seeds    []peer.ID `json:"seeds"`
	Replicas int       `json:"replicas"`
	Sites    []string  `json:"sites,omitempty"`
	Holders  int       `json:"holders"`
	// Readers are the distinct peers that read it lately.
	Readers int `json:"readers"`
	// LeaseMs is what is left of the assignment, in milliseconds.
	LeaseMs int64 `json:"lease_ms"`
}

// Status returns the present state. It copies under the lock, at most 1,000
// tasks and Config.MaxPeers members.
func (s *Supernode) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core.status(s.cfg.Now())
}

func (c *core) status(now time.Time) Status {
	out := Status{Peer: c.self, Epoch: c.epoch, Seq: c.log.seq, TaskCount: c.tasks.byID.Len(), Orders: c.orders.list(), Members: []MemberStatus{}, Pool: []peer.ID{}, Tasks: []TaskStatus{}}
	for _, m := range c.members.sorted() {
		st := m.status(now)
		st.Duty, st.Order = c.tasks.duty[m.id], c.orders[m.id]
		out.Members = append(out.Members, st)
	}
	for _, m := range c.pool.members {
		out.Pool = append(out.Pool, m.ID)
	}
	all := c.tasks.byID.Values() // oldest first
	for i := len(all) - 1; i >= 0 && len(out.Tasks) < statusTasks; i-- {
		t := all[i]
		out.Tasks = append(out.Tasks, c.tasks.status(t, now))
	}
	return out
}

func (t *tasks) status(of *task, now time.Time) TaskStatus {
	out := TaskStatus{
		Task: of.id, ID: of.id.String(), URL: of.url, Size: of.size, Seeds: slices.Clone(of.published.Seeds), Holders: len(of.holders),
		Replicas: max(of.wish.Replicas, t.policy.Replicas), Sites: slices.Sorted(maps.Keys(of.wish.Sites)),
		LeaseMs: max(0, of.leaseEnd.Sub(now).Milliseconds()),
	}
	if of.flow != nil {
		out.Readers = of.flow.demand(now, t.width, func(uint64) string { return "" }).Readers
	}
	return out
}

func (m *member) status(now time.Time) MemberStatus {
	out := MemberStatus{
		Peer: m.id, State: m.state, AgeMs: -1, Site: m.beat.Site, Seed: m.beat.Seed,
		Weight: m.weight, Capacity: m.beat.Capacity, Version: m.beat.Version, Addrs: []string{},
		Uploads: m.beat.Load.Uploads, UploadRate: m.beat.Load.UploadRate, DownloadRate: m.beat.Load.DownloadRate,
	}
	if !m.beaten.IsZero() {
		out.AgeMs = now.Sub(m.beaten).Milliseconds()
	}
	for _, a := range m.beat.Addrs {
		out.Addrs = append(out.Addrs, a.String())
	}
	return out
}
