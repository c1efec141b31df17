package plan

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/p2pnode/p2pnode/node"
	"github.com/p2pnode/p2pnode/testground/link"
)

// startWithin bounds the start of a node or a supernode.
const startWithin = 60 * time.Second

// stopWithin bounds the end of a node or a supernode.
const stopWithin = 20 * time.Second

// errHung: what was told to end has not.
var errHung = fmt.Errorf("it has not ended within %s", stopWithin)

// Station is a node of this process, with its data directory and its port: it
// can be stopped and started again.
type Station struct {
	w      *World
	name   string
	number int // of the node in the run
	site   string
	seed   bool
	link   *link.Link
	dir    string
	listen []string

	run    *running
	proxy  string
	admin  string
	client *http.Client
}

// NewStation returns a node that is not started. number is that of the node
// among all of the run.
func (w *World) NewStation(ctx context.Context, number int, site string) (*Station, error) {
	s := &Station{
		w: w, name: "node-" + strconv.Itoa(number), number: number, site: site, link: w.Link,
		seed: w.Seeds == 0 || number < w.Seeds,
	}
	s.dir = filepath.Join(w.env.TestTempPath, s.name)
	port, err := w.freePort(ctx)
	if err != nil {
		return nil, err
	}
	s.listen = []string{fmt.Sprintf("/ip4/%s/tcp/%s", w.ip, port)}
	if w.Links.By == "kernel" {
		// In user space the link is one of TCP alone.
		s.listen = append(s.listen, fmt.Sprintf("/ip4/%s/udp/%s/quic-v1", w.ip, port))
	}
	return s, nil
}

// Start runs the node and returns once it is ready. others are further peers to
// join through.
func (s *Station) Start(ctx context.Context, others ...string) error {
	n, err := node.New(node.Config{
		DataDir: s.dir, Join: s.w.setup.Join, Listen: s.listen, Supernodes: s.w.setup.Supernodes, Bootstrap: others,
		Proxy: "127.0.0.1:0", Admin: "127.0.0.1:0", Site: s.site, Seed: s.seed, CacheSize: s.w.Cache,
		OriginAllow: []string{s.w.originHost()}, Beat: s.w.Beat, Replicas: s.w.Replicas, OriginFallback: true,
		HostOptions: []libp2p.Option{s.link.Option()}, Logger: s.w.log.With("node", s.number),
	})
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	for _, a := range s.listen {
		if m, err := multiaddr.NewMultiaddr(a); err == nil {
			if tcp, err := manet.ToNetAddr(m); err == nil {
				s.link.Own(tcp.String())
			}
		}
	}
	s.proxy, s.admin = n.Info().Proxy, n.Info().Admin
	proxy, err := url.Parse(s.proxy)
	if err != nil {
		return err
	}
	s.client = &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxy), DisableCompression: true}}
	s.run = start(n.Run)
	return s.run.await(ctx, s.name, n.Ready())
}

// Stop ends the node in the regular way. It may be stopped already.
func (s *Station) Stop() error {
	if s.run == nil {
		return nil
	}
	err := s.run.stop()
	if errors.Is(err, errHung) {
		s.w.Metric("hung_stops", 1, "nodes")
		s.w.env.RecordMessage("%s has not ended within %s", s.name, stopWithin)
	}
	s.run = nil
	s.client.CloseIdleConnections()
	return err
}

// Deaths are the ways in which a node goes.
var Deaths = []string{"goodbye", "reset", "silent"}

// Die ends the node: with a goodbye; by reset, with all connections ended at
// once, as the kernel does for a killed process; or silent, as a machine
// without power, whose connections stay open with nobody there. Other nodes on
// the same link share the fate of their connections.
func (s *Station) Die(how string) {
	switch how {
	case "reset":
		s.link.Cut()
		s.link.Reset()
	case "silent":
		s.link.Cut()
	}
	_ = s.Stop() // what it could not say any more is part of dying
}

// Revive starts the node again, on its data.
func (s *Station) Revive(ctx context.Context) error {
	s.link.Reset()
	s.link.Restore()
	return s.Start(ctx)
}

// status is what cases look at of a node's status.
type status struct {
	Peer       string   `json:"peer"`
	Pool       []string `json:"pool"`
	Supernodes []struct {
		Epoch uint64 `json:"epoch"`
	} `json:"supernodes"`
	Store struct {
		Used     int64 `json:"used_bytes"`
		Capacity int64 `json:"capacity_bytes"`
	} `json:"store"`
}

// Status asks the node's admin API.
func (s *Station) Status(ctx context.Context) (out status, err error) {
	return out, s.get(ctx, "/v1/status", &out)
}

// task is what cases look at of a file that a node holds.
type task struct {
	URL   string   `json:"url"`
	Held  int64    `json:"held"`
	Seeds []string `json:"seeds"`
}

// Tasks asks the node's admin API for its files.
func (s *Station) Tasks(ctx context.Context) (out []task, err error) {
	return out, s.get(ctx, "/v1/tasks", &out)
}

func (s *Station) get(ctx context.Context, path string, into any) error {
	return getJSON(ctx, s.admin+path, into)
}

func getJSON(ctx context.Context, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// Settle waits until the node knows all seeds.
func (s *Station) Settle(ctx context.Context, seeds int) error {
	return until(ctx, s.w.PoolLimit, func() (string, bool) {
		st, err := s.Status(ctx)
		if err != nil {
			return err.Error(), false
		}
		return fmt.Sprintf("%s knows %d of %d seeds", s.name, len(st.Pool), seeds), len(st.Pool) == seeds
	})
}

// until asks a condition until it holds.
func until(ctx context.Context, limit time.Duration, cond func() (string, bool)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %s", limit))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		what, ok := cond()
		if ok {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		}
	}
}

// super is a supernode of this process.
type super struct {
	w     *World
	dir   string
	addr  string
	join  string
	run   *running
	admin string
	info  node.Info
}

// newSuper returns a supernode that is not started; keys is the swarm's
// directory.
func (w *World) newSuper(ctx context.Context, i int, keys string) (*super, error) {
	port, err := w.freePort(ctx)
	if err != nil {
		return nil, err
	}
	s := &super{w: w, dir: filepath.Join(w.env.TestTempPath, "supernode-"+strconv.Itoa(i)), addr: fmt.Sprintf("/ip4/%s/tcp/%s", w.ip, port)}
	id, err := node.PeerID(s.dir)
	if err != nil {
		return nil, err
	}
	secret, err := node.NewJoinSecret(keys, node.TokenConfig{Role: "supernode", Peer: id.String()})
	s.join = secret.Secret
	return s, err
}

// start runs the supernode.
func (s *super) start(ctx context.Context) error {
	n, err := node.NewSupernode(node.SupernodeConfig{
		DataDir: s.dir, Join: s.join, Listen: []string{s.addr}, Admin: "127.0.0.1:0", Replicas: s.w.Replicas, Beat: s.w.Beat,
		Logger: s.w.log.With("supernode", s.addr),
	})
	if err != nil {
		return fmt.Errorf("supernode: %w", err)
	}
	s.info, s.admin = n.Info(), n.Info().Admin
	s.run = start(n.Run)
	return s.run.await(ctx, "supernode", n.Ready())
}

func (s *super) stop() error {
	if s.run == nil {
		return nil
	}
	err := s.run.stop()
	s.run = nil
	return err
}

// messages sums what a supernode got: heartbeats, and everything else.
func (s *super) messages(ctx context.Context) (beats, others float64, err error) {
	for _, m := range []struct {
		name string
		to   *float64
	}{
		{"p2pnode_supernode_beats_total", &beats}, {"p2pnode_supernode_reports_total", &others}, {"p2pnode_supernode_fetches_total", &others},
	} {
		v, err := metric(ctx, s.admin, m.name)
		if err != nil {
			return 0, 0, err
		}
		*m.to += v
	}
	return beats, others, nil
}

// metric sums a metric's samples.
func metric(ctx context.Context, admin, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, admin+"/metrics", http.NoBody)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	var sum float64
	for line := range strings.SplitSeq(string(text), "\n") {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("metric %s: %w", name, err)
		}
		sum += v
	}
	return sum, nil
}

// running is something that runs until it is stopped.
type running struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error // once done is closed
}

func start(run func(context.Context) error) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{cancel: cancel, done: make(chan struct{})}
	go func() { defer close(r.done); r.err = run(ctx) }()
	return r
}

// await waits until ready.
func (r *running) await(ctx context.Context, name string, ready <-chan struct{}) error {
	timer := time.NewTimer(startWithin)
	defer timer.Stop()
	select {
	case <-ready:
		return nil
	case <-r.done:
		return fmt.Errorf("%s ended at its start: %w", name, r.err)
	case <-timer.C:
		return fmt.Errorf("%s was not ready within %s", name, startWithin)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stop ends it and returns its error, or errHung.
func (r *running) stop() error {
	r.cancel()
	timer := time.NewTimer(stopWithin)
	defer timer.Stop()
	select {
	case <-r.done:
		return r.err
	case <-timer.C:
		return errHung
	}
}

// freePort returns a port on which nobody listens, below those that systems
// give to outgoing connections: it stays free while its owner is dead. Each
// instance has ports of its own, and gives none twice.
func (w *World) freePort(ctx context.Context) (string, error) {
	const first, end = 15_000, 32_000
	own := int64((end - first) / (w.Nodes + 1))
	var last error
	for range own {
		port := strconv.FormatInt(first+int64(w.Index+1)*own+w.ports.Add(1)%own, 10)
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(w.ip, port))
		if err != nil {
			last = err
			continue
		}
		return port, l.Close()
	}
	return "", fmt.Errorf("no free port: %w", last)
}

// originHost is the origin's host in its URL.
func (w *World) originHost() string {
	u, err := url.Parse(w.setup.Origin)
	if err != nil {
		return ""
	}
	return u.Hostname()
}
