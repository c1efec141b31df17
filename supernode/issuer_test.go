package supernode

import (
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/protocols/heartbeat"
	"github.com/p2pnode/p2pnode/protocols/membership"
)

// issuing is an issuer with its clock and what it stands on.
type issuing struct {
	*Issuer
	t       *testing.T
	swarm   crypto.PrivKey
	id      peer.ID
	now     time.Time
	revoked *membership.Revocations
	cfg     IssuerConfig
}

func newIssuing(t *testing.T) *issuing {
	t.Helper()
	s := &issuing{t: t, swarm: newKey(t), now: time.Unix(1_800_000_000, 0)}
	super := newKey(t)
	var err error
	if s.id, err = membership.SwarmID(s.swarm); err != nil {
		t.Fatal(err)
	}
	chain, err := membership.IssueSupernode(s.swarm, membership.Certificate{Peer: idOf(t, super), NotBefore: s.now, Expires: s.now.Add(1000 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	s.revoked = membership.NewRevocations(s.id)
	s.cfg = IssuerConfig{
		Key: super, Chain: chain, Revocations: s.revoked, Grace: 10 * time.Hour,
		File: filepath.Join(t.TempDir(), "uses.json"), Now: func() time.Time { return s.now },
	}
	s.open()
	return s
}

// open begins anew with what is on the disk.
func (s *issuing) open() {
	s.t.Helper()
	var err error
	if s.Issuer, err = NewIssuer(s.cfg); err != nil {
		s.t.Fatal(err)
	}
}

func (s *issuing) token(uses uint32, role membership.Role) membership.Token {
	s.t.Helper()
	_, tok, err := membership.NewSecret(s.swarm, membership.Token{Role: role, Uses: uses, Expires: s.now.Add(time.Hour), Lifetime: 2 * time.Hour})
	if err != nil {
		s.t.Fatal(err)
	}
	return tok
}

func (s *issuing) revoke(r membership.Revocation) {
	s.t.Helper()
	signed, err := membership.Revoke(s.swarm, r)
	if err == nil {
		_, err = s.revoked.Add(signed)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func newKey(t *testing.T) crypto.PrivKey {
	t.Helper()
	k, _, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func idOf(t *testing.T, k crypto.PrivKey) peer.ID {
	t.Helper()
	id, err := peer.IDFromPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func newPeer(t *testing.T) peer.ID {
	t.Helper()
	return idOf(t, newKey(t))
}

// A file of uses that is null is one without uses.
func TestIssuerOfNullUses(t *testing.T) {
	s := newIssuing(t)
	if err := os.WriteFile(s.cfg.File, []byte("null"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.open()
	tok := s.token(1, membership.Seed)
	if _, err := s.Join(newPeer(t), tok); err != nil {
		t.Fatal(err)
	}
	s.open()
	if _, err := s.Join(newPeer(t), tok); !errors.Is(err, membership.ErrUsedUp) {
		t.Errorf("the second peer: %v", err)
	}
}

// Whatever uses a file holds, another one is counted, and all are kept.
func FuzzUses(f *testing.F) {
	tok := membership.Token{Uses: 1, Expires: time.Unix(1_800_000_000, 0)}
	p := ids(2)
	for _, text := range []string{
		"null", "{}", `{"a":null}`, `{"a":{}}`,
		`{"` + tok.ID.String() + `":{"` + p[1].String() + `":"2027-01-15T08:00:00Z"}}`,
		`{"a":{"b":"2020-01-01T00:00:00+23:59","c":"9999-12-31T23:59:59.5Z"}}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		load := func(text []byte) (*Issuer, error) {
			i := &Issuer{}
			return i, i.load(text)
		}
		i, err := load(text)
		if err != nil {
			return
		}
		full := len(i.uses[tok.ID.String()]) > 0
		err = i.use(p[0], tok, time.Unix(1_700_000_000, 0))
		switch used := !i.uses[tok.ID.String()][p[0].String()].IsZero(); {
		case err == nil && !used:
			t.Fatal("a use was not counted")
		case err == nil && full && len(i.uses[tok.ID.String()]) > 1:
			t.Fatal("a token was used more often than it says")
		}
		b, err := json.Marshal(i.uses)
		if err != nil {
			t.Fatalf("read but not written: %v", err)
		}
		again, err := load(b)
		if err != nil {
			t.Fatalf("written but not read: %v", err)
		}
		if b2, err := json.Marshal(again.uses); err != nil || !reflect.DeepEqual(b, b2) || again.count != i.count {
			t.Fatalf("%d uses %s, then %d uses %s, %v", i.count, b, again.count, b2, err)
		}
	})
}

// A token admits as many peers as it says, each as often as it asks, also over
// a restart.
func TestIssuerCountsUses(t *testing.T) {
	s := newIssuing(t)
	tok, a, b, c := s.token(2, membership.Seed), newPeer(t), newPeer(t), newPeer(t)
	for _, p := range []peer.ID{a, b, a} {
		if _, err := s.Join(p, tok); err != nil {
			t.Fatal(err)
		}
	}
	s.open()
	if _, err := s.Join(c, tok); !errors.Is(err, membership.ErrUsedUp) {
		t.Errorf("the third peer: %v", err)
	}
	if _, err := s.Join(b, tok); err != nil {
		t.Errorf("the second peer again: %v", err)
	}
	if info, err := os.Stat(s.cfg.File); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file of the uses: %v, %v", info, err)
	}
	many := s.token(0, membership.Reader)
	for range 20 {
		if _, err := s.Join(newPeer(t), many); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(s.cfg.File, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewIssuer(s.cfg); err == nil {
		t.Error("a damaged file lets tokens be used anew")
	}
}

func TestIssuerJoin(t *testing.T) {
	s := newIssuing(t)
	tok, p := s.token(0, membership.Reader), newPeer(t)
	chain, err := s.Join(p, tok)
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := chain.Open(s.id)
	if err != nil || c.Peer != p || c.Role != membership.Reader || c.Token != tok.ID || c.Expires.Sub(c.NotBefore) != 2*time.Hour {
		t.Errorf("issued %+v, %v", c, err)
	}
	s.revoke(membership.Revocation{Peer: p})
	if _, err := s.Join(p, tok); !errors.Is(err, membership.ErrRevoked) {
		t.Errorf("a revoked peer joins anew: %v", err)
	}
	s.revoke(membership.Revocation{Token: tok.ID})
	if _, err := s.Join(newPeer(t), tok); !errors.Is(err, membership.ErrRevoked) {
		t.Errorf("a revoked token: %v", err)
	}
	late := s.token(0, membership.Reader)
	s.now = s.now.Add(time.Hour)
	if _, err := s.Join(newPeer(t), late); !errors.Is(err, membership.ErrExpired) {
		t.Errorf("a token at its end: %v", err)
	}
}

func TestIssuerRenew(t *testing.T) {
	s := newIssuing(t)
	p := newPeer(t)
	chain, err := s.Join(p, s.token(0, membership.Seed))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Renew(newPeer(t), chain); !errors.Is(err, membership.ErrMalformed) {
		t.Errorf("another peer's certificate: %v", err)
	}
	if _, err := s.Renew(p, s.cfg.Chain); err == nil {
		t.Error("a supernode's certificate is renewed")
	}
	s.now = s.now.Add(11 * time.Hour) // 9 h after the end
	renewed, err := s.Renew(p, chain)
	if err != nil {
		t.Fatal(err)
	}
	if c, _, err := renewed.Open(s.id); err != nil || c.Role != membership.Seed || !c.Expires.Equal(s.now.Add(2*time.Hour)) {
		t.Errorf("renewed to %+v, %v", c, err)
	}
	s.now = s.now.Add(2 * time.Hour)
	if _, err := s.Renew(p, chain); !errors.Is(err, membership.ErrExpired) {
		t.Errorf("behind the grace: %v", err)
	}
	s.revoke(membership.Revocation{Peer: p, NotBefore: s.now})
	if _, err := s.Renew(p, renewed); !errors.Is(err, membership.ErrRevoked) {
		t.Errorf("a revoked certificate: %v", err)
	}
}

// Five hundred members with reader certificates, all of which call themselves
// seeds, get no duty and no place in the pool; the one true seed does.
func TestSybilReaders(t *testing.T) {
	w := newWorld(t, Config{})
	honest := newPeer(t)
	s := &Supernode{cfg: w.core.cfg, core: w.core, log: slog.New(slog.DiscardHandler), wake: make(chan struct{}, 1), returned: make(chan peer.ID, 1)}
	s.cfg.Now = func() time.Time { return w.now }
	s.cfg.MaySeed = func(id peer.ID) bool { return id == honest }
	s.metrics = newMetrics(nil, s)
	beat := heartbeat.Beat{Session: 1, Seq: 1, Seed: true, Capacity: 1 << 50, Free: 1 << 50}
	for range 500 {
		sink{s}.Beat(newPeer(t), beat)
	}
	sink{s}.Beat(honest, heartbeat.Beat{Session: 1, Seq: 1, Seed: true, Capacity: 1 << 30, Free: 1 << 30})
	w.step(6 * time.Second)
	w.wantPool(honest)
}

// shorten gives the supernode a certificate that ends so much later.
func (s *issuing) shorten(left time.Duration) {
	s.t.Helper()
	var err error
	if s.cfg.Chain, err = membership.IssueSupernode(s.swarm, membership.Certificate{Peer: idOf(s.t, s.cfg.Key), NotBefore: s.now, Expires: s.now.Add(left)}); err != nil {
		s.t.Fatal(err)
	}
	s.open()
}

// A supernode whose own certificate is over issues nothing: what it would issue
// is over too, and the peer would ask for another at once, for ever.
func TestIssuerThatEnded(t *testing.T) {
	s := newIssuing(t)
	p, tok := newPeer(t), s.token(0, membership.Seed)
	chain, err := s.Join(p, tok)
	if err != nil {
		t.Fatal(err)
	}
	s.shorten(time.Minute)
	s.now = s.now.Add(5 * time.Minute)
	if chain, err := s.Renew(p, chain); err == nil {
		c, _, _ := chain.Open(s.id)
		t.Errorf("renewed with a life of %s", c.Expires.Sub(c.NotBefore))
	}
	if _, err := s.Join(newPeer(t), tok); err == nil {
		t.Error("a join was answered with a certificate that is over")
	}
}

// A certificate that was cut short with its supernode's own is renewed to the
// length that its token says, once the supernode has a longer one.
func TestIssuerRenewsToTheWantedLife(t *testing.T) {
	s := newIssuing(t)
	s.shorten(10 * time.Minute)
	p := newPeer(t)
	chain, err := s.Join(p, s.token(0, membership.Seed))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // also where it is cut several times over
		s.now = s.now.Add(2 * time.Minute)
		if chain, err = s.Renew(p, chain); err != nil {
			t.Fatal(err)
		}
		if c, _, err := chain.Open(s.id); err != nil || !c.Expires.Before(s.now.Add(10*time.Minute)) {
			t.Fatalf("the certificate ends on %v, after its supernode's: %v", c.Expires, err)
		}
	}
	s.shorten(1000 * time.Hour)
	if chain, err = s.Renew(p, chain); err != nil {
		t.Fatal(err)
	}
	if c, _, err := chain.Open(s.id); err != nil || c.Expires.Sub(c.NotBefore) != 2*time.Hour {
		t.Errorf("renewed for %v, %v, want 2 h", c.Expires.Sub(c.NotBefore), err)
	}
}

// A supernode that has not heard of a revocation may renew what it voids: the
// new certificate is void all the same, for all who know.
func TestIssuerLaundersNothing(t *testing.T) {
	s := newIssuing(t)
	p := newPeer(t)
	chain, err := s.Join(p, s.token(0, membership.Seed))
	if err != nil {
		t.Fatal(err)
	}
	told := membership.NewRevocations(s.id)
	signed, err := membership.Revoke(s.swarm, membership.Revocation{Peer: p, NotBefore: s.now.Add(time.Minute)})
	if err == nil {
		_, err = told.Add(signed)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.now = s.now.Add(time.Hour)
	if chain, err = s.Renew(p, chain); err != nil {
		t.Fatal(err)
	}
	if c, _, err := chain.Open(s.id); err != nil || !errors.Is(told.Check(c), membership.ErrRevoked) {
		t.Errorf("the renewed certificate is good: %v, %v", told.Check(c), err)
	}
	if chain, err = s.Join(p, s.token(0, membership.Seed)); err != nil {
		t.Fatal(err)
	}
	if c, _, err := chain.Open(s.id); err != nil || told.Check(c) != nil {
		t.Errorf("who joins again behind the date is refused: %v, %v", told.Check(c), err)
	}
}

// A supernode counts those that another one admitted, as soon as it sees their
// certificates.
func TestIssuerCountsWhatOthersAdmitted(t *testing.T) {
	s := newIssuing(t)
	tok := s.token(2, membership.Seed)
	other, err := NewIssuer(IssuerConfig{Key: s.cfg.Key, Chain: s.cfg.Chain, Revocations: s.revoked, Now: s.cfg.Now})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		p := newPeer(t)
		chain, err := other.Join(p, tok)
		if err == nil {
			chain, err = other.Renew(p, chain) // which keeps what is counted
		}
		if err != nil {
			t.Fatal(err)
		}
		c, _, err := chain.Open(s.id)
		if err != nil {
			t.Fatal(err)
		}
		s.Seen(c)
		s.Seen(c)
	}
	if _, err := s.Join(newPeer(t), tok); !errors.Is(err, membership.ErrUsedUp) {
		t.Errorf("a third peer at another supernode: %v", err)
	}
	many, p := s.token(0, membership.Seed), newPeer(t)
	chain, err := other.Join(p, many)
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := chain.Open(s.id)
	if err != nil {
		t.Fatal(err)
	}
	s.Seen(c)
	if len(s.uses) != 1 {
		t.Errorf("%d tokens are counted, and one has a bound", len(s.uses))
	}
}
