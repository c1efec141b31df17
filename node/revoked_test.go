package node_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node"
)

// another starts one more supernode of the swarm, and returns its address and its
// admin port.
func (s *closedSwarm) another() (n *node.SupernodeNode) {
	s.t.Helper()
	dir := s.t.TempDir()
	id, err := node.PeerID(dir)
	if err != nil {
		s.t.Fatal(err)
	}
	n, err = node.NewSupernode(node.SupernodeConfig{
		DataDir: dir, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Admin: "127.0.0.1:0", Beat: 200 * time.Millisecond,
		Join: s.secret(node.TokenConfig{Role: "supernode", Peer: id.String()}),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	run(s.t, n)
	return n
}

// revoke tells a supernode that a peer or token is revoked.
func (s *closedSwarm) revoke(admin, subject string, before time.Time) {
	s.t.Helper()
	text, err := node.Revoke(s.dir, subject, before)
	if err != nil {
		s.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, admin+"/v1/revocations", strings.NewReader(`{"revocation":"`+text+`"}`))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		s.t.Fatalf("revoke: %s", res.Status)
	}
}

// What one supernode is told the others know by their members, and what one has
// admitted the others count.
func TestSupernodesShareRevocationsAndUses(t *testing.T) {
	s := newClosedSwarm(t)
	other := s.another()
	both := []string{s.supernode, other.Info().Addrs[0]}
	once := s.secret(node.TokenConfig{Role: "seed", Uses: 1})
	cfg := s.config(once)
	cfg.Supernodes = both
	n, _ := s.start(cfg)
	eventually(t, "the member knows both supernodes", func() bool { return n.ReadStatus().Membership.Members == 2 })

	again := s.config(once)
	again.Supernodes = both[1:]
	if second, err := node.New(again); err != nil {
		t.Fatal(err)
	} else if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "used") {
		t.Errorf("the token is used again at another supernode: %v", err)
	}
	s.revoke(s.admin, s.secretToken(), time.Time{})
	eventually(t, "the other supernode knows", func() bool { return other.ReadStatus().Membership.Revocations == 1 })
}

// secretToken is the ID of a new token.
func (s *closedSwarm) secretToken() string {
	s.t.Helper()
	secret, err := node.NewJoinSecret(s.dir, node.TokenConfig{Role: "reader"})
	if err != nil {
		s.t.Fatal(err)
	}
	return secret.Token
}

// The blocks that a revoked seed has signed leave the disks of the others, also
// where the revocation has a date, and are fetched anew.
func TestRevokedSignersBlocksGo(t *testing.T) {
	s := newClosedSwarm(t)
	o := p2ptest.NewOrigin(t)
	body := p2ptest.Bytes(8, 3<<20)
	url := o.Add("/f", body)
	seed, _ := s.start(s.config(s.secret(node.TokenConfig{Role: "seed"})))
	eventually(t, "the seed is in the pool", func() bool { return len(seed.ReadStatus().Pool) == 1 })
	cfg := s.config(s.secret(node.TokenConfig{Role: "reader"}))
	cfg.OriginFallback = true // when the only seed is out
	reader, _ := s.start(cfg)
	eventually(t, "the reader has joined", func() bool {
		return reader.ReadStatus().Membership.Joined && len(reader.ReadStatus().Pool) == 1
	})
	fetched(t, reader, url, body)
	eventually(t, "the reader holds the file", func() bool { return reader.ReadStatus().Store.Used == int64(len(body)) })
	s.revoke(s.admin, seed.Info().Peer, time.Now().Add(time.Minute))
	eventually(t, "the blocks are gone", func() bool { return reader.ReadStatus().Store.Used == 0 })
	fetched(t, reader, url, body)
	if n := o.Bytes("/f"); n != 2*int64(len(body)) {
		t.Errorf("the origin sent %d bytes, want the file twice: %d", n, 2*len(body))
	}
}

// A supernode that was revoked is not believed any more: the map forgets it, and
// its pool.
func TestRevokedSupernode(t *testing.T) {
	s := newClosedSwarm(t)
	other := s.another()
	cfg := s.config(s.secret(node.TokenConfig{Role: "seed"}))
	cfg.Supernodes = []string{s.supernode, other.Info().Addrs[0]}
	n, _ := s.start(cfg)
	eventually(t, "the member is in both pools", func() bool {
		return n.ReadStatus().Membership.Members == 2 && len(n.ReadStatus().Pool) == 1 && n.Heard() == 2
	})
	s.revoke(s.admin, other.Info().Peer, time.Time{})
	eventually(t, "the map has forgotten it", func() bool {
		return n.ReadStatus().Membership.Members == 1 && n.Heard() == 1 && len(n.ReadStatus().Pool) == 1
	})
}
