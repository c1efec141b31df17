package read

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed"
	"github.com/p2pnode/p2pnode/seed/origin"
	"github.com/p2pnode/p2pnode/seed/store"
)

// alone is what a node knows that has no peers: it owns everything.
type alone struct{ self peer.ID }

func (a alone) Sources(dst []Source, _ content.TaskID, _ int64, _ bool, _ []peer.ID) []Source {
	return append(dst, Source{Peer: a.self})
}

func (a alone) SiteReader(content.TaskID, int64, bool, []peer.ID) (peer.ID, bool) { return "", false }

func (a alone) Owner(content.TaskID, int64, bool, []peer.ID) (peer.ID, bool) { return a.self, true }
func (alone) Previous(dst []peer.ID, _ content.TaskID, _ int64, _ bool, _ []peer.ID) []peer.ID {
	return dst
}
func (alone) Gateway(content.TaskID, int64, bool, []peer.ID) (peer.ID, bool) { return "", false }
func (alone) MayGrant(peer.ID) bool                                          { return false }
func (alone) StandIn(content.TaskID, int64, bool, []peer.ID) (peer.ID, bool) { return "", false }
func (alone) IsSeed(content.TaskID) bool                                     { return true }
func (alone) Version() (epoch, seq uint64)                                   { return 0, 0 }
func (alone) Success(peer.ID, time.Duration)                                 {}
func (alone) Failure(peer.ID)                                                {}
func (alone) Wrong(peer.ID) bool                                             { return false }
func (alone) Doubtful(peer.ID) bool                                          { return false }
func (alone) Probe(peer.ID) bool                                             { return false }
func (alone) Find(context.Context, content.TaskID) []peer.ID                 { return nil }

func (alone) Met(peer.AddrInfo) {}

func (alone) Neighbours() []peer.ID { return nil }

// node is a seed without a network, and an origin.
type node struct {
	files  *seed.Manager
	origin *p2ptest.Origin
	data   []byte
	task   content.Task
}

func newNode(t *testing.T, size int, limits origin.Limits) *node {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	self, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := origin.NewPolicy([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	client := origin.New(origin.Config{Policy: policy, Limits: limits})
	t.Cleanup(client.CloseIdle)
	n := &node{origin: p2ptest.NewOrigin(t), data: p2ptest.Bytes(1, size)}
	if n.task, err = content.NewTask(n.origin.Add("/file", n.data), content.Filter{}); err != nil {
		t.Fatal(err)
	}
	me := alone{self}
	n.files = seed.New(seed.Config{
		Self: self, Key: key, Store: store.NewMemory(0), Seed: true,
		Filler:     NewFiller(FillerConfig{Self: self, Origin: client, Map: me, Health: me, Providers: me, Seed: true}),
		VerifySeal: func(content.BlockName, content.Seal) error { return nil },
	})
	t.Cleanup(func() { n.files.Close() })
	return n
}

// read reads a range as a client does, and checks its bytes.
func (n *node) read(ctx context.Context, r content.Range) error {
	f, err := n.files.Open(ctx, seed.Request{Task: n.task, Origin: rangeread.Origin{URL: n.task.URL, Size: -1}, Want: r})
	if err != nil {
		return err
	}
	file := NewFile(f)
	defer file.Close()
	var got bytes.Buffer
	_, err = file.Copy(ctx, &got, r)
	if !bytes.Equal(got.Bytes(), n.data[r.Off:][:got.Len()]) {
		return fmt.Errorf("the bytes of %v are wrong", r)
	}
	return err
}

func block(i int64) content.Range {
	return content.Range{Off: i * content.BlockSize, Len: content.BlockSize}
}

// A block that the origin fails costs it four requests a minute (here: a period
// of a second), however many read, and the other blocks are served.
func TestFailingBlock(t *testing.T) {
	for name, fault := range map[string]p2ptest.Fault{
		"status":    {Status: http.StatusInternalServerError},
		"cut":       {CutAfter: 100_000},
		"not asked": {ContentRange: "bytes 0-1048575/6291456"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const bad, period, enough = 3, time.Second, 9 // in the third period
			n := newNode(t, 6*content.BlockSize, origin.Limits{Period: period, RetryDelay: 10 * time.Millisecond})
			if err := n.read(t.Context(), block(0)); err != nil { // what the file is, is known
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var mu sync.Mutex
			var asked []time.Time
			n.origin.SetFault(func(r *http.Request) p2ptest.Fault { // runs in the origin's handlers
				var off int64
				if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &off); n == 0 || off/content.BlockSize != bad {
					return p2ptest.Fault{}
				}
				mu.Lock()
				defer mu.Unlock()
				if asked = append(asked, time.Now()); len(asked) == enough {
					cancel()
				}
				if off > block(bad).Off { // it is asked for the rest
					return p2ptest.Fault{Status: http.StatusBadGateway}
				}
				return fault
			})
			var wg sync.WaitGroup
			var told, reads atomic.Int64
			for range 16 {
				wg.Go(func() {
					tick := time.NewTicker(20 * time.Millisecond)
					defer tick.Stop()
					for ; ctx.Err() == nil; <-tick.C {
						for i := range int64(6) {
							err := n.read(t.Context(), content.Range{Off: block(i).Off, Len: 1000})
							var refused *seed.OriginError
							switch {
							case i != bad && err != nil:
								t.Errorf("block %d: %v", i, err)
							case i == bad && err == nil && fault.CutAfter == 0:
								t.Error("the bad block was served")
							case errors.As(err, &refused) && refused.RetryAfter > 0 && refused.RetryAfter <= period:
								told.Add(1)
							}
							reads.Add(1)
						}
					}
				})
			}
			wg.Wait()
			mu.Lock()
			defer mu.Unlock()
			for i := 4; i < len(asked); i++ {
				if d := asked[i].Sub(asked[i-4]); d < period*9/10 { // the budget began before the request came
					t.Errorf("five requests in %v", d)
				}
			}
			if len(asked) < enough {
				t.Errorf("the bad block was asked for %d times in a minute", len(asked))
			}
			if name != "not asked" && told.Load() == 0 {
				t.Error("no reader was told when to come again")
			}
			if b := n.origin.Bytes("/file"); name == "status" && b != 5*content.BlockSize {
				t.Errorf("the origin sent %d bytes, want the five good blocks once", b)
			}
			t.Logf("%d requests for the bad block, %d reads", len(asked), reads.Load())
		})
	}
}

// A body that breaks is put together by requests that go on where it did, and
// the readers see nothing of it.
func TestBrokenBodyIsResumed(t *testing.T) {
	n := newNode(t, 2*content.BlockSize, origin.Limits{RetryDelay: time.Millisecond})
	n.origin.SetFault(func(*http.Request) p2ptest.Fault { return p2ptest.Fault{CutAfter: 300_000} })
	if err := n.read(t.Context(), block(0)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := n.read(t.Context(), content.Range{Len: int64(len(n.data))}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if b := n.origin.Bytes("/file"); b != int64(len(n.data)) {
		t.Errorf("the origin sent %d bytes of %d", b, len(n.data))
	}
	if r := n.origin.Requests("/file"); r != 8 {
		t.Errorf("%d requests, want four for each block: %+v", r, n.origin.Hits("/file"))
	}
}

// A file that changes while it is read ends the read: no response is a mix.
func TestChangeWhileResuming(t *testing.T) {
	n := newNode(t, content.BlockSize, origin.Limits{RetryDelay: time.Millisecond})
	var once sync.Once
	n.origin.SetFault(func(*http.Request) (f p2ptest.Fault) {
		once.Do(func() {
			f.CutAfter = 300_000
			n.origin.Add("/file", p2ptest.Bytes(2, content.BlockSize)) // for the next request
		})
		return f
	})
	f, err := n.files.Open(t.Context(), seed.Request{
		Task: n.task, Origin: rangeread.Origin{URL: n.task.URL, Size: -1}, Want: block(0),
	})
	if err != nil {
		t.Fatal(err)
	}
	file := NewFile(f)
	defer file.Close()
	var got bytes.Buffer
	if _, err := file.Copy(t.Context(), &got, block(0)); !errors.Is(err, seed.ErrChanged) || !bytes.Equal(got.Bytes(), n.data[:got.Len()]) {
		t.Errorf("got %d bytes, %v; want the first of the old file, and ErrChanged", got.Len(), err)
	}
}

// What readers are told of a failure: the origin's last word, and when it may be
// asked again.
func TestRefusal(t *testing.T) {
	busy := &origin.StatusError{Status: 503, RetryAfter: time.Hour}
	for name, tc := range map[string]struct {
		err    error
		status int
		after  time.Duration
	}{
		"status":                {&origin.StatusError{Status: 404}, 404, 0},
		"server":                {&origin.StatusError{Status: 500}, 500, retryAfter},
		"server that says when": {busy, 503, time.Hour},
		"spent":                 {fmt.Errorf("ask: %w", &origin.BudgetError{RetryAfter: 7, Last: busy}), 503, 7},
		"spent by silence":      {&origin.BudgetError{RetryAfter: 7, Last: origin.ErrUnreachable}, 0, 7},
		"silence":               {origin.ErrUnreachable, 0, retryAfter},
	} {
		if got := refusal(tc.err); got.Status != tc.status || got.RetryAfter != tc.after || got.Detail != tc.err.Error() {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
