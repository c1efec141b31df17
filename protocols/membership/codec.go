package membership

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/protocols/internal/frame"
	"github.com/p2pnode/p2pnode/protocols/membership/pb"
)

// maxTime bounds times on the wire: the year 9999.
const maxTime = 253402300799

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrMalformed, fmt.Errorf(format, args...))
}

// ed25519Peer reads the peer ID of an Ed25519 key: others do not hold their key.
func ed25519Peer(b []byte) (peer.ID, error) {
	id, err := frame.PeerID(b)
	if err != nil {
		return "", malformed("%w", err)
	}
	key, err := id.ExtractPublicKey()
	if err != nil || key.Type() != crypto.Ed25519 {
		return "", malformed("peer %s has no Ed25519 key in its name", id)
	}
	return id, nil
}

func seconds(what string, s int64) (time.Time, error) {
	if s <= 0 || s > maxTime {
		return time.Time{}, malformed("%s %d: no time", what, s)
	}
	return time.Unix(s, 0), nil
}

func tokenID(b []byte) (id TokenID, err error) {
	if len(b) != len(id) {
		return id, malformed("token ID of %d bytes: want %d", len(b), len(id))
	}
	if id = TokenID(b); id == (TokenID{}) { // which stands for none
		return id, malformed("token ID of zeros")
	}
	return id, nil
}

func checkVersion(v uint32) error {
	if v != version {
		return malformed("version %d: want %d; one of the two programs is newer", v, version)
	}
	return nil
}

func certToProto(c Certificate) *pb.Certificate {
	m := &pb.Certificate{
		Version: version, Swarm: []byte(c.Swarm), Peer: []byte(c.Peer), Role: pb.Role(c.Role),
		NotBefore: c.NotBefore.Unix(), Expires: c.Expires.Unix(),
	}
	if c.Token != (TokenID{}) {
		m.Token = c.Token[:]
	}
	m.Lifetime, m.Joined, m.CountedUntil = int64(c.Lifetime/time.Second), optional(c.Joined), optional(c.CountedUntil)
	return m
}

// optional encodes a time that may be zero.
func optional(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// optionalSeconds reads a time that may be zero.
func optionalSeconds(what string, s int64) (time.Time, error) {
	if s == 0 {
		return time.Time{}, nil
	}
	return seconds(what, s)
}

func certFromProto(m *pb.Certificate) (Certificate, error) {
	c := Certificate{Role: Role(m.GetRole())}
	err := checkVersion(m.GetVersion())
	if err != nil {
		return Certificate{}, err
	}
	if c.Role < Reader || c.Role > Supernode || pb.Role(c.Role) != m.GetRole() {
		return Certificate{}, malformed("role %d", m.GetRole())
	}
	if c.Swarm, err = ed25519Peer(m.GetSwarm()); err != nil {
		return Certificate{}, err
	}
	if c.Peer, err = ed25519Peer(m.GetPeer()); err != nil {
		return Certificate{}, err
	}
	if c.NotBefore, err = seconds("not_before", m.GetNotBefore()); err != nil {
		return Certificate{}, err
	}
	if c.Expires, err = seconds("expires", m.GetExpires()); err != nil {
		return Certificate{}, err
	}
	if len(m.GetToken()) > 0 {
		if c.Token, err = tokenID(m.GetToken()); err != nil {
			return Certificate{}, err
		}
	}
	if m.GetLifetime() < 0 || m.GetLifetime() > int64(MaxLifetime/time.Second) {
		return Certificate{}, malformed("lifetime of %d s", m.GetLifetime())
	}
	c.Lifetime = time.Duration(m.GetLifetime()) * time.Second
	if c.Joined, err = optionalSeconds("joined", m.GetJoined()); err != nil {
		return Certificate{}, err
	}
	if c.Joined.After(c.NotBefore) {
		return Certificate{}, malformed("joined at %d, certified at %d", m.GetJoined(), m.GetNotBefore())
	}
	c.CountedUntil, err = optionalSeconds("counted_until", m.GetCountedUntil())
	return c, err
}

// decodeChain decodes without checking signatures; the certificate is the one
// that the chain is for.
func decodeChain(b Chain) (*pb.Chain, Certificate, error) {
	if len(b) == 0 || len(b) > maxChain {
		return nil, Certificate{}, malformed("chain of %d bytes: 1 to %d", len(b), maxChain)
	}
	m := new(pb.Chain)
	if err := frame.Unmarshal(b, m); err != nil {
		return nil, Certificate{}, malformed("%w", err)
	}
	sealed := m.GetIssuer()
	if m.GetCertificate() != nil {
		sealed = m.GetCertificate()
	}
	var cm pb.Certificate
	if err := frame.Unmarshal(sealed.GetBody(), &cm); err != nil {
		return nil, Certificate{}, malformed("%w", err)
	}
	c, err := certFromProto(&cm)
	return m, c, err
}

func chainToProto(c Chain) *pb.Chain {
	m := new(pb.Chain)
	if err := frame.Unmarshal(c, m); err != nil {
		return nil // none, or one that is not ours to send
	}
	return m
}

func chainFromProto(m *pb.Chain) Chain {
	b, err := encode(m)
	if err != nil {
		return nil
	}
	return b
}

func tokenToProto(t Token) *pb.Token {
	return &pb.Token{
		Version: version, Swarm: []byte(t.Swarm), Id: t.ID[:], Role: pb.Role(t.Role), Uses: t.Uses,
		Expires: t.Expires.Unix(), Lifetime: int64(t.Lifetime / time.Second), Key: t.Key,
	}
}

func tokenFromProto(m *pb.Token) (Token, error) {
	t := Token{Role: Role(m.GetRole()), Uses: m.GetUses(), Lifetime: time.Duration(m.GetLifetime()) * time.Second, Key: ed25519.PublicKey(m.GetKey())}
	err := checkVersion(m.GetVersion())
	switch {
	case err != nil:
		return Token{}, err
	case m.GetRole() != pb.Role_READER && m.GetRole() != pb.Role_SEED:
		return Token{}, malformed("role %d of a token", m.GetRole())
	case m.GetLifetime() < 1 || m.GetLifetime() > int64(MaxLifetime/time.Second):
		return Token{}, malformed("lifetime of %d s", m.GetLifetime())
	case len(t.Key) != ed25519.PublicKeySize:
		return Token{}, malformed("key of %d bytes", len(t.Key))
	}
	if t.Swarm, err = ed25519Peer(m.GetSwarm()); err != nil {
		return Token{}, err
	}
	if t.ID, err = tokenID(m.GetId()); err != nil {
		return Token{}, err
	}
	t.Expires, err = seconds("expires", m.GetExpires())
	return t, err
}

func revocationToProto(r Revocation) *pb.Revocation {
	m := &pb.Revocation{Version: version, Swarm: []byte(r.Swarm), Peer: []byte(r.Peer)}
	if r.Token != (TokenID{}) {
		m.Token = r.Token[:]
	}
	m.NotBefore = optional(r.NotBefore)
	return m
}

func revocationFromProto(m *pb.Revocation) (Revocation, error) {
	var r Revocation
	err := checkVersion(m.GetVersion())
	if err != nil {
		return r, err
	}
	if (len(m.GetPeer()) == 0) == (len(m.GetToken()) == 0) {
		return r, malformed("revocation of a peer and a token, or neither")
	}
	if r.Swarm, err = ed25519Peer(m.GetSwarm()); err != nil {
		return r, err
	}
	if len(m.GetPeer()) > 0 {
		r.Peer, err = ed25519Peer(m.GetPeer())
	} else {
		r.Token, err = tokenID(m.GetToken())
	}
	if err == nil {
		r.NotBefore, err = optionalSeconds("not_before", m.GetNotBefore())
	}
	return r, err
}
