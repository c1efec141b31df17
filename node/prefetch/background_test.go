package prefetch

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed"
	"github.com/p2pnode/p2pnode/seed/store"
)

// script is an origin of many files with the same bytes. It writes down what it
// is asked for, in order, and answers nothing about a URL that is held.
type script struct {
	*origin
	mu    sync.Mutex
	asked []string
	held  map[string]chan struct{}
}

// Fill implements seed.Filler.
func (s *script) Fill(ctx context.Context, job *seed.Job) error {
	url := job.Origin.URL
	s.mu.Lock()
	s.asked = append(s.asked, fmt.Sprintf("%s@%d", url[len(url)-1:], job.Pos()/mib))
	held := s.held[url]
	s.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return s.origin.Fill(ctx, job)
}

// list returns what was asked of one file, "" for all.
func (s *script) list(file string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.asked), func(a string) bool { return !strings.HasPrefix(a, file) })
}

// stage is a Background with all that is around it.
type stage struct {
	*Background
	t      *testing.T
	script *script
	files  *seed.Manager
}

func newStage(t *testing.T, blocks int, bytesPerSecond int64) *stage {
	t.Helper()
	key, self := p2ptest.Key(t)
	s := &stage{t: t, script: &script{origin: &origin{data: p2ptest.Bytes(3, blocks*mib), etag: `"1"`}, held: map[string]chan struct{}{}}}
	s.files = seed.New(seed.Config{
		Self: self, Key: key, Store: store.NewMemory(64 << 20), Filler: s.script, MaxFlights: 8,
		VerifySeal: func(content.BlockName, content.Seal) error { return nil },
	})
	peers := &seeds{}
	s.Background = NewBackground(New(Config{Self: self, Files: s.files, Map: peers, Peers: peers, Health: peers}), 2, bytesPerSecond, func(context.Context) error { return nil })
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		_ = s.files.Close()
	})
	return s
}

func urlOf(file string) string { return "http://origin.test/" + file }

func (s *stage) task(file string) content.Task {
	task, err := content.NewTask(urlOf(file), content.Filter{})
	if err != nil {
		s.t.Fatal(err)
	}
	return task
}

func (s *stage) add(file string) { s.Add(urlOf(file), s.task(file).ID) }

// hold keeps the origin from answering about a file until the function is called.
func (s *stage) hold(file string) (release func()) {
	held := make(chan struct{})
	s.script.mu.Lock()
	s.script.held[urlOf(file)] = held
	s.script.mu.Unlock()
	return func() { close(held) }
}

// read reads a range as a client does.
func (s *stage) read(file string, want content.Range) error {
	f, err := s.files.Open(s.t.Context(), seed.Request{
		Task: s.task(file), Origin: rangeread.Origin{URL: urlOf(file), Size: -1}, Want: want,
	})
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	holds, err := f.Hold(s.t.Context(), want)
	for i, h := range holds {
		if err == nil {
			_, err = h.ReadAt(s.t.Context(), make([]byte, mib), want.Off+int64(i)*mib)
		}
		h.Release()
	}
	return err
}

func (s *stage) want(file string, asked ...string) {
	s.t.Helper()
	if got := s.script.list(file); !slices.Equal(got, asked) {
		s.t.Errorf("asked for %v, want %v", got, asked)
	}
}

// TestBackgroundGivesWay: while anything that a reader asked for is on its way,
// nothing is begun in the background, and afterwards all of it.
func TestBackgroundGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 3, 0)
		s.script.origin.begun = func() { time.Sleep(time.Millisecond) } // bytes take time, in which readers ask for more
		release := s.hold("a")
		done := make(chan error, 1)
		go func() { done <- s.read("a", content.Range{Len: 2 * mib}) }()
		synctest.Wait()
		s.add("b")
		s.add("a")
		s.add("b")
		time.Sleep(time.Hour)
		s.want("b")
		s.want("", "a@0")
		release()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if all := s.script.list(""); len(all) < 2 || all[1] != "a@1" {
			t.Errorf("the reader's second block was not asked for next: %v", all)
		}
		s.want("b", "b@0", "b@1", "b@2")
		s.want("a", "a@0", "a@1", "a@2")
	})
}

// TestBackgroundKeepsNobodyWaiting: readers read on while the origin is silent
// about what is wanted in the background, with files of other tasks and with the
// same.
func TestBackgroundKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 8, 0)
		release := s.hold("b")
		s.add("b")
		s.add("c")
		synctest.Wait()
		s.want("b", "b@0")
		for range 3 {
			if err := s.read("a", content.Range{Len: 8 * mib}); err != nil {
				t.Fatal(err)
			}
		}
		s.want("b", "b@0")
		release()
		synctest.Wait()
		if n := len(s.script.list("b")); n != 8 {
			t.Errorf("%d requests for the rest, want one a stripe", n)
		}
	})
}

// TestBackgroundRate: what it brings in is bounded in the mean; what is held costs
// nothing.
func TestBackgroundRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 16, mib)
		if err := s.read("a", content.Range{Len: 2 * mib}); err != nil {
			t.Fatal(err)
		}
		s.add("a")
		time.Sleep(5 * time.Second) // and the stripes that it may begin with
		if n := len(s.script.list("a")); n < 2+4+4 || n > 2+4+6 {
			t.Errorf("%d requests after 5 s", n)
		}
		time.Sleep(time.Hour)
		if n := len(s.script.list("a")); n != 16 {
			t.Errorf("%d requests in the end, want one a stripe", n)
		}
	})
}

// TestBackgroundLarge: a file of more than half of the store is not wanted whole;
// more files than can wait are left out.
func TestBackgroundLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 33, 0)
		s.add("a")
		synctest.Wait()
		if n := len(s.script.list("a")); n > 1 {
			t.Errorf("%d requests for a file of more than half of the store", n)
		}
		release := s.hold("b")
		go func() { _ = s.read("b", content.Range{Len: 1}) }()
		synctest.Wait()
		for i := range 2 * maxWaiting {
			s.add(fmt.Sprintf("x%d", i))
		}
		if n := len(s.queue); n > maxWaiting {
			t.Errorf("%d files wait", n)
		}
		s.origin().set(nil, `"1"`, seed.ErrNotSupported) // and now quickly
		release()
		synctest.Wait()
		if n := len(s.known); n != 0 {
			t.Errorf("%d files are known in the end", n)
		}
	})
}

func (s *stage) origin() *origin { return s.script.origin }
