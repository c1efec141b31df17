package node_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node"
	"github.com/p2pnode/p2pnode/protocols/membership"
)

// closedSwarm is a swarm key with a running supernode.
type closedSwarm struct {
	t         *testing.T
	dir       string
	supernode string
	id        string
	admin     string
	superDir  string
	super     *node.SupernodeNode
	stop      func() // the supernode
}

func newClosedSwarm(t *testing.T) *closedSwarm {
	t.Helper()
	s := &closedSwarm{t: t, dir: t.TempDir(), superDir: t.TempDir()}
	if _, err := node.InitSwarm(s.dir); err != nil {
		t.Fatal(err)
	}
	id, err := node.PeerID(s.superDir)
	if err != nil {
		t.Fatal(err)
	}
	s.id = id.String()
	n, err := node.NewSupernode(node.SupernodeConfig{
		DataDir: s.superDir, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Admin: "127.0.0.1:0", Beat: 200 * time.Millisecond,
		Join: s.secret(node.TokenConfig{Role: "supernode", Peer: s.id}),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.super, s.stop = n, run(t, n)
	s.supernode, s.admin = n.Info().Addrs[0], n.Info().Admin
	return s
}

func (s *closedSwarm) secret(cfg node.TokenConfig) string {
	s.t.Helper()
	secret, err := node.NewJoinSecret(s.dir, cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	return secret.Secret
}

// config is a member-to-be's.
func (s *closedSwarm) config(join string) node.Config {
	return node.Config{
		DataDir: s.t.TempDir(), Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Proxy: "127.0.0.1:0", Admin: "127.0.0.1:0",
		Supernodes: []string{s.supernode}, Join: join, Seed: true, OriginAllow: []string{"127.0.0.0/8"}, Beat: 200 * time.Millisecond,
	}
}

func (s *closedSwarm) start(cfg node.Config) (*node.Node, func()) {
	s.t.Helper()
	n, err := node.New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	return n, run(s.t, n)
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	p2ptest.Eventually(t, 30*time.Second, cond, what)
}

// run runs a node or a supernode until the test ends, or the returned function
// is called.
func run(t testing.TB, n interface {
	Run(ctx context.Context) error
	Ready() <-chan struct{}
},
) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	select {
	case <-n.Ready():
	case err := <-ended:
		ended <- err
		t.Fatalf("run: %v", err)
	}
	return stop
}

// fetched wants a file through a node.
func fetched(t *testing.T, n *node.Node, url string, want []byte) {
	t.Helper()
	if status, body := fetch(t, n.Info().Proxy+"/url/"+url); status != http.StatusOK || !bytes.Equal(body, want) {
		t.Errorf("%s: %d, %d bytes: %.200s", url, status, len(body), body)
	}
}

// A file goes from the origin to a seed and from there to a reader, all of them
// members; the certificate outlives a restart without the secret.
func TestClosedSwarm(t *testing.T) {
	s := newClosedSwarm(t)
	o := p2ptest.NewOrigin(t)
	body := p2ptest.Bytes(5, 3<<20)
	url := o.Add("/f", body)
	seed, _ := s.start(s.config(s.secret(node.TokenConfig{Role: "seed"})))
	eventually(t, "the seed is in the pool", func() bool { return len(seed.ReadStatus().Pool) == 1 })

	cfg := s.config(s.secret(node.TokenConfig{Role: "reader"}))
	reader, stop := s.start(cfg)
	eventually(t, "the reader has joined", func() bool {
		return reader.ReadStatus().Membership.Role == "reader" && len(reader.ReadStatus().Pool) == 1
	})
	if reader.ReadStatus().Seed {
		t.Error("a reader offers itself as a seed")
	}
	fetched(t, reader, url, body)
	if n := o.Bytes("/f"); n != int64(len(body)) {
		t.Errorf("the origin sent %d bytes, want %d", n, len(body))
	}
	stop()
	all, records := modes(t, cfg.DataDir), filepath.Join(cfg.DataDir, "records")
	if all[records] != fs.ModeDir|0o700 {
		t.Errorf("the records' directory has mode %v", all[records])
	}
	for path, mode := range all {
		// The datastore's own code makes the files of the records, for all to read:
		// others do not get past their directory.
		if mode.Perm()&0o077 != 0 && filepath.Dir(path) != records {
			t.Errorf("%s has mode %v: others can read it", path, mode)
		}
	}
	cfg.Join = ""
	again, _ := s.start(cfg)
	if m := again.ReadStatus().Membership; !m.Closed || !m.Joined || m.Role != "reader" {
		t.Errorf("after a restart without the secret: %+v", m)
	}
	fetched(t, again, url, body)
}

// modes returns the modes of all files and directories below one.
func modes(t *testing.T, dir string) map[string]os.FileMode {
	t.Helper()
	out := make(map[string]os.FileMode)
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && path != dir {
			out[path] = info.Mode()
		}
		return err
	})
	if err != nil || len(out) < 5 {
		t.Fatalf("%d files in %s: %v", len(out), dir, err)
	}
	return out
}

// A secret that was used up, or is of another swarm, ends the node with an error
// that says so.
func TestJoinRefused(t *testing.T) {
	s, other := newClosedSwarm(t), newClosedSwarm(t)
	once := s.secret(node.TokenConfig{Role: "seed", Uses: 1})
	first, _ := s.start(s.config(once))
	eventually(t, "the first has joined", func() bool { return first.ReadStatus().Membership.Joined })
	for _, tc := range []struct {
		name, join string
		want       error
	}{
		{"used up", once, membership.ErrUsedUp},
		{"expired", s.secret(node.TokenConfig{Role: "seed", Expires: time.Nanosecond}), membership.ErrExpired},
		{"another swarm", other.secret(node.TokenConfig{Role: "seed"}), membership.ErrOtherSwarm},
	} {
		n, err := node.New(s.config(tc.join))
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Run(t.Context()); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// A revocation that one supernode is told closes the peer out everywhere within
// a heartbeat.
func TestRevokedMember(t *testing.T) {
	s := newClosedSwarm(t)
	many := s.secret(node.TokenConfig{Role: "seed"})
	a, _ := s.start(s.config(many))
	b, _ := s.start(s.config(many))
	eventually(t, "both know one another", func() bool {
		return a.ReadStatus().Membership.Members == 2 && b.ReadStatus().Membership.Members == 2
	})
	text, err := node.Revoke(s.dir, b.Info().Peer, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.admin+"/v1/revocations", strings.NewReader(`{"revocation":"`+text+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("revoke: %s", res.Status)
	}
	eventually(t, "b is out", func() bool {
		return b.ReadStatus().Membership.Members == 0 && a.ReadStatus().Membership.Revocations == 1 && a.ReadStatus().Membership.Members == 1
	})
}

// A certificate is renewed before it ends.
func TestCertificateRenewed(t *testing.T) {
	s := newClosedSwarm(t)
	n, _ := s.start(s.config(s.secret(node.TokenConfig{Role: "seed", Lifetime: 4 * time.Second})))
	eventually(t, "the node has joined", func() bool { return n.ReadStatus().Membership.Joined })
	first := *n.ReadStatus().Membership.Expires
	eventually(t, "the certificate is renewed twice", func() bool { return n.ReadStatus().Membership.Expires.After(first.Add(2 * time.Second)) })
	if m := n.ReadStatus().Membership; m.Members != 1 {
		t.Errorf("%d members after the renewals", m.Members)
	}
}

// Without a swarm there is loopback only, said in the status and in the log; in
// one all interfaces are the default.
func TestOpenNodeStaysOnLoopback(t *testing.T) {
	var log strings.Builder
	cfg := node.Config{
		DataDir: t.TempDir(), Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Proxy: "127.0.0.1:0", Admin: "127.0.0.1:0",
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	}
	n, err := node.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "loopback only") {
		t.Errorf("the log does not say that there is no swarm: %s", log.String())
	}
	stop := run(t, n)
	if m := n.ReadStatus().Membership; m.Closed || !strings.Contains(m.Note, "loopback only") {
		t.Errorf("status %+v", m)
	}
	stop()
	cfg.Listen = []string{"/ip4/0.0.0.0/tcp/0"}
	var field *node.FieldError
	if _, err := node.New(cfg); !errors.As(err, &field) || field.Field != "listen" {
		t.Errorf("all interfaces without a swarm: %v", err)
	}
	cfg.Join = "x"
	cfg.Supernodes = []string{"/ip4/127.0.0.1/tcp/1/p2p/" + n.Info().Peer}
	if err := cfg.Validate(); err != nil {
		t.Errorf("all interfaces in a swarm: %v", err)
	}
	if got := (node.Config{Join: "x"}).WithDefaults().Listen; got[0] != "/ip4/0.0.0.0/tcp/65000" {
		t.Errorf("a member listens on %v", got)
	}
}
