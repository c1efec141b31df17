package seed

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed/store"
)

// TestGrantClocks: a grant of the longest life counts also where the clock of who
// serves is behind that of who signed, by up to a minute; one that has expired, or
// would last for longer, never does.
func TestGrantClocks(t *testing.T) {
	key, self := p2ptest.Key(t)
	_, reader := p2ptest.Key(t)
	now := time.Unix(1_800_000_000, 0)
	m := New(Config{
		Self: self, Key: key, Store: store.NewMemory(1 << 20), Filler: &metaFiller{}, GrantLife: MaxGrantLife,
		VerifySeal: func(content.BlockName, content.Seal) error { return nil },
		MayGrant:   func(p peer.ID) bool { return p == self },
		Now:        func() time.Time { return now },
	})
	t.Cleanup(func() { _ = m.Close() })
	task, err := content.NewTask("http://origin.test/file", content.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for left, want := range map[time.Duration]bool{
		-time.Second: false, 0: false, time.Second: true, time.Hour: true, time.Hour + time.Second: true, time.Hour + time.Minute: true,
		time.Hour + time.Minute + time.Second: false, 24 * time.Hour: false,
	} {
		grant, err := m.grantTo(reader, task.ID, &permit{upstream: "http://origin.test", expires: now.Add(left)})
		if err != nil {
			t.Fatal(err)
		}
		if got := m.permitted(reader, rangeread.Request{Task: task.ID, Grant: grant}); (got != nil) != want {
			t.Errorf("a grant that expires %s from now: %v, want %v", left, got != nil, want)
		}
	}
}

// TestDigestTermsOfAnotherUpstream: what one upstream says of how its answer may
// be used does not change what another said of the same digest.
func TestDigestTermsOfAnotherUpstream(t *testing.T) {
	filler := &metaFiller{}
	key, self := p2ptest.Key(t)
	now := time.Unix(1_800_000_000, 0)
	m := New(Config{
		Self: self, Key: key, Store: store.NewMemory(1 << 20), Filler: filler,
		VerifySeal: func(content.BlockName, content.Seal) error { return nil },
		Now:        func() time.Time { return now },
	})
	t.Cleanup(func() { _ = m.Close() })
	filler.answer(`"1"`, "max-age=600", nil)
	terms := func(host string, d Demand) string {
		t.Helper()
		task, err := content.NewTask(strings.Replace(digestURL([]byte("x")), "origin.test", host, 1), content.Filter{})
		if err != nil || task.Digest == "" {
			t.Fatalf("%+v, %v", task, err)
		}
		f, err := m.Open(t.Context(), Request{Task: task, Origin: rangeread.Origin{URL: task.URL, Size: -1}, Demand: d})
		if err == nil {
			defer func() { _ = f.Close() }()
		}
		held := m.held(task, content.Generation{})
		if held == nil {
			t.Fatal(err)
		}
		return held.terms.Load().cacheControl
	}
	if got := terms("one.test", Demand{}); got != "max-age=600" {
		t.Errorf("the first upstream's: %q", got)
	}
	now = now.Add(time.Minute)
	filler.answer(`"1"`, "no-transform, max-age=1", nil)
	if got := terms("two.test", Demand{Since: now}); got != "max-age=600" {
		t.Errorf("after another upstream's answer: %q", got)
	}
	now = now.Add(time.Minute)
	if got := terms("one.test", Demand{Since: now}); got != "no-transform, max-age=1" {
		t.Errorf("after its own: %q", got)
	}
	if n := filler.calls.Load(); n != 3 {
		t.Errorf("asked %d times", n)
	}
}

// failing is an Authorizer whose origin can be made to fail.
type failing struct {
	verdict Verdict
	err     error
}

func (f *failing) AskOrigin(context.Context, content.Task, rangeread.Origin) (Verdict, error) {
	return f.verdict, f.err
}

func (f *failing) AskSeed(context.Context, content.Task, rangeread.Origin) (Verdict, bool, error) {
	return Verdict{}, true, nil
}

// TestGraceEnds: who was let in is let in again for so long after that as the rule
// says, and no longer; nor is who was refused, by an origin that answers.
func TestGraceEnds(t *testing.T) {
	key, self := p2ptest.Key(t)
	now := time.Unix(1_800_000_000, 0)
	auth := &failing{verdict: Verdict{Private: true}}
	m := New(Config{
		Self: self, Key: key, Store: store.NewMemory(1 << 20), Filler: &metaFiller{}, GrantLife: time.Minute, Authorizer: auth,
		VerifySeal: func(content.BlockName, content.Seal) error { return nil },
		Grace:      func(content.Task) (time.Duration, bool) { return 10 * time.Minute, false },
		Now:        func() time.Time { return now },
	})
	t.Cleanup(func() { _ = m.Close() })
	task, err := content.NewTask("http://origin.test/file", content.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	start := now
	judge := func(credential string) (*permit, error) {
		p, _, err := m.judge(t.Context(), query{task: task, origin: rangeread.Origin{URL: task.URL, Header: []rangeread.Field{{Name: "Authorization", Value: credential}}}})
		return p, err
	}
	if p, err := judge("good"); err != nil || p == nil {
		t.Fatalf("the origin says yes: %+v, %v", p, err)
	}
	down := &OriginError{Status: 503}
	auth.err = down
	for after, want := range map[time.Duration]time.Duration{time.Minute: time.Minute, 5 * time.Minute: time.Minute, 599 * time.Second: time.Second} {
		now = start.Add(after)
		if p, err := judge("good"); err != nil || p == nil || p.expires.Sub(now) != want {
			t.Errorf("%s after it was let in: %+v, %v; want a permit of %s", after, p, err, want)
		}
		if p, err := judge("other"); !errors.Is(err, down) {
			t.Errorf("another, %s after: %+v, %v", after, p, err)
		}
	}
	now = start.Add(10 * time.Minute)
	if p, err := judge("good"); !errors.Is(err, down) {
		t.Errorf("at the end: %+v, %v", p, err)
	}
	now, auth.err = start.Add(5*time.Minute), &OriginError{Status: 401}
	if p, err := judge("good"); err == nil {
		t.Errorf("refused: %+v", p)
	}
	auth.err = down
	if p, err := judge("good"); err == nil {
		t.Errorf("refused a moment ago: %+v", p)
	}
}
