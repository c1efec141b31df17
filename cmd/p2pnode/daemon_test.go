package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/p2pnode/p2pnode/node"
)

// fakeNode is a runner that does what a test says.
type fakeNode struct {
	info  node.Info
	ready chan struct{}
	run   func(ctx context.Context) error
}

func (f *fakeNode) Run(ctx context.Context) error { return f.run(ctx) }
func (f *fakeNode) Ready() <-chan struct{}        { return f.ready }
func (f *fakeNode) Info() node.Info               { return f.info }

// untilDone is the run of a node that ends as it should.
func untilDone(ctx context.Context) error { <-ctx.Done(); return nil }

// readyNode is a node that is ready at once.
func readyNode(run func(ctx context.Context) error) *fakeNode {
	f := &fakeNode{info: node.Info{Event: "ready", Peer: "me", Proxy: "http://127.0.0.1:1"}, ready: make(chan struct{}), run: run}
	close(f.ready)
	return f
}

// start runs a daemon of n until stdout has its ready line; the function it
// returns ends it and returns the exit code.
func start(t *testing.T, h *harness, command string, n runner) (line string, stop func() int) {
	t.Helper()
	h.newNode = func(node.Config) (runner, error) { return n, nil }
	h.newSupernode = func(node.SupernodeConfig) (runner, error) { return n, nil }
	r, w := io.Pipe()
	h.stdout = w
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() { code <- h.run(ctx, []string{command}); w.Close() }()
	dec := json.NewDecoder(r)
	var raw json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		t.Errorf("no ready line: %v", err)
	}
	return string(raw), func() int { cancel(); return <-code }
}

func TestDaemonReadyLineAndEnd(t *testing.T) {
	for _, command := range []string{"daemon", "supernode"} {
		t.Run(command, func(t *testing.T) {
			h := newHarness()
			line, stop := start(t, h, command, readyNode(untilDone))
			if !strings.Contains(line, `"event":"ready"`) || !strings.Contains(line, `"peer":"me"`) {
				t.Errorf("ready line %s", line)
			}
			if code := stop(); code != exitDone {
				t.Errorf("exit code %d: %s", code, h.errs.String())
			}
		})
	}
}

func TestDaemonFailures(t *testing.T) {
	broken := errors.New("disk on fire")
	for _, c := range []struct {
		name string
		node *fakeNode
		want string
	}{
		{"before ready", &fakeNode{ready: make(chan struct{}), run: func(context.Context) error { return broken }}, "disk on fire"},
		{"after ready", readyNode(func(context.Context) error { return broken }), "disk on fire"},
		{"ends by itself", readyNode(func(context.Context) error { return nil }), "ended by itself"},
		{"stays canceled inside", readyNode(func(context.Context) error { return context.Canceled }), "canceled"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness()
			h.newNode = func(node.Config) (runner, error) { return c.node, nil }
			checkError(t, h, h.run(t.Context(), []string{"daemon"}), exitFailed, c.want)
		})
	}
}

func TestDaemonFailsWhileStopping(t *testing.T) {
	h := newHarness()
	_, stop := start(t, h, "daemon", readyNode(func(ctx context.Context) error {
		<-ctx.Done()
		return errors.New("cannot close the store")
	}))
	if code := stop(); code != exitFailed || !strings.Contains(h.errs.String(), "cannot close the store") {
		t.Errorf("exit code %d: %s", code, h.errs.String())
	}
}

func TestDaemonThatHangsIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness()
		release := make(chan struct{})
		_, stop := start(t, h, "daemon", readyNode(func(context.Context) error { <-release; return nil }))
		began := time.Now()
		if code := stop(); code != exitFailed || !strings.Contains(h.errs.String(), "did not stop within") {
			t.Errorf("exit code %d: %s", code, h.errs.String())
		}
		if took := time.Since(began); took >= 10*time.Second {
			t.Errorf("took %v", took)
		}
		close(release)
	})
}

func TestSystemdIsNotified(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Skipf("no unix datagram sockets: %v", err)
	}
	defer conn.Close()
	h := newHarness()
	h.vars["NOTIFY_SOCKET"] = socket
	var states []string
	_, stop := start(t, h, "daemon", readyNode(func(ctx context.Context) error {
		<-ctx.Done()
		for range 2 {
			buf := make([]byte, 64)
			n, err := conn.Read(buf)
			if err != nil {
				return err
			}
			states = append(states, string(buf[:n]))
		}
		return nil
	}))
	if code := stop(); code != exitDone || !slices.Equal(states, []string{"READY=1", "STOPPING=1"}) {
		t.Errorf("exit code %d, states %q: %s", code, states, h.errs.String())
	}
}

func TestSystemdOutOfReach(t *testing.T) {
	h := newHarness()
	h.vars["NOTIFY_SOCKET"] = filepath.Join(t.TempDir(), "nobody")
	_, stop := start(t, h, "daemon", readyNode(untilDone))
	if code := stop(); code != exitDone || !strings.Contains(h.errs.String(), "cannot notify systemd") {
		t.Errorf("exit code %d: %s", code, h.errs.String())
	}
}

func TestLogFormat(t *testing.T) {
	h := newHarness()
	h.newNode = func(c node.Config) (runner, error) {
		c.Logger.Debug("hidden")
		c.Logger.Error("shown", "peer", "p")
		return nil, errStop
	}
	h.run(t.Context(), []string{"daemon", "--log-format=json", "--log-level=error"})
	first, _, _ := strings.Cut(h.errs.String(), "\n")
	var line map[string]any
	if err := json.Unmarshal([]byte(first), &line); err != nil || line["msg"] != "shown" || line["peer"] != "p" {
		t.Errorf("got %q", h.errs.String())
	}
}
