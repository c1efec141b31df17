package membership

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/protocols/internal/frame"
	"github.com/p2pnode/p2pnode/protocols/membership/pb"
)

const (
	// secretPrefix begins a join secret, so that it is known for one where it
	// turns up.
	secretPrefix = "p2pnode-join-"
	// maxSecret bounds a join secret in bytes of text; real ones have some 350.
	maxSecret = 2 << 10
	// MaxLifetime bounds a certificate's life, and a token's.
	MaxLifetime = 10 * 365 * 24 * time.Hour
)

// Token says what a join secret is good for.
type Token struct {
	Swarm peer.ID
	ID    TokenID
	// Role is Reader or Seed.
	Role Role
	// Uses is how many peers a supernode admits with it, 0 for any number.
	Uses uint32
	// Expires is when it is exchanged no more, in whole seconds.
	Expires time.Time
	// Lifetime is that of the certificates it is exchanged for, in whole seconds.
	Lifetime time.Duration
	// Key checks proofs.
	Key ed25519.PublicKey
}

// Check returns an error that wraps ErrExpired where the token's time is over.
func (t Token) Check(now time.Time) error {
	if !now.Before(t.Expires) {
		return fmt.Errorf("token %s: %w: on %s", t.ID, ErrExpired, t.Expires.UTC().Format(time.RFC3339))
	}
	return nil
}

// Secret is a join secret: what an operator gives to a machine so that it can
// become a member. Of a supernode it is its certificate, which is no secret.
type Secret struct {
	// Swarm is the swarm's public identity.
	Swarm peer.ID
	// Issuer is a supernode's chain; empty for all others.
	Issuer Chain

	token *pb.Sealed
	key   ed25519.PrivateKey
}

// NewSecret makes a join secret for readers or seeds with the swarm key. The
// token's Swarm, ID and Key are set here.
func NewSecret(swarm crypto.PrivKey, t Token) (Secret, Token, error) {
	id, err := SwarmID(swarm)
	if err != nil {
		return Secret{}, Token{}, err
	}
	switch {
	case t.Role != Reader && t.Role != Seed:
		return Secret{}, Token{}, fmt.Errorf("make join secret: no token makes a %s: its certificate is signed for one peer", t.Role)
	case t.Lifetime < time.Second || t.Lifetime > MaxLifetime:
		return Secret{}, Token{}, fmt.Errorf("make join secret: certificates of %s: want 1 s to %s", t.Lifetime, MaxLifetime)
	}
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Secret{}, Token{}, err
	}
	if _, err := rand.Read(t.ID[:]); err != nil {
		return Secret{}, Token{}, err
	}
	t.Swarm, t.Key = id, pub
	sealed, err := seal(swarm, tokenDomain, tokenToProto(t))
	if err != nil {
		return Secret{}, Token{}, err
	}
	return Secret{Swarm: id, token: sealed, key: priv}, t, nil
}

// SupernodeSecret makes the join secret of one supernode of its certificate.
func SupernodeSecret(issuer Chain) (Secret, error) {
	_, c, err := decodeChain(issuer)
	if err != nil {
		return Secret{}, err
	}
	return Secret{Swarm: c.Swarm, Issuer: issuer}, nil
}

// String returns the text that ParseSecret takes.
func (s Secret) String() string {
	m := &pb.Secret{Swarm: []byte(s.Swarm), Token: s.token}
	if s.key != nil {
		m.Key = s.key.Seed()
	}
	if len(s.Issuer) > 0 {
		var chain pb.Chain
		if err := frame.Unmarshal(s.Issuer, &chain); err == nil {
			m.Issuer = chain.GetIssuer()
		}
	}
	b, err := encode(m)
	if err != nil {
		panic("membership: encode join secret: " + err.Error()) // all fields are bytes
	}
	return secretPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// ParseSecret reads a join secret. Its errors do not repeat it.
func ParseSecret(text string) (Secret, error) {
	text = strings.TrimSpace(text)
	coded, ok := strings.CutPrefix(text, secretPrefix)
	if !ok || len(text) > maxSecret {
		return Secret{}, errors.New("no join secret: it begins with " + secretPrefix + ", as `p2pnode swarm token` prints it")
	}
	b, err := base64.RawURLEncoding.DecodeString(coded)
	if err != nil {
		return Secret{}, errors.New("damaged join secret: copy it whole")
	}
	var m pb.Secret
	if err := frame.Unmarshal(b, &m); err != nil {
		return Secret{}, errors.New("damaged join secret: copy it whole")
	}
	s := Secret{token: m.GetToken()}
	if s.Swarm, err = ed25519Peer(m.GetSwarm()); err != nil {
		return Secret{}, fmt.Errorf("damaged join secret: %w", err)
	}
	if m.GetIssuer() != nil {
		if s.Issuer, err = encode(&pb.Chain{Issuer: m.GetIssuer()}); err != nil {
			return Secret{}, err
		}
		s.token = nil
		_, _, err = s.Issuer.Open(s.Swarm)
		return s, err
	}
	t, err := openToken(s.token, s.Swarm)
	if err != nil {
		return Secret{}, err
	}
	if len(m.GetKey()) != ed25519.SeedSize {
		return Secret{}, errors.New("damaged join secret: copy it whole")
	}
	s.key = ed25519.NewKeyFromSeed(m.GetKey())
	if !t.Key.Equal(s.key.Public()) {
		return Secret{}, errors.New("damaged join secret: its key is not its token's")
	}
	return s, nil
}

// Token returns what the secret is good for; not for a supernode's.
func (s Secret) Token() (Token, error) {
	if s.token == nil {
		return Token{}, errors.New("a supernode's join secret has no token")
	}
	return openToken(s.token, s.Swarm)
}

// join returns the request that a peer exchanges the secret with.
func (s Secret) join(self peer.ID) (*pb.Request, error) {
	t, err := s.Token()
	if err != nil {
		return nil, err
	}
	proof := ed25519.Sign(s.key, append([]byte(proofDomain), proofBody(t, self)...))
	return &pb.Request{Of: &pb.Request_Join{Join: &pb.Join{Token: s.token, Proof: proof}}}, nil
}

func proofBody(t Token, self peer.ID) []byte {
	b := append([]byte{byte(len(t.Swarm))}, t.Swarm...)
	b = append(b, t.ID[:]...)
	return append(b, self...)
}

// openJoin checks a join request of a peer.
func openJoin(m *pb.Join, swarm, from peer.ID) (Token, error) {
	t, err := openToken(m.GetToken(), swarm)
	if err != nil {
		return Token{}, err
	}
	if !verify(t.Key, proofDomain, proofBody(t, from), m.GetProof()) {
		return Token{}, fmt.Errorf("%w: proof of token %s", ErrMalformed, t.ID)
	}
	return t, nil
}

func openToken(s *pb.Sealed, swarm peer.ID) (Token, error) {
	var m pb.Token
	if err := frame.Unmarshal(s.GetBody(), &m); err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	t, err := tokenFromProto(&m)
	if err != nil {
		return Token{}, err
	}
	if t.Swarm != swarm {
		return Token{}, fmt.Errorf("%w: token of %s, not %s", ErrOtherSwarm, t.Swarm, swarm)
	}
	return t, unseal(s, tokenDomain, swarm, &m)
}

// ParseTokenID reads what TokenID.String wrote.
func ParseTokenID(s string) (TokenID, error) {
	b, err := hex.DecodeString(s)
	if err != nil {
		return TokenID{}, malformed("token ID: %w", err)
	}
	return tokenID(b)
}
