package membership

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/protocols/internal/frame"
	"github.com/p2pnode/p2pnode/protocols/membership/pb"
)

const (
	revocationPrefix = "p2pnode-revoke-"
	// maxRevocation bounds an encoded revocation in bytes.
	maxRevocation = 512
	// MaxRevocations bounds a set: the swarm key alone makes them.
	MaxRevocations = 4096
)

// Revocation takes back what a peer, or all who joined with a token, were given.
type Revocation struct {
	Swarm peer.ID
	// Peer or Token is whose certificates are void; the other one is zero.
	Peer  peer.ID
	Token TokenID
	// NotBefore: only certificates of who joined before it are void; the zero
	// time stands for all, for ever. Whole seconds.
	NotBefore time.Time
}

// SignedRevocation is a revocation with the swarm key's signature, encoded.
type SignedRevocation []byte

// Revoke signs a revocation with the swarm key; its Swarm is set here.
func Revoke(swarm crypto.PrivKey, r Revocation) (SignedRevocation, error) {
	id, err := SwarmID(swarm)
	if err != nil {
		return nil, err
	}
	if (r.Peer == "") == (r.Token == TokenID{}) {
		return nil, errors.New("revoke: name a peer or a token")
	}
	r.Swarm = id
	sealed, err := seal(swarm, revokeDomain, revocationToProto(r))
	if err != nil {
		return nil, err
	}
	return encode(sealed)
}

// Open checks the signature.
func (s SignedRevocation) Open(swarm peer.ID) (Revocation, error) {
	if len(s) > maxRevocation {
		return Revocation{}, fmt.Errorf("%w: revocation of %d bytes", ErrMalformed, len(s))
	}
	var (
		sealed pb.Sealed
		m      pb.Revocation
	)
	if err := frame.Unmarshal(s, &sealed); err != nil {
		return Revocation{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := unseal(&sealed, revokeDomain, swarm, &m); err != nil {
		return Revocation{}, err
	}
	r, err := revocationFromProto(&m)
	if err == nil && r.Swarm != swarm {
		err = ErrOtherSwarm
	}
	return r, err
}

// String returns the text that ParseRevocation takes.
func (s SignedRevocation) String() string {
	return revocationPrefix + base64.RawURLEncoding.EncodeToString(s)
}

// ParseRevocation reads what `p2pnode swarm revoke` prints, unchecked.
func ParseRevocation(text string) (SignedRevocation, error) {
	coded, ok := strings.CutPrefix(strings.TrimSpace(text), revocationPrefix)
	b, err := base64.RawURLEncoding.DecodeString(coded)
	if !ok || err != nil || len(b) == 0 || len(b) > maxRevocation {
		return nil, errors.New("no revocation: it begins with " + revocationPrefix + ", as `p2pnode swarm revoke` prints it")
	}
	return b, nil
}

// Revocations is the set of those that a swarm's key made. Safe for concurrent
// use.
type Revocations struct {
	swarm peer.ID

	mu sync.RWMutex
	// mu guards the following, at most MaxRevocations of each.
	signed []SignedRevocation
	known  map[string]struct{}
	peers  map[peer.ID]time.Time
	tokens map[TokenID]time.Time
	sum    uint64
}

// NewRevocations returns an empty set.
func NewRevocations(swarm peer.ID) *Revocations {
	return &Revocations{
		swarm: swarm, known: make(map[string]struct{}),
		peers: make(map[peer.ID]time.Time), tokens: make(map[TokenID]time.Time),
	}
}

// forever stands for a revocation without a time.
var forever = time.Unix(1<<40, 0)

// Add takes in a revocation and reports whether it was new. What the swarm key
// did not sign is an error.
func (s *Revocations) Add(signed SignedRevocation) (bool, error) {
	s.mu.RLock()
	_, known := s.known[string(signed)]
	s.mu.RUnlock()
	if known {
		return false, nil
	}
	r, err := signed.Open(s.swarm)
	if err != nil {
		return false, err
	}
	until := r.NotBefore
	if until.IsZero() {
		until = forever
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.known[string(signed)]; known {
		return false, nil
	}
	// Its effect counts and not its bytes, which whoever passes it on can encode
	// otherwise: the table would fill with copies of one.
	if before := later(s.peers[r.Peer], s.tokens[r.Token]); !until.After(before) {
		return false, nil
	}
	if len(s.signed) >= MaxRevocations {
		return false, fmt.Errorf("%d revocations are known, no more are kept: begin a new swarm", MaxRevocations)
	}
	s.known[string(signed)] = struct{}{}
	s.signed = append(s.signed, slices.Clone(signed))
	if r.Peer != "" {
		s.sum ^= effect(1, []byte(r.Peer), s.peers[r.Peer]) ^ effect(1, []byte(r.Peer), until)
		s.peers[r.Peer] = until
	} else {
		s.sum ^= effect(2, r.Token[:], s.tokens[r.Token]) ^ effect(2, r.Token[:], until)
		s.tokens[r.Token] = until
	}
	return true, nil
}

// effect is the part of one peer or token in the sum of a set; 0 where nothing is
// revoked.
func effect(kind byte, id []byte, until time.Time) uint64 {
	if until.IsZero() {
		return 0
	}
	b := append([]byte{kind}, id...)
	var at uint64
	if !until.Equal(forever) {
		at = uint64(until.Unix())
	}
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(b, at))
	return binary.LittleEndian.Uint64(sum[:])
}

// Sum is the same of two sets that void the same, 0 of an empty one (heartbeat's
// SPEC.md says how it is made).
func (s *Revocations) Sum() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.sum
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// List returns all, in the order they came.
func (s *Revocations) List() []SignedRevocation {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.signed)
}

// Check returns an error that wraps ErrRevoked where a certificate is void.
func (s *Revocations) Check(c Certificate) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if c.Since().Before(s.peers[c.Peer]) || c.Token != (TokenID{}) && c.Since().Before(s.tokens[c.Token]) {
		return fmt.Errorf("%w: peer %s", ErrRevoked, c.Peer)
	}
	return nil
}

// Peer reports whether all certificates of a peer are void, for ever.
func (s *Revocations) Peer(id peer.ID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.peers[id].Equal(forever)
}

// Before returns the time before which a peer must have joined for its
// certificates to be void; the zero time where it is not revoked.
func (s *Revocations) Before(id peer.ID) time.Time {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.peers[id]
}

// Token returns an error that wraps ErrRevoked where a token's certificates of
// this time are void.
func (s *Revocations) Token(id TokenID, now time.Time) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if now.Before(s.tokens[id]) {
		return fmt.Errorf("%w: token %s", ErrRevoked, id)
	}
	return nil
}
