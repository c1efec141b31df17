package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"golang.org/x/sync/errgroup"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/node/control"
	"github.com/p2pnode/p2pnode/node/host"
	"github.com/p2pnode/p2pnode/node/locate"
	"github.com/p2pnode/p2pnode/node/read"
	"github.com/p2pnode/p2pnode/protocols/assignment"
	"github.com/p2pnode/p2pnode/protocols/heartbeat"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/protocols/report"
	"github.com/p2pnode/p2pnode/seed"
	"github.com/p2pnode/p2pnode/seed/origin"
	"github.com/p2pnode/p2pnode/seed/store"
	"github.com/p2pnode/p2pnode/supernode"
)

// boss is a supernode on a machine; nil while it is dead.
type boss struct {
	*supernode.Supernode
	host *host.Host
	run  *running
}

// newBoss starts a supernode.
func (m *machine) newBoss(cfg supernode.Config) *boss {
	m.w.t.Helper()
	b := &boss{host: m.newHost(nil, true)}
	cfg.Host, cfg.PubSub, cfg.Key, cfg.Logger = b.host, b.host.PubSub, m.key, quiet()
	var err error
	if b.Supernode, err = supernode.New(cfg); err != nil {
		m.w.t.Fatal(err)
	}
	b.run = start(func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return b.host.Run(ctx, nil) })
		g.Go(func() error { return b.Supernode.Run(ctx) })
		return g.Wait()
	})
	return b
}

func (b *boss) stop() error { return errors.Join(b.run.stop(), b.host.Close()) }

// stationConfig says what a station is.
type stationConfig struct {
	supernodes []peer.AddrInfo
	bootstrap  []peer.AddrInfo
	site       string
	// store keeps the blocks, also from one life of a machine to the next.
	store *store.Memory
	// origin is where all URLs lead; nil for a station that only does the
	// control plane, and is a client of the DHT: servers of it connect each to
	// some hundred others.
	origin *memoryOrigin
	// fallback is the node's --origin-fallback.
	fallback bool
	// applied, where set, hears of each update that reaches the station's map.
	applied func(assignment.Update)
	// signers are those of an earlier life, which a node keeps on its disk.
	signers []peer.ID
}

// station is a node without its faces: the parts that package node puts
// together, put together in the same way, on a simulated network, a store in
// memory and an origin in memory.
type station struct {
	cfg     stationConfig
	id      peer.ID
	host    *host.Host
	seeds   *locate.Map
	control *control.Control
	run     *running

	providers *locate.Providers
	named     atomic.Int64 // peers that the DHT named to readers
	client    *rangeread.Client
	origin    *origin.Client
	filler    *read.Filler
	files     *seed.Manager
	server    *rangeread.Server
}

// newStation starts a node.
func (m *machine) newStation(cfg stationConfig) *station {
	m.w.t.Helper()
	s := &station{cfg: cfg, id: m.id, host: m.newHost(append(cfg.supernodes, cfg.bootstrap...), cfg.origin != nil)}
	var ids []peer.ID
	for _, info := range cfg.supernodes {
		ids = append(ids, info.ID)
		s.host.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.PermanentAddrTTL)
	}
	s.seeds = locate.New(locate.Config{Self: m.id, SelfSeed: true, Site: cfg.site, Supernodes: ids})
	s.seeds.AddSigners(cfg.signers)
	parts := []func(context.Context) error{func(ctx context.Context) error {
		return s.host.Run(ctx, s.wanted)
	}}
	if cfg.origin != nil {
		parts = append(parts, s.wire(m)...)
	}
	var err error
	if s.control, err = control.New(control.Config{
		Host: s.host, PubSub: s.host.PubSub, Supernodes: cfg.supernodes, Beat: s.beat, Map: seedMap{s},
		AllHeld: s.held, Logger: quiet(),
	}); err != nil {
		m.w.t.Fatal(err)
	}
	parts = append(parts, s.control.Run)
	s.run = start(func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		for _, part := range parts {
			g.Go(func() error { return part(ctx) })
		}
		return g.Wait()
	})
	return s
}

// wire makes the data path, as node.Node does, and returns what runs of it.
func (s *station) wire(m *machine) []func(context.Context) error {
	s.providers = locate.NewProviders(locate.ProvidersConfig{Router: s.host.DHT, Self: s.id, Logger: quiet()})
	s.client = rangeread.NewClient(rangeread.ClientConfig{Host: s.host, Trusted: s.seeds.TrustedSigner})
	s.origin = origin.New(origin.Config{Dial: s.cfg.origin.dial(m.id)})
	s.filler = read.NewFiller(read.FillerConfig{
		Self: s.id, Client: s.client, Origin: s.origin, Map: sources{s.seeds}, Health: s.seeds,
		Providers: found{s}, Seed: true, Fallback: s.cfg.fallback,
	})
	s.files = seed.New(seed.Config{
		Self: s.id, Key: m.key, Store: s.cfg.store, Filler: s.filler, VerifySeal: s.client.VerifySeal, Seed: true,
		Changed: s.changed, Reach: s.reach, Far: s.seeds.Far,
	})
	s.server = rangeread.NewServer(rangeread.ServerConfig{Host: s.host, Handler: served{s.files, s}, Logger: quiet()})
	for _, h := range s.files.Current() {
		s.provide(h)
	}
	return []func(context.Context) error{s.server.Run, s.client.Run, s.filler.Run, s.providers.Run}
}

// reach says where a peer is that is connected.
func (s *station) reach(p peer.ID) (peer.AddrInfo, bool) {
	return peer.AddrInfo{ID: p, Addrs: s.host.Peerstore().Addrs(p)}, s.host.Network().Connectedness(p) == network.Connected
}

// stop ends the node in the regular way: it says goodbye, unless its packets
// are lost already.
func (s *station) stop() error {
	err := s.run.stop()
	if s.files != nil {
		err = errors.Join(err, s.files.Close())
		s.origin.CloseIdle()
	}
	return errors.Join(err, s.host.Close())
}

func (s *station) beat() heartbeat.Beat {
	b := heartbeat.Beat{Addrs: s.host.Addrs(), Site: s.cfg.site, Seed: true, Version: "v1.2.3", Capacity: 10 << 30, Free: 5 << 30}
	if s.cfg.store != nil {
		b.Capacity, b.Free = s.cfg.store.Capacity(), s.cfg.store.Free()
	}
	return b
}

func (s *station) changed(h seed.Held) {
	if h.Blocks == 0 {
		s.control.Dropped(h.Key.Task)
		s.providers.Remove(h.Key.Task, locate.Duty|locate.Whole)
		return
	}
	s.control.Report(heldReport(h))
	s.provide(h)
}

func (s *station) provide(h seed.Held) {
	if s.seeds.IsSeed(h.Key.Task) {
		s.providers.Add(h.Key.Task, locate.Duty)
	}
	if h.Blocks == h.Layout().Blocks() {
		s.providers.Add(h.Key.Task, locate.Whole)
	} else {
		s.providers.Remove(h.Key.Task, locate.Whole)
	}
}

func (s *station) held() []report.Held {
	if s.files == nil {
		return nil
	}
	var out []report.Held
	for _, h := range s.files.Current() {
		out = append(out, heldReport(h))
	}
	return out
}

func heldReport(h seed.Held) report.Held {
	return report.Held{
		Task: h.Key.Task, URL: h.URL, Generation: h.Key.Generation, Size: h.Size, Sequential: h.Sequential,
		Present: h.Present,
	}
}

// neighbours is how many peers of the pool a node keeps connections to.
const neighbours = 4

func (s *station) wanted() []peer.AddrInfo {
	pool := s.seeds.Pool()
	members := make([]content.Member, 0, len(pool))
	infos := make(map[peer.ID]peer.AddrInfo, len(pool))
	for _, p := range pool {
		if p.ID != s.id {
			members = append(members, content.Member{ID: p.ID, Weight: p.Weight})
			infos[p.ID] = peer.AddrInfo{ID: p.ID, Addrs: p.Addrs}
		}
	}
	ranked := content.Rank(nil, []byte(s.id), members)
	var out []peer.AddrInfo
	for _, p := range ranked[:min(len(ranked), neighbours)] {
		out = append(out, infos[p.ID])
	}
	return out
}

// read reads [off, off+n) of a URL as a client of the node would, within 30 s,
// and returns how many bytes came from the node itself, peers and the origin.
func (s *station) read(ctx context.Context, w io.Writer, url string, off, n int64) (from [3]int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	task, err := content.NewTask(url, content.Filter{})
	if err != nil {
		return from, err
	}
	want := content.Range{Off: off, Len: n}
	f, err := s.files.Open(ctx, seed.Request{Task: task, Origin: rangeread.Origin{URL: url, Size: -1}, Want: want})
	if err != nil {
		return from, fmt.Errorf("open: %w", err)
	}
	file := read.NewFile(f)
	defer func() { _ = file.Close() }()
	_, err = file.Copy(ctx, w, want)
	from[0], from[1], from[2] = file.Tally()
	return from, err
}

// seedMap is the map that control feeds; see package node.
type seedMap struct{ s *station }

func (m seedMap) Apply(signed assignment.Signed, u assignment.Update) {
	m.s.seeds.Apply(signed, u)
	if m.s.cfg.applied != nil {
		m.s.cfg.applied(u)
	}
	for _, a := range u.Assigns {
		switch {
		case m.s.providers == nil:
		case m.s.seeds.IsSeed(a.Task):
			m.s.providers.Add(a.Task, locate.Duty)
		default:
			m.s.providers.Remove(a.Task, locate.Duty)
		}
	}
	if u.Pool == nil {
		return
	}
	for _, p := range u.Pool.Members {
		if p.ID != m.s.id {
			m.s.host.Peerstore().AddAddrs(p.ID, p.Addrs, peerstore.PermanentAddrTTL)
		}
	}
}

func (m seedMap) Agree(c assignment.Cursor, hash [32]byte) bool { return m.s.seeds.Agree(c, hash) }
func (m seedMap) Cursors() []assignment.Cursor                  { return m.s.seeds.Cursors() }
func (m seedMap) Confirm(id peer.ID)                            { m.s.seeds.Confirm(id) }
func (m seedMap) Pool() []assignment.Member                     { return m.s.seeds.Pool() }
func (m seedMap) Since(c []assignment.Cursor, want *content.Prefixes, n int) ([]assignment.Signed, bool) {
	return m.s.seeds.Since(c, want, n)
}
func (m seedMap) Follows() *content.Prefixes         { return m.s.seeds.Follows() }
func (m seedMap) Follow(over bool) *content.Prefixes { return m.s.seeds.Follow(over) }
func (m seedMap) Reconsider() <-chan struct{}        { return m.s.seeds.Reconsider() }
func (m seedMap) Use(task content.TaskID)            { m.s.seeds.Use(task) }
func (m seedMap) Shards() []int                      { return m.s.seeds.Shards() }

// served counts as demand what other peers get.
type served struct {
	rangeread.Handler
	s *station
}

func (h served) Serve(ctx context.Context, from peer.ID, req rangeread.Request, a *rangeread.Answer) error {
	err := h.Handler.Serve(ctx, from, req, a)
	if n := a.Sent(); n > 0 {
		h.s.control.Served(req.Task, from, n)
	}
	return err
}

// sources is the map that readers see.
type sources struct{ *locate.Map }

func (s sources) Sources(dst []read.Source, task content.TaskID, stripe int64, sequential bool, skip []peer.ID) []read.Source {
	for _, src := range s.Map.Sources(nil, task, stripe, sequential, skip) {
		dst = append(dst, read.Source{Peer: src.Peer, Held: src.Kind == locate.SiteSeed})
	}
	return dst
}

// Met implements read.Providers.
func (p found) Met(info peer.AddrInfo) {
	p.s.host.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.TempAddrTTL)
}

// found makes reachable whom the DHT names.
type found struct{ s *station }

// Neighbours implements read.Providers.
func (p found) Neighbours() []peer.ID {
	return slices.DeleteFunc(p.s.seeds.AtSite(nil), func(id peer.ID) bool {
		return p.s.host.Network().Connectedness(id) != network.Connected
	})
}

func (p found) Find(ctx context.Context, task content.TaskID) []peer.ID {
	var out []peer.ID
	for _, info := range p.s.providers.Find(ctx, task) {
		p.s.host.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.TempAddrTTL)
		out = append(out, info.ID)
	}
	p.s.seeds.Prefer(out)
	p.s.named.Add(int64(len(out)))
	return out
}
