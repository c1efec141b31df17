package membership

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/p2pnode/p2pnode/protocols/internal/frame"
	"github.com/p2pnode/p2pnode/protocols/membership/pb"
)

// Role is what a certificate lets its peer do. The numbers are the wire's.
type Role uint8

// Roles, each of which may do what those before it may.
const (
	// Reader reads, and serves what it has read.
	Reader Role = 1 + iota
	// Seed is elected, reads origins, and signs blocks.
	Seed
	// Supernode elects, signs assignments and issues certificates.
	Supernode
)

// String returns the word that ParseRole takes.
func (r Role) String() string {
	switch r {
	case Reader:
		return "reader"
	case Seed:
		return "seed"
	case Supernode:
		return "supernode"
	default:
		return "none"
	}
}

// ParseRole reads reader, seed or supernode.
func ParseRole(s string) (Role, error) {
	for _, r := range []Role{Reader, Seed, Supernode} {
		if s == r.String() {
			return r, nil
		}
	}
	return 0, fmt.Errorf("%q is no role: write reader, seed or supernode", s)
}

const (
	// version of all signed messages.
	version = 1
	// TokenIDSize is the length of a token's ID in bytes.
	TokenIDSize = 16
	// maxChain bounds an encoded Chain in bytes; real ones have some 400.
	maxChain = 1 << 10
	// Skew is how far behind the issuer's a clock may be: a certificate that
	// begins so much later is taken as begun. Security rests on the end.
	Skew = 24 * time.Hour
)

// Domains of the signatures: what is signed as one kind is nothing as another.
const (
	certDomain   = "p2pnode-membership-1:certificate:"
	tokenDomain  = "p2pnode-membership-1:token:"
	proofDomain  = "p2pnode-membership-1:join:"
	revokeDomain = "p2pnode-membership-1:revocation:"
)

// Reasons why something signed is not accepted; each has a Status.
var (
	// ErrMalformed: it is not what it should be, or its signature is wrong.
	ErrMalformed = errors.New("malformed or forged certificate")
	// ErrOtherSwarm: it belongs to another swarm.
	ErrOtherSwarm = errors.New("certificate of another swarm")
	// ErrExpired and ErrNotYet: its time is over, or not begun. One of the two
	// clocks may be wrong.
	ErrExpired = errors.New("certificate has expired")
	ErrNotYet  = errors.New("certificate is not valid yet")
	// ErrRevoked: it was taken back.
	ErrRevoked = errors.New("membership was revoked")
)

// Certificate says that a peer has a role in a swarm.
type Certificate struct {
	// Swarm is the swarm's public identity: the peer ID of its key.
	Swarm peer.ID
	Peer  peer.ID
	Role  Role
	// NotBefore is when it was issued, Expires when it ends; whole seconds.
	NotBefore, Expires time.Time
	// Token is the ID of the token it was got with; zero for none.
	Token TokenID
	// Lifetime is how long it was to live, in whole seconds: Expires comes before
	// where the supernode's own certificate ends before. 0 where Expires tells.
	Lifetime time.Duration
	// Joined is when the peer joined, NotBefore where it is zero. A renewal keeps
	// it, so that no supernode makes a revoked certificate good by renewing it.
	Joined time.Time
	// CountedUntil is the end of the token where that admits a bounded number of
	// peers: supernodes count those whose certificates they see. Zero for others.
	CountedUntil time.Time
}

// Life returns how long a certificate in its place is to live.
func (c Certificate) Life() time.Duration {
	if c.Lifetime > 0 {
		return c.Lifetime
	}
	return c.Expires.Sub(c.NotBefore)
}

// Since returns when the peer joined.
func (c Certificate) Since() time.Time {
	if c.Joined.IsZero() {
		return c.NotBefore
	}
	return c.Joined
}

// TokenID names a token.
type TokenID [TokenIDSize]byte

// String returns the ID in hexadecimal.
func (id TokenID) String() string { return fmt.Sprintf("%x", id[:]) }

// Chain is a certificate with all that proves it, encoded. Empty is none.
type Chain []byte

// IssueSupernode signs a supernode's certificate with the swarm key. The
// certificate's Swarm and Role are set here.
func IssueSupernode(swarm crypto.PrivKey, c Certificate) (Chain, error) {
	id, err := SwarmID(swarm)
	if err != nil {
		return nil, err
	}
	c.Swarm, c.Role = id, Supernode
	sealed, err := seal(swarm, certDomain, certToProto(c))
	if err != nil {
		return nil, err
	}
	return encode(&pb.Chain{Issuer: sealed})
}

// Issue signs a certificate for a reader or a seed with the key of a supernode,
// whose own chain it needs. It ends no later than that.
func Issue(key crypto.PrivKey, issuer Chain, c Certificate) (Chain, error) {
	m, own, err := decodeChain(issuer)
	if err != nil {
		return nil, err
	}
	switch {
	case own.Role != Supernode || m.GetCertificate() != nil || !own.Peer.MatchesPrivateKey(key):
		return nil, errors.New("issue certificate: not the key of a supernode of this swarm")
	case c.Role != Reader && c.Role != Seed:
		return nil, fmt.Errorf("issue certificate: a supernode issues none for a %s", c.Role)
	}
	c.Swarm = own.Swarm
	if c.Expires.After(own.Expires) {
		c.Expires = own.Expires
	}
	if m.Certificate, err = seal(key, certDomain, certToProto(c)); err != nil {
		return nil, err
	}
	return encode(m)
}

// Open checks all signatures of a chain and returns the certificate that it
// proves, and that of the supernode which issued it; for a supernode the two
// are one. Times and revocations are for the caller: see Check. The error wraps
// ErrMalformed or ErrOtherSwarm.
func (c Chain) Open(swarm peer.ID) (cert, issuer Certificate, err error) {
	m, cert, err := decodeChain(c)
	if err != nil {
		return Certificate{}, Certificate{}, err
	}
	if cert.Swarm != swarm {
		return Certificate{}, Certificate{}, fmt.Errorf("%w: %s, not %s", ErrOtherSwarm, cert.Swarm, swarm)
	}
	issuer, err = openCert(m.GetIssuer(), swarm)
	if err != nil {
		return Certificate{}, Certificate{}, err
	}
	if issuer.Role != Supernode || issuer.Swarm != swarm {
		return Certificate{}, Certificate{}, fmt.Errorf("%w: its issuer is no supernode", ErrMalformed)
	}
	if m.GetCertificate() == nil {
		return issuer, issuer, nil
	}
	cert, err = openCert(m.GetCertificate(), issuer.Peer)
	switch {
	case err != nil:
		return Certificate{}, Certificate{}, err
	case cert.Swarm != swarm || cert.Role != Reader && cert.Role != Seed:
		return Certificate{}, Certificate{}, fmt.Errorf("%w: a supernode issued what it may not", ErrMalformed)
	}
	return cert, issuer, nil
}

// Check says whether a certificate is valid now: nil, or an error that wraps
// ErrExpired or ErrNotYet.
func (c Certificate) Check(now time.Time) error {
	switch {
	case !now.Before(c.Expires):
		return fmt.Errorf("%w: on %s", ErrExpired, c.Expires.UTC().Format(time.RFC3339))
	case now.Before(c.NotBefore.Add(-Skew)):
		return fmt.Errorf("%w: before %s", ErrNotYet, c.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// SwarmID returns the public identity of a swarm key.
func SwarmID(key crypto.PrivKey) (peer.ID, error) {
	if key.Type() != crypto.Ed25519 {
		return "", errors.New("a swarm key is an Ed25519 key")
	}
	return peer.IDFromPrivateKey(key)
}

func encode(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// seal signs an encoded message.
func seal(key crypto.PrivKey, domain string, m proto.Message) (*pb.Sealed, error) {
	body, err := encode(m)
	if err != nil {
		return nil, err
	}
	sig, err := key.Sign(append([]byte(domain), body...))
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return &pb.Sealed{Body: body, Signature: sig}, nil
}

// unseal checks a signature by the peer ID of its key and decodes what it
// covers.
func unseal(s *pb.Sealed, domain string, by peer.ID, m proto.Message) error {
	key, err := by.ExtractPublicKey()
	if err != nil || key.Type() != crypto.Ed25519 {
		return fmt.Errorf("%w: signer %s has no Ed25519 key in its name", ErrMalformed, by)
	}
	raw, err := key.Raw()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return unsealRaw(s, domain, raw, m)
}

func unsealRaw(s *pb.Sealed, domain string, key ed25519.PublicKey, m proto.Message) error {
	if !verify(key, domain, s.GetBody(), s.GetSignature()) {
		return fmt.Errorf("%w: signature", ErrMalformed)
	}
	if err := frame.Unmarshal(s.GetBody(), m); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

func verify(key ed25519.PublicKey, domain string, body, signature []byte) bool {
	return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, append([]byte(domain), body...), signature)
}

func openCert(s *pb.Sealed, by peer.ID) (Certificate, error) {
	var m pb.Certificate
	if err := unseal(s, certDomain, by, &m); err != nil {
		return Certificate{}, err
	}
	return certFromProto(&m)
}

// Swarm returns the swarm that a chain names, unchecked.
func (c Chain) Swarm() (peer.ID, error) {
	_, cert, err := decodeChain(c)
	return cert.Swarm, err
}
