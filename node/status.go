package node

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/node/control"
	"github.com/p2pnode/p2pnode/node/host"
	"github.com/p2pnode/p2pnode/seed"
	"github.com/p2pnode/p2pnode/supernode"
)

// Status is what /v1/status shows.
type Status struct {
	Peer    string   `json:"peer"`
	Version string   `json:"version"`
	Addrs   []string `json:"addrs"`
	// Site is where this node stands; SiteFrom says how that is known: "site", it
	// was given, "uplink", the public address behind which peers see it, "lan", its
	// neighbours. SiteMembers counts the members of the pool that stand there.
	Site        string `json:"site,omitempty"`
	SiteFrom    string `json:"site_from,omitempty"`
	SiteMembers int    `json:"site_members"`
	Seed        bool   `json:"seed"`
	Ready       bool   `json:"ready"`
	// Membership says whether this node is in a closed swarm.
	Membership MembershipStatus `json:"membership"`
	// Swarm says how this node is joined to others.
	Peers int       `json:"connected_peers"`
	Pool  []peer.ID `json:"pool"`
	// FilterQuery are the query parameters that are left out of files' names: the
	// supernodes', else the node's own.
	FilterQuery []string         `json:"filter_query"`
	Supernodes  []control.Status `json:"supernodes"`
	// Network says how this node stands in the network and how it is connected to
	// each peer.
	Network host.Network `json:"network"`
	// Sources are the peers that this node has read from lately.
	Sources []SourceStatus `json:"sources"`
	Store   seed.Stats     `json:"store"`
	// Supernode is the embedded one's status.
	Supernode *supernode.Status `json:"supernode,omitempty"`
}

// SourceStatus is a peer as a source of bytes.
type SourceStatus struct {
	Peer peer.ID `json:"peer"`
	// Site is that of a member of the pool; Near says that it is this node's.
	Site string `json:"site,omitempty"`
	Near bool   `json:"near"`
	// Breaker is closed, banned, open, probing or half-open, see locate.PeerHealth;
	// RetryMs is how long an open one stays so, in milliseconds.
	Breaker string `json:"breaker"`
	RetryMs int64  `json:"retry_ms"`
	// FirstByteMs is the moving average of the time to an answer's first byte,
	// in milliseconds; 0 where none was measured.
	FirstByteMs float64 `json:"first_byte_ms"`
	// Failures since the last success.
	Failures int `json:"failures"`
}

// sources returns the peers that were read from, by peer ID.
func (n *Node) sources(now time.Time) []SourceStatus {
	sites := make(map[peer.ID]string)
	for _, m := range n.seeds.Pool() {
		sites[m.ID] = m.Site
	}
	out, here := []SourceStatus{}, n.standsAt().name
	for _, ph := range n.seeds.Peers() {
		s := SourceStatus{
			Peer: ph.Peer, Site: sites[ph.Peer], Breaker: ph.Breaker(now), Failures: ph.Failures,
			FirstByteMs: float64(ph.FirstByte.Microseconds()) / 1000, RetryMs: max(0, ph.OpenUntil.Sub(now).Milliseconds()),
		}
		s.Near = s.Site != "" && s.Site == here
		out = append(out, s)
	}
	return out
}

func (n *Node) status() Status {
	here := n.standsAt()
	s := Status{
		Peer: n.self.String(), Version: n.cfg.Version, Addrs: addrStrings(n.host), Site: here.name, SiteFrom: here.from, Seed: n.cfg.Seed,
		Ready: n.readyError() == nil, Peers: len(n.host.Network().Peers()), Supernodes: n.control.Status(),
		Network: n.host.NetworkStatus(), Sources: n.sources(time.Now()), Store: n.files.Stats(), Pool: []peer.ID{},
		FilterQuery: append([]string{}, n.filters.Current().Query...),
	}
	for _, m := range n.seeds.Pool() {
		s.Pool = append(s.Pool, m.ID)
		if here.name != "" && m.Site == here.name {
			s.SiteMembers++
		}
	}
	if n.embedded != nil {
		st := n.embedded.supernode.Status()
		s.Supernode = &st
	}
	s.Membership = openStatus()
	if n.member != nil {
		s.Membership = n.member.status()
	}
	return s
}

// TaskStatus is one file in /v1/tasks.
type TaskStatus struct {
	Task       string    `json:"task"`
	URL        string    `json:"url"`
	Size       int64     `json:"size"`
	Generation string    `json:"generation"`
	Held       int64     `json:"held"`
	Pinned     int64     `json:"pinned"`
	Role       string    `json:"role"`
	Seeds      []peer.ID `json:"seeds"`
	Created    time.Time `json:"created"`
}

// tasks lists the files of which this node holds something.
func (n *Node) tasks() []TaskStatus {
	out := []TaskStatus{}
	for _, h := range n.files.Files() {
		t := TaskStatus{
			Task: h.Key.Task.String(), URL: h.URL, Size: h.Size, Generation: h.Key.Generation.String(),
			Held: h.Bytes(), Pinned: h.Pinned, Role: "holder", Seeds: []peer.ID{}, Created: h.Created,
		}
		for _, m := range n.seeds.Seeds(nil, h.Key.Task) {
			t.Seeds = append(t.Seeds, m.ID)
		}
		switch {
		case len(t.Seeds) > 0 && t.Seeds[0] == n.self:
			t.Role = "head"
		case slices.Contains(t.Seeds, n.self):
			t.Role = "seed"
		}
		out = append(out, t)
	}
	return out
}

// signersFile keeps the peers that were in a signed pool: what they signed is
// good after a restart, also before a supernode answers.
const signersFile = "signers.json"

func (n *Node) loadSigners() {
	text, err := os.ReadFile(filepath.Join(n.cfg.DataDir, signersFile))
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	var ids []peer.ID
	if err == nil {
		ids, err = readSigners(text)
	}
	if err != nil {
		n.cfg.Logger.Warn("the list of known signers cannot be read, going on without", "err", err)
		return
	}
	n.seeds.AddSigners(ids)
}

// readSigners reads what saveSigners wrote.
func readSigners(text []byte) (ids []peer.ID, err error) {
	if err := json.Unmarshal(text, &ids); err != nil {
		return nil, err
	}
	return ids, nil
}

// keepPools saves the signers and the query filter as soon as new ones are known:
// a node that is killed the next moment trusts and finds what it holds all the same.
func (n *Node) keepPools(ctx context.Context) error {
	saved, filter := len(n.seeds.Signers()), n.filters.Swarm()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.pooled:
		}
		if ids := n.seeds.Signers(); len(ids) != saved {
			if err := n.saveSigners(ids); err != nil {
				n.cfg.Logger.Warn("cannot save the list of known signers", "err", err)
			} else {
				saved = len(ids)
			}
		}
		if names := n.filters.Swarm(); !slices.Equal(names, filter) {
			if err := n.filters.save(n.cfg.DataDir, names); err != nil {
				n.cfg.Logger.Warn("cannot save the swarm's query filter", "err", err)
			} else {
				filter = names
			}
		}
	}
}

func (n *Node) saveSigners(ids []peer.ID) error {
	slices.Sort(ids)
	text, err := json.Marshal(ids)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(n.cfg.DataDir, signersFile), text)
}
