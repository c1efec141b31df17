package plan

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/testground/sdk-go/run"
	sdk "github.com/testground/sdk-go/runtime"
	tgsync "github.com/testground/sdk-go/sync"

	"github.com/p2pnode/p2pnode/testground/link"
)

// World is a run as one instance sees it.
type World struct {
	common
	// P has the parameters that the case has of its own.
	P *Params
	// Links is how this instance's link is shaped, Link what shapes it in user
	// space.
	Links Links
	Link  *link.Link
	// Rand depends on the run's seed and on this instance.
	Rand *rand.Rand
	// Nodes is the number of instances that run nodes; Index is this one's from
	// 0 on, or -1 at the origin.
	Nodes, Index int
	// Origin and Supers are at the origin's instance alone; nil elsewhere.
	Origin *Origin
	Supers []*super

	env    *sdk.RunEnv
	ic     *run.InitContext
	ip     string
	rec    *recorder
	log    *slog.Logger
	setup  setup
	closes []func()
	ports  atomic.Int64 // the last one that was tried, of this instance's own
}

// setup is what the origin's instance tells the others.
type setup struct {
	Origin     string   `json:"origin"`
	Supernodes []string `json:"supernodes"`
	// Join is the secret by which nodes become members of the run's swarm.
	Join string `json:"join"`
}

// abort is what a failing instance tells the others.
type abort struct {
	Instance int64  `json:"instance"`
	Reason   string `json:"reason"`
}

// caseFunc is a case: it returns once it has seen all it wants to see. files
// says how many files of which size the origin has.
type caseFunc func(ctx context.Context, w *World) error

// invoke runs a case as the SDK calls it.
func invoke(body caseFunc) run.InitializedTestCaseFn {
	return func(env *sdk.RunEnv, ic *run.InitContext) error {
		p := newParams(env.TestInstanceParams)
		c := readCommon(p)
		if err := p.Err(); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(context.Background(), c.Timeout,
			fmt.Errorf("the run took longer than %s, its parameter timeout", c.Timeout))
		defer cancel()
		ctx, fail := context.WithCancelCause(ctx)
		defer fail(nil)
		w, err := newWorld(ctx, env, ic, c, p)
		if err == nil {
			defer w.close()
			err = w.run(ctx, fail, body)
		}
		ended := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
		if cause := context.Cause(ctx); ended && cause != nil && !errors.Is(err, cause) {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		return err
	}
}

func newWorld(ctx context.Context, env *sdk.RunEnv, ic *run.InitContext, c common, p *Params) (*World, error) {
	if env.TestInstanceCount < 2 {
		return nil, errors.New("a run needs 2 instances or more: one of them is the origin")
	}
	w := &World{
		common: c, P: p, env: env, ic: ic, Nodes: env.TestInstanceCount - 1, Index: int(ic.GlobalSeq) - 2,
		Rand: rand.New(rand.NewPCG(c.Random, uint64(ic.GlobalSeq))),
	}
	w.ports.Store(rand.Int64N(1 << 20)) // not of the run's seed: runs share machines
	var err error
	if w.rec, err = newRecorder(env, ic.GlobalSeq, commitOf(c.Commit)); err != nil {
		return nil, err
	}
	if err := w.openLog(); err != nil {
		return nil, err
	}
	uplink, role := c.Uplink, "node"
	if w.Index < 0 {
		uplink, role = c.OriginUp, "origin"
	}
	if w.Links, w.Link, err = shapeLinks(ctx, env, ic, uplink, c.Latency, c.Loss); err != nil {
		return nil, err
	}
	w.closes = append(w.closes, w.Link.Close)
	if w.Links.NotApplied != "" {
		env.RecordMessage("links: not applied: %s", w.Links.NotApplied)
	}
	ip, err := ic.NetClient.GetDataNetworkIP()
	if err != nil {
		return nil, fmt.Errorf("find the address in the data network: %w", err)
	}
	w.ip = ip.String()
	w.rec.put("run", func(l *Record) {
		l.Run = &RunRecord{Role: role, Params: env.TestInstanceParams, Links: w.Links, Machine: machine()}
	})
	return w, nil
}

// openLog has the nodes' logs written to node.log among the outputs.
func (w *World) openLog() error {
	f, err := os.Create(filepath.Join(w.env.TestOutputsPath, "node.log"))
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	w.closes = append(w.closes, func() { _ = f.Close() })
	var level slog.Level
	if err := level.UnmarshalText([]byte(w.LogLevel)); err != nil {
		return fmt.Errorf("parameter log: %w", err)
	}
	w.log = slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: level}))
	return nil
}

// run runs the case among the others, and tells them of a failure. All end
// together, so that nobody's node goes while others read from it.
func (w *World) run(ctx context.Context, fail context.CancelCauseFunc, body caseFunc) error {
	aborts := tgsync.NewTopic("aborts", &abort{})
	heard := make(chan *abort, 64)
	if _, err := w.ic.SyncClient.Subscribe(context.WithoutCancel(ctx), aborts, heard); err != nil { // see ask
		return fmt.Errorf("listen for aborts: %w", err)
	}
	go func() { // until the process ends
		for a := range heard {
			if a != nil && a.Instance != w.ic.GlobalSeq {
				fail(fmt.Errorf("instance %d has failed: %s", a.Instance, a.Reason))
			}
		}
	}()
	err := body(ctx, w)
	if err == nil {
		err = w.P.Err() // of parameters that the case asked for
	}
	if err == nil {
		err = w.Barrier(ctx, "end")
	}
	if err == nil {
		err = w.rec.failed()
	}
	if err != nil && context.Cause(ctx) == nil {
		// Best effort: the others would else wait until their time is over.
		tell, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = ask(tell, func(ctx context.Context) (int64, error) {
			return w.ic.SyncClient.Publish(ctx, aborts, &abort{w.ic.GlobalSeq, err.Error()})
		})
	}
	return err
}

// close ends what the run has started, last first.
func (w *World) close() {
	for i := len(w.closes) - 1; i >= 0; i-- {
		w.closes[i]()
	}
}

// ask asks the sync service something and waits for the answer, or until ctx ends.
// The request itself goes on then: the SDK's client panics where the answer comes just
// when its context ends ("send on closed channel").
func ask(ctx context.Context, request func(context.Context) (int64, error)) error {
	answered := make(chan error, 1)
	go func() {
		_, err := request(context.WithoutCancel(ctx))
		answered <- err
	}()
	select {
	case err := <-answered:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Barrier waits until every instance is there.
func (w *World) Barrier(ctx context.Context, name string) error {
	return w.barrier(ctx, name, w.env.TestInstanceCount)
}

// NodeBarrier waits until every instance with nodes is there.
func (w *World) NodeBarrier(ctx context.Context, name string) error {
	return w.barrier(ctx, "nodes:"+name, w.Nodes)
}

func (w *World) barrier(ctx context.Context, name string, n int) error {
	if err := w.Signal(ctx, name); err != nil {
		return fmt.Errorf("barrier %s: %w", name, err)
	}
	return w.await(ctx, name, n)
}

// Signal says that this instance has reached a state, Await waits until n have.
func (w *World) Signal(ctx context.Context, name string) error {
	return ask(ctx, func(ctx context.Context) (int64, error) { return w.ic.SyncClient.SignalEntry(ctx, tgsync.State(name)) })
}

// Await waits until n instances have signalled a state.
func (w *World) Await(ctx context.Context, name string, n int) error { return w.await(ctx, name, n) }

func (w *World) await(ctx context.Context, name string, n int) error {
	b, err := w.ic.SyncClient.Barrier(context.WithoutCancel(ctx), tgsync.State(name), n)
	if err != nil {
		return fmt.Errorf("barrier %s: %w", name, err)
	}
	select {
	case err = <-b.C:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("barrier %s of %d: %w", name, n, err)
	}
	return nil
}

// tell publishes a value, and hear returns the n first that were published.
func tell[T any](ctx context.Context, w *World, topic string, v T) error {
	err := ask(ctx, func(ctx context.Context) (int64, error) {
		return w.ic.SyncClient.Publish(ctx, tgsync.NewTopic(topic, &v), &v)
	})
	if err != nil {
		return fmt.Errorf("publish %s: %w", topic, err)
	}
	return nil
}

func hear[T any](ctx context.Context, w *World, topic string, n int) ([]T, error) {
	var zero T
	ch := make(chan *T, n)
	if _, err := w.ic.SyncClient.Subscribe(context.WithoutCancel(ctx), tgsync.NewTopic(topic, &zero), ch); err != nil { // see ask
		return nil, fmt.Errorf("subscribe to %s: %w", topic, err)
	}
	var out []T
	for len(out) < n {
		select {
		case v, ok := <-ch:
			if !ok {
				return nil, fmt.Errorf("%s: the sync service has gone", topic)
			}
			out = append(out, *v)
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %d of %d: %w", topic, len(out), n, context.Cause(ctx))
		}
	}
	return out, nil
}

// Check notes an invariant, and returns an error where got is above bound.
func (w *World) Check(name string, got, bound float64, unit string) error {
	c := CheckRecord{Name: name, Got: got, Bound: bound, Unit: unit, OK: got <= bound}
	w.rec.put("check", func(l *Record) { l.Check = &c })
	if !c.OK {
		return fmt.Errorf("invariant broken: %s is %g %s, at most %g is right", name, got, unit, bound)
	}
	return nil
}

// Metric notes a figure.
func (w *World) Metric(name string, value float64, unit string) { w.rec.metric(name, value, unit) }

// siteOf returns the site of a node.
func (w *World) siteOf(index int) string {
	if w.Sites == 0 {
		return ""
	}
	return "site-" + strconv.Itoa(index%w.Sites)
}

// reads reports whether this instance's node is one of the readers.
func (w *World) reads() bool { return w.Index >= 0 && (w.Readers == 0 || w.Index < w.Readers) }

// readers is how many instances read.
func (w *World) readers() int {
	if w.Readers == 0 {
		return w.Nodes
	}
	return min(w.Readers, w.Nodes)
}
