package membership

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/p2pnode/p2pnode/protocols/membership/pb"
)

// at is the time of all that the tests sign.
var at = time.Unix(1_800_000_000, 0)

// key returns a key that is always the same.
func key(t testing.TB, seed byte) crypto.PrivKey {
	t.Helper()
	k, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func id(t testing.TB, k crypto.PrivKey) peer.ID {
	t.Helper()
	p, err := peer.IDFromPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// world is a swarm key, a supernode and a peer.
type world struct {
	swarm, super, peer crypto.PrivKey
	issuer, chain      Chain
}

func newWorld(t testing.TB) world {
	t.Helper()
	w := world{swarm: key(t, 1), super: key(t, 2), peer: key(t, 3)}
	var err error
	w.issuer, err = IssueSupernode(w.swarm, Certificate{Peer: id(t, w.super), NotBefore: at, Expires: at.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	w.chain, err = Issue(w.super, w.issuer, Certificate{Peer: id(t, w.peer), Role: Seed, NotBefore: at, Expires: at.Add(30 * time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestChain(t *testing.T) {
	w := newWorld(t)
	cert, issuer, err := w.chain.Open(id(t, w.swarm))
	if err != nil {
		t.Fatal(err)
	}
	if cert.Peer != id(t, w.peer) || cert.Role != Seed || !cert.NotBefore.Equal(at) || issuer.Peer != id(t, w.super) || issuer.Role != Supernode {
		t.Errorf("certificate %+v of %+v", cert, issuer)
	}
	if len(w.chain) > 400 {
		t.Errorf("a chain has %d bytes, want at most 400", len(w.chain))
	}
	if _, _, err := w.chain.Open(id(t, w.super)); !errors.Is(err, ErrOtherSwarm) {
		t.Errorf("opened by another swarm: %v", err)
	}
	long, err := Issue(w.super, w.issuer, Certificate{Peer: id(t, w.peer), Role: Reader, NotBefore: at, Expires: at.Add(99 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if c, _, _ := long.Open(id(t, w.swarm)); !c.Expires.Equal(at.Add(time.Hour)) {
		t.Errorf("a certificate until %v, behind its issuer's end", c.Expires)
	}
}

// Every bit of a chain counts. What is left of one without its last part is the
// supernode's own, which nobody else can show.
func TestChainForged(t *testing.T) {
	w := newWorld(t)
	swarm := id(t, w.swarm)
	for i := range w.chain {
		for bit := range 8 {
			forged := bytes.Clone(w.chain)
			forged[i] ^= 1 << bit
			c, _, err := Chain(forged).Open(swarm)
			if err == nil && (c.Role != Seed || c.Peer != id(t, w.peer)) && (c.Role != Supernode || c.Peer != id(t, w.super)) {
				t.Fatalf("byte %d, bit %d: accepted as %+v", i, bit, c)
			}
		}
	}
	for n := range w.chain {
		if c, _, err := w.chain[:n].Open(swarm); err == nil && (c.Role != Supernode || c.Peer != id(t, w.super)) {
			t.Fatalf("the first %d bytes are accepted as %+v", n, c)
		}
	}
}

// Nobody makes what he may not: no peer certificates from a peer, no supernode
// from a supernode, nothing of one kind from the signature of another.
func TestIssueBounds(t *testing.T) {
	w := newWorld(t)
	swarm := id(t, w.swarm)
	c := Certificate{Peer: id(t, key(t, 9)), Role: Seed, NotBefore: at, Expires: at.Add(time.Minute)}
	if _, err := Issue(w.peer, w.chain, c); err == nil {
		t.Error("a seed issues certificates")
	}
	c.Role = Supernode
	if _, err := Issue(w.super, w.issuer, c); err == nil {
		t.Error("a supernode makes supernodes")
	}
	// The same by hand, past the checks of the honest code.
	forge := func(issuer Chain, by crypto.PrivKey, role Role) Chain {
		m, _, err := decodeChain(issuer)
		if err != nil {
			t.Fatal(err)
		}
		c.Role, c.Swarm = role, swarm
		sealed, err := seal(by, certDomain, certToProto(c))
		if err != nil {
			t.Fatal(err)
		}
		b, err := encode(&pb.Chain{Issuer: m.GetIssuer(), Certificate: sealed})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, chain := range map[string]Chain{
		"supernode by supernode": forge(w.issuer, w.super, Supernode),
		"seed by a stranger":     forge(w.issuer, w.peer, Seed),
		"seed by the swarm key":  forge(w.issuer, w.swarm, Seed),
	} {
		if _, _, err := chain.Open(swarm); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A seed's certificate in the place of a supernode's.
	m, _, err := decodeChain(w.chain)
	if err != nil {
		t.Fatal(err)
	}
	b, err := encode(&pb.Chain{Issuer: m.GetCertificate()})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Chain(b).Open(swarm); !errors.Is(err, ErrMalformed) {
		t.Errorf("a seed's certificate as a supernode's: %v", err)
	}
	// A signature of another kind.
	sealed, err := seal(w.swarm, tokenDomain, certToProto(Certificate{Swarm: swarm, Peer: id(t, w.super), Role: Supernode, NotBefore: at, Expires: at.Add(time.Hour)}))
	if err != nil {
		t.Fatal(err)
	}
	if b, err = encode(&pb.Chain{Issuer: sealed}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Chain(b).Open(swarm); !errors.Is(err, ErrMalformed) {
		t.Errorf("a token's signature on a certificate: %v", err)
	}
}

func TestCertificateTimes(t *testing.T) {
	c := Certificate{NotBefore: at, Expires: at.Add(time.Hour)}
	for _, tc := range []struct {
		name string
		now  time.Time
		want error
	}{
		{"at once", at, nil},
		{"a clock behind", at.Add(-23 * time.Hour), nil},
		{"a clock far behind", at.Add(-25 * time.Hour), ErrNotYet},
		{"the last second", at.Add(time.Hour - 1), nil},
		{"the end", at.Add(time.Hour), ErrExpired},
	} {
		if err := c.Check(tc.now); !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

func newSecret(t testing.TB, w world, tok Token) (Secret, Token) {
	t.Helper()
	tok.Expires, tok.Lifetime = at.Add(time.Hour), time.Hour
	s, tok, err := NewSecret(w.swarm, tok)
	if err != nil {
		t.Fatal(err)
	}
	return s, tok
}

func TestSecret(t *testing.T) {
	w := newWorld(t)
	s, tok := newSecret(t, w, Token{Role: Seed, Uses: 3})
	read, err := ParseSecret(" " + s.String() + "\n")
	if err != nil {
		t.Fatal(err)
	}
	got, err := read.Token()
	if err != nil || got.ID != tok.ID || got.Role != Seed || got.Uses != 3 || got.Lifetime != time.Hour || read.Swarm != id(t, w.swarm) {
		t.Errorf("read %+v, %v", got, err)
	}
	request, err := read.join(id(t, w.peer))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openJoin(request.GetJoin(), id(t, w.swarm), id(t, w.peer)); err != nil {
		t.Errorf("the right proof: %v", err)
	}
	// A proof is good for one peer: who hears it cannot use it.
	if _, err := openJoin(request.GetJoin(), id(t, w.swarm), id(t, w.super)); !errors.Is(err, ErrMalformed) {
		t.Errorf("another peer's proof: %v", err)
	}
	if _, err := openJoin(request.GetJoin(), id(t, w.super), id(t, w.peer)); !errors.Is(err, ErrOtherSwarm) {
		t.Errorf("a token of another swarm: %v", err)
	}
	request.GetJoin().GetToken().Body[40] ^= 1
	if _, err := openJoin(request.GetJoin(), id(t, w.swarm), id(t, w.peer)); err == nil {
		t.Error("a changed token is accepted")
	}
	if err := tok.Check(at.Add(time.Hour)); !errors.Is(err, ErrExpired) {
		t.Errorf("a token at its end: %v", err)
	}
}

func TestSupernodeSecret(t *testing.T) {
	w := newWorld(t)
	s, err := SupernodeSecret(w.issuer)
	if err != nil {
		t.Fatal(err)
	}
	read, err := ParseSecret(s.String())
	if err != nil || !bytes.Equal(read.Issuer, w.issuer) {
		t.Errorf("read %x, %v", read.Issuer, err)
	}
	if _, err := read.Token(); err == nil {
		t.Error("a supernode's secret has a token")
	}
	if _, _, err := NewSecret(w.swarm, Token{Role: Supernode, Expires: at, Lifetime: time.Hour}); err == nil {
		t.Error("a token makes supernodes")
	}
}

// No error shows what was meant to stay secret.
func TestParseSecretErrors(t *testing.T) {
	w := newWorld(t)
	s, _ := newSecret(t, w, Token{Role: Seed})
	text := s.String()
	for _, bad := range []string{
		"", "nonsense", text[:len(text)-9], strings.Replace(text, "p2pnode-join-", "p2pnode-joint-", 1),
		text[:30] + "!" + text[31:], text + strings.Repeat("A", 4096),
	} {
		_, err := ParseSecret(bad)
		if err == nil {
			t.Errorf("%.40q is accepted", bad)
		} else if len(bad) > 60 && strings.Contains(err.Error(), bad[40:60]) {
			t.Errorf("the error repeats the secret: %v", err)
		}
	}
}

func TestRevocations(t *testing.T) {
	w := newWorld(t)
	swarm := id(t, w.swarm)
	token := TokenID{1, 2, 3}
	revoke := func(by crypto.PrivKey, r Revocation) SignedRevocation {
		s, err := Revoke(by, r)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	set := NewRevocations(swarm)
	forged := revoke(w.super, Revocation{Peer: id(t, w.peer)})
	if _, err := set.Add(forged); err == nil {
		t.Error("a supernode revokes")
	}
	s := revoke(w.swarm, Revocation{Peer: id(t, w.peer), NotBefore: at})
	read, err := ParseRevocation(s.String())
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false} {
		if fresh, err := set.Add(read); fresh != want || err != nil {
			t.Errorf("add %d: %t, %v", i, fresh, err)
		}
	}
	before := Certificate{Peer: id(t, w.peer), NotBefore: at.Add(-time.Second)}
	after := Certificate{Peer: id(t, w.peer), NotBefore: at}
	if err := set.Check(before); !errors.Is(err, ErrRevoked) {
		t.Errorf("a certificate from before: %v", err)
	}
	if err := set.Check(after); err != nil || set.Peer(id(t, w.peer)) {
		t.Errorf("a certificate from after: %v, for ever %t", err, set.Peer(id(t, w.peer)))
	}
	for _, r := range []Revocation{{Peer: id(t, w.peer)}, {Token: token}} {
		if _, err := set.Add(revoke(w.swarm, r)); err != nil {
			t.Fatal(err)
		}
	}
	if err := set.Check(after); !errors.Is(err, ErrRevoked) || !set.Peer(id(t, w.peer)) {
		t.Errorf("a peer that is out for good: %v", err)
	}
	if err := set.Check(Certificate{Peer: id(t, w.super), NotBefore: at.Add(time.Hour), Token: token}); !errors.Is(err, ErrRevoked) {
		t.Errorf("who joined with a revoked token: %v", err)
	}
	if err := set.Token(token, at); !errors.Is(err, ErrRevoked) {
		t.Errorf("a revoked token: %v", err)
	}
	if len(set.List()) != 3 {
		t.Errorf("%d are listed", len(set.List()))
	}
}

// The vectors hold the wire's form still. They were written by this code once.
func TestVectors(t *testing.T) {
	w := newWorld(t)
	revoked, err := Revoke(w.swarm, Revocation{Peer: id(t, w.peer), NotBefore: at})
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"supernode": w.issuer, "seed": w.chain, "revocation": revoked} {
		path := filepath.Join("testdata", "vectors", name+".hex")
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(b); got != strings.TrimSpace(string(want)) {
			t.Errorf("%s is not what was made:\n%s", path, got)
		}
	}
}

func FuzzChain(f *testing.F) {
	w := newWorld(f)
	f.Add([]byte(w.chain))
	f.Add([]byte(w.issuer))
	swarm := id(f, w.swarm)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, issuer, err := Chain(b).Open(swarm)
		if err == nil && (c.Swarm != swarm || issuer.Role != Supernode || c.Role == Supernode && c != issuer) {
			t.Errorf("accepted %+v of %+v", c, issuer)
		}
		if named, nerr := Chain(b).Swarm(); err == nil && (nerr != nil || named != swarm) {
			t.Errorf("of swarm %q, %v", named, nerr)
		}
	})
}

func FuzzParseSecret(f *testing.F) {
	w := newWorld(f)
	s, _ := newSecret(f, w, Token{Role: Reader, Uses: 1})
	f.Add(s.String())
	super, err := SupernodeSecret(w.issuer)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(super.String())
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSecret(text)
		if err != nil {
			return
		}
		if again, err := ParseSecret(s.String()); err != nil || again.String() != s.String() {
			t.Errorf("read, but not when written again: %v", err)
		}
	})
}

// FuzzRevocation: what the swarm key did not sign is nothing, and a text is read
// as it was written.
func FuzzRevocation(f *testing.F) {
	w := newWorld(f)
	s, err := Revoke(w.swarm, Revocation{Peer: id(f, w.peer)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(s), s.String())
	f.Add([]byte(nil), revocationPrefix+"AB\nC")
	swarm, other := id(f, w.swarm), id(f, w.super)
	f.Fuzz(func(t *testing.T, b []byte, text string) {
		set := NewRevocations(swarm)
		if fresh, err := set.Add(b); fresh != (err == nil) || len(set.List()) > 0 != fresh {
			t.Errorf("added: %v, with error %v, of a set of %d", fresh, err, len(set.List()))
		}
		if fresh, err := NewRevocations(other).Add(b); fresh || err == nil {
			t.Error("of another swarm")
		}
		s, err := ParseRevocation(text)
		if err != nil {
			return
		}
		if again, err := ParseRevocation(s.String()); len(s) == 0 || err != nil || !bytes.Equal(again, s) {
			t.Errorf("read %x, then %x, %v", s, again, err)
		}
	})
}

func FuzzParseTokenID(f *testing.F) {
	f.Add(TokenID{1, 0xab}.String())
	f.Add("AB")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseTokenID(text)
		if err != nil {
			if id != (TokenID{}) || !errors.Is(err, ErrMalformed) {
				t.Errorf("%s beside %v", id, err)
			}
			return
		}
		if !strings.EqualFold(id.String(), text) {
			t.Errorf("%q is %s", text, id)
		}
	})
}

// FuzzSealed: whatever the swarm key or a supernode signed, what is taken of it
// is within the rules, and says the same when it is signed anew.
func FuzzSealed(f *testing.F) {
	w := newWorld(f)
	swarm, super, member := id(f, w.swarm), id(f, w.super), id(f, w.peer)
	for _, m := range []proto.Message{
		revocationToProto(Revocation{Swarm: swarm, Peer: member, NotBefore: at}),
		revocationToProto(Revocation{Swarm: swarm, Token: TokenID{1}}),
		&pb.Revocation{Version: version, Swarm: []byte(swarm), Token: make([]byte, TokenIDSize)},
		certToProto(Certificate{Swarm: swarm, Peer: super, Role: Supernode, NotBefore: at, Expires: at.Add(time.Hour)}),
		certToProto(Certificate{Swarm: swarm, Peer: member, Role: Seed, NotBefore: at, Expires: at.Add(time.Hour), Token: TokenID{1}, Lifetime: time.Hour, Joined: at, CountedUntil: at}),
		tokenToProto(Token{Swarm: swarm, ID: TokenID{1}, Role: Reader, Uses: 1, Expires: at, Lifetime: time.Hour, Key: make([]byte, ed25519.PublicKeySize)}),
	} {
		b, err := encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		sign := func(k crypto.PrivKey, domain string) *pb.Sealed {
			sig, err := k.Sign(append([]byte(domain), body...))
			if err != nil {
				t.Fatal(err)
			}
			return &pb.Sealed{Body: body, Signature: sig}
		}
		encoded := func(m proto.Message) []byte {
			b, err := encode(m)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		checkRevocation(t, w, encoded(sign(w.swarm, revokeDomain)))
		issuer := Chain(encoded(&pb.Chain{Issuer: sign(w.swarm, certDomain)}))
		if c, i, err := issuer.Open(swarm); err == nil {
			again, err := IssueSupernode(w.swarm, c)
			checkChain(t, w, again, err, c)
			if c.Role != Supernode || i != c {
				t.Fatalf("a supernode %+v of %+v", c, i)
			}
		}
		chain := Chain(encoded(&pb.Chain{Issuer: chainToProto(w.issuer).GetIssuer(), Certificate: sign(w.super, certDomain)}))
		if c, i, err := chain.Open(swarm); err == nil {
			if c.Role != Reader && c.Role != Seed || i.Peer != super {
				t.Fatalf("a member %+v of %+v", c, i)
			}
			if c.Expires.After(i.Expires) {
				c.Expires = i.Expires
			}
			again, err := Issue(w.super, w.issuer, c)
			checkChain(t, w, again, err, c)
		}
		if tok, err := openToken(sign(w.swarm, tokenDomain), swarm); err == nil {
			again, err := tokenFromProto(tokenToProto(tok))
			if err != nil || !reflect.DeepEqual(again, tok) || tok.Swarm != swarm || tok.Role != Reader && tok.Role != Seed || tok.Lifetime < 1 || tok.Lifetime > MaxLifetime {
				t.Fatalf("token %+v, then %+v, %v", tok, again, err)
			}
		}
	})
}

// checkChain checks that a chain was issued for a certificate.
func checkChain(t *testing.T, w world, chain Chain, err error, want Certificate) {
	t.Helper()
	if err != nil {
		t.Fatalf("%+v is taken and not issued: %v", want, err)
	}
	swarm := id(t, w.swarm)
	if got, _, err := chain.Open(swarm); err != nil || got != want {
		t.Fatalf("issued %+v, opened %+v, %v", want, got, err)
	}
	if got, err := chain.Swarm(); err != nil || got != swarm {
		t.Fatalf("of swarm %s, %v", got, err)
	}
}

// checkRevocation checks what is taken of a signed revocation.
func checkRevocation(t *testing.T, w world, signed SignedRevocation) {
	t.Helper()
	swarm := id(t, w.swarm)
	r, err := signed.Open(swarm)
	if err != nil {
		return
	}
	again, err := Revoke(w.swarm, r)
	if err != nil {
		t.Fatalf("%+v is taken and not signed: %v", r, err)
	}
	if got, err := again.Open(swarm); err != nil || got != r {
		t.Fatalf("signed %+v, opened %+v, %v", r, got, err)
	}
	set := NewRevocations(swarm)
	if fresh, err := set.Add(signed); !fresh || err != nil {
		t.Fatalf("%+v is not taken in: %v", r, err)
	}
	if fresh, err := set.Add(again); fresh || err != nil {
		t.Fatalf("%+v is taken in twice, %v", r, err)
	}
	c := Certificate{Peer: r.Peer, Token: r.Token, NotBefore: time.Unix(0, 0)}
	if err := set.Check(c); !errors.Is(err, ErrRevoked) {
		t.Fatalf("%+v voids nothing: %v", r, err)
	}
	if set.Sum() == 0 {
		t.Fatal("a set with a revocation has the sum of an empty one")
	}
}
