package plan

import (
	"context"
	"os"
	"path/filepath"

	"github.com/testground/sdk-go/run"

	"github.com/p2pnode/p2pnode/node"
	"github.com/p2pnode/p2pnode/testground/lifeline"
)

// cases are the plan's, by the name that its manifest has.
var cases = map[string]caseFunc{
	"cold-start":       coldStart,
	"fanout":           fanout,
	"latency":          latency,
	"churn":            churn,
	"supernode-outage": supernodeOutage,
	"seed-loss":        seedLoss,
	"edge-sites":       edgeSites,
	"many-tasks":       manyTasks,
}

// Names returns the cases' names, in no order.
func Names() []string {
	out := make([]string, 0, len(cases))
	for name := range cases {
		out = append(out, name)
	}
	return out
}

// Main runs the instance that the environment names, as Testground's runners
// set it. It is a plan's main function.
func Main() {
	lifeline.Hold()
	if os.Getenv("TEST_SIDECAR") != "true" {
		// The SDK would listen on all addresses, for its profiles.
		run.HTTPListenAddr = "none"
	}
	byName := make(map[string]any, len(cases))
	for name, body := range cases {
		byName[name] = invoke(body)
	}
	run.InvokeMap(byName)
}

// IsInstance reports whether the environment is that of an instance.
func IsInstance() bool { return os.Getenv("TEST_RUN") != "" && os.Getenv("TEST_CASE") != "" }

// swarm starts the run: the origin with files and the supernodes at one
// instance, a node with one station at each other. It returns the station, nil
// at the origin, when all know all seeds.
func (w *World) swarm(ctx context.Context, files func(index int) int64) (*Station, error) {
	if err := w.startOrigin(ctx, files); err != nil {
		return nil, err
	}
	if w.Index < 0 {
		return nil, w.Barrier(ctx, "settled")
	}
	s, err := w.NewStation(ctx, w.Index, w.siteOf(w.Index))
	if err != nil {
		return nil, err
	}
	w.closes = append(w.closes, func() { _ = s.Stop() })
	if err := s.Start(ctx); err != nil {
		return nil, err
	}
	if err := s.Settle(ctx, w.seeds()); err != nil {
		return nil, err
	}
	return s, w.Barrier(ctx, "settled")
}

// startOrigin starts the origin and the supernodes where this instance is the
// one for that, and tells the others; there it waits for that.
func (w *World) startOrigin(ctx context.Context, files func(index int) int64) error {
	if w.Index >= 0 {
		said, err := hear[setup](ctx, w, "setup", 1)
		if err == nil {
			w.setup = said[0]
		}
		return err
	}
	l, err := listen(ctx, w.ip)
	if err != nil {
		return err
	}
	w.setup.Origin = "http://" + l.Addr().String()
	w.Origin = startOrigin(w.Link.Listener(l), w.setup.Origin, w.Random, files, w.Fault, w.log)
	w.closes = append(w.closes, w.Origin.Close)
	keys := filepath.Join(w.env.TestTempPath, "swarm")
	if _, err := node.InitSwarm(keys); err != nil {
		return err
	}
	seed, err := node.NewJoinSecret(keys, node.TokenConfig{Role: "seed"})
	if err != nil {
		return err
	}
	w.setup.Join = seed.Secret
	for i := range w.Supernodes {
		s, err := w.newSuper(ctx, i, keys)
		if err != nil {
			return err
		}
		w.closes = append(w.closes, func() { _ = s.stop() })
		if err := s.start(ctx); err != nil {
			return err
		}
		w.Supers = append(w.Supers, s)
		w.setup.Supernodes = append(w.setup.Supernodes, s.info.Addrs[0])
	}
	return tell(ctx, w, "setup", w.setup)
}

// seeds is how many nodes may be seeds.
func (w *World) seeds() int {
	if w.Seeds == 0 {
		return w.Nodes
	}
	return min(w.Seeds, w.Nodes)
}

// file returns a file of the run.
func (w *World) file(index int, size int64) File { return File{w.Random, index, size} }

// files returns count files of the run's size.
func (w *World) files(count int) func(int) int64 {
	return func(index int) int64 {
		if index < 0 || index >= count {
			return 0
		}
		return w.Size
	}
}

// counters are what a node's instance tells the origin's at the end.
type counters struct {
	// Silent is how many sources its nodes gave up because they said nothing for
	// a second, or two where they are not on this machine's links.
	Silent float64 `json:"silent"`
}

// stripe is what one origin request is for at most, of files up to 256 MiB.
const stripe = 1 << 20

// finish ends the reads of a run: nodes tell what they have counted, and the
// origin is held to its bound on what it sent. That is copies of each byte, and
// one stripe more for each source that was silent, since the next in order then
// fetches what that one owed; or as many copies as the parameter says, whatever
// the sources did.
func (w *World) finish(ctx context.Context, copies float64, stations ...*Station) error {
	const topic = "counters"
	if w.Origin == nil {
		var c counters
		for _, s := range stations {
			n, err := metric(ctx, s.admin, "p2pnode_rangeread_client_silent_total")
			if err != nil {
				return err
			}
			c.Silent += n
		}
		w.Metric("silent_sources", c.Silent, "reads")
		return tell(ctx, w, topic, c)
	}
	all, err := hear[counters](ctx, w, topic, w.Nodes)
	if err != nil {
		return err
	}
	silent := 0.0
	for _, c := range all {
		silent += c.Silent
	}
	t := w.Origin.Tally()
	bound := copies*float64(t.Unique) + silent*stripe
	if w.Copies > 0 {
		bound = w.Copies * float64(t.Unique)
	}
	w.Metric("origin_bytes", float64(t.Bytes), "bytes")
	w.Metric("origin_unique_bytes", float64(t.Unique), "bytes")
	w.Metric("origin_requests", float64(t.Requests), "requests")
	w.Metric("origin_max_copies", float64(t.MaxCopies), "copies")
	return w.Check("origin bytes", float64(t.Bytes), bound, "bytes")
}
