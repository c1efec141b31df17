package seed

import (
	"context"
	"errors"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
)

// TestFillOnly: a peer has us bring in a stripe, and gets no byte of it.
func TestFillOnly(t *testing.T) {
	b := newBench(t, benchURL, 3*mib, nil)
	hosts := p2ptest.Hosts(t, 2)
	server := rangeread.NewServer(rangeread.ServerConfig{Host: hosts[1], Handler: b.Manager})
	client := rangeread.NewClient(rangeread.ClientConfig{Host: hosts[0], Trusted: func(peer.ID) bool { return true }})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{}, 2)
	for _, run := range []func(context.Context) error{server.Run, client.Run} {
		go func() {
			_ = run(ctx)
			ended <- struct{}{}
		}()
	}
	t.Cleanup(func() {
		cancel()
		<-ended
		<-ended
	})
	p2ptest.Connect(t, hosts[0], hosts[1])
	ask := func(r content.Range, noFill bool) (rangeread.Header, rangeread.Status) {
		t.Helper()
		h, err := client.Fill(t.Context(), hosts[1].ID(), rangeread.Request{
			Task: b.task.ID, Range: r, NoFill: noFill, Path: []peer.ID{hosts[0].ID()},
			Origin: &rangeread.Origin{URL: benchURL, Size: -1},
		})
		var answer *rangeread.Error
		if err != nil && !errors.As(err, &answer) {
			t.Fatal(err)
		}
		return h, rangeread.StatusOf(err)
	}
	stripe := content.Range{Off: mib, Len: mib}
	h, status := ask(stripe, false)
	if status != rangeread.StatusOK || h.Source != rangeread.SourceOrigin || h.Size != 3*mib || h.Generation != b.filler.gen {
		t.Errorf("%v, header %+v", status, h)
	}
	b.held(1)
	if h, status := ask(stripe, false); status != rangeread.StatusOK || h.Source != rangeread.SourceStore {
		t.Errorf("held: %v, from %v", status, h.Source)
	}
	if _, status := ask(stripe, true); status != rangeread.StatusOK {
		t.Errorf("asked whether it is held: %v", status)
	}
	for _, c := range []struct {
		r      content.Range
		noFill bool
		want   rangeread.Status
	}{
		{content.Range{Len: mib}, true, rangeread.StatusNotFound},
		{content.Range{Len: mib + 1}, false, rangeread.StatusBadRequest},
		{content.Range{Off: 3 * mib, Len: 1}, false, rangeread.StatusRange},
	} {
		if _, status := ask(c.r, c.noFill); status != c.want {
			t.Errorf("%v, no_fill %t: %v, want %v", c.r, c.noFill, status, c.want)
		}
	}
	b.held(1)
	b.filler.fail(2, &OriginError{Status: 503})
	if _, status := ask(content.Range{Off: 2 * mib, Len: mib}, false); status != rangeread.StatusOriginError {
		t.Errorf("the origin fails: %v", status)
	}
}
