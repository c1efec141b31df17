package assignment

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/p2pnode/p2pnode/protocols/assignment/pb"
	"github.com/p2pnode/p2pnode/protocols/internal/frame"
)

// signDomain keeps the signature of an update from standing for anything else.
const signDomain = "p2pnode-update:"

// Signed is an update as its supernode signed it. Whoever passes it on passes
// it on unchanged.
type Signed struct {
	// Raw is the marshalled update.
	Raw       []byte
	Supernode peer.ID
	Sig       []byte
}

// Sign marshals and signs an update. u.Supernode is not looked at: it becomes
// the ID of key, whose public key must be inlined in its ID (Ed25519 is). The
// error wraps ErrTooLarge or ErrMalformed where u breaks a bound;
// Split and Pages make parts that fit. Cost: 28 µs.
func Sign(key crypto.PrivKey, u Update) (Signed, error) {
	raw, err := encode(u)
	if err != nil {
		return Signed{}, fmt.Errorf("sign update %d: %w", u.Seq, err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return Signed{}, fmt.Errorf("sign update %d: %w", u.Seq, err)
	}
	if _, err := id.ExtractPublicKey(); err != nil {
		return Signed{}, fmt.Errorf("sign update %d as %s: %w", u.Seq, id, err)
	}
	sig, err := key.Sign(append([]byte(signDomain), raw...))
	if err != nil {
		return Signed{}, fmt.Errorf("sign update %d as %s: %w", u.Seq, id, err)
	}
	return Signed{Raw: raw, Supernode: id, Sig: sig}, nil
}

// Open checks trust, then signature, then content, and returns the update with
// its full cursor. The error wraps ErrUntrusted, ErrSignature, ErrTooLarge
// or ErrMalformed. Cost: 68 µs.
func (s Signed) Open(trusted func(peer.ID) bool) (Update, error) {
	if !trusted(s.Supernode) {
		return Update{}, fmt.Errorf("update of %s: %w", s.Supernode, ErrUntrusted)
	}
	if len(s.Raw) > MaxUpdate {
		return Update{}, fmt.Errorf("update of %s: %w: %d bytes", s.Supernode, frame.ErrTooLarge, len(s.Raw))
	}
	if err := s.verify(); err != nil {
		return Update{}, fmt.Errorf("update of %s: %w", s.Supernode, err)
	}
	u, err := decode(s.Raw)
	if err != nil {
		return Update{}, fmt.Errorf("update of %s: %w", s.Supernode, err)
	}
	u.Supernode = s.Supernode
	return u, nil
}

func (s Signed) verify() error {
	pub, err := s.Supernode.ExtractPublicKey()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	ok, err := pub.Verify(append([]byte(signDomain), s.Raw...), s.Sig)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	if !ok {
		return ErrSignature
	}
	return nil
}

// Cursor returns the place that the update claims, without checking anything
// else: for who passes updates on. The error wraps ErrMalformed.
func (s Signed) Cursor() (Cursor, error) {
	u, err := decode(s.Raw)
	if err != nil {
		return Cursor{}, fmt.Errorf("update of %s: %w", s.Supernode, err)
	}
	u.Supernode = s.Supernode
	return u.Cursor, nil
}

// Size returns the bytes that the entry takes in a gossip batch, and in a page
// of fetch.
func (s Signed) Size() int {
	inner := proto.Size(s.toProto())
	return 1 + uvarintLen(inner) + inner
}

func (s Signed) toProto() *pb.Signed {
	return &pb.Signed{Update: s.Raw, Supernode: []byte(s.Supernode), Signature: s.Sig}
}

// signedFromProto checks all that can be checked without the content.
func signedFromProto(m *pb.Signed) (Signed, error) {
	id, err := frame.PeerID(m.GetSupernode())
	if err != nil {
		return Signed{}, err
	}
	if n := len(m.GetUpdate()); n == 0 || n > MaxUpdate {
		return Signed{}, frame.Malformed("signed update of %d bytes: 1 to %d", n, MaxUpdate)
	}
	if n := len(m.GetSignature()); n == 0 || n > maxSignature {
		return Signed{}, frame.Malformed("signature of %d bytes: 1 to %d", n, maxSignature)
	}
	return Signed{Raw: m.GetUpdate(), Supernode: id, Sig: m.GetSignature()}, nil
}

// Encode returns the entries as messages.
func Encode(entries []Signed) []*pb.Signed {
	out := make([]*pb.Signed, len(entries))
	for i, s := range entries {
		out[i] = s.toProto()
	}
	return out
}

// Decode reads entries off the wire; it checks form and bounds, not trust. The
// error wraps ErrMalformed.
func Decode(ms []*pb.Signed) ([]Signed, error) {
	out := make([]Signed, len(ms))
	for i, m := range ms {
		s, err := signedFromProto(m)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
		out[i] = s
	}
	return out, nil
}

func uvarintLen(n int) int {
	size := 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}
