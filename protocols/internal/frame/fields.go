package frame

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// Bounds of the fields that several messages have.
const (
	// MaxPeerID is the longest peer ID: an inlined secp256k1 key has 39 bytes.
	MaxPeerID = 48
	// MaxAddrs and MaxAddr bound a peer's addresses, by number and bytes each.
	MaxAddrs = 16
	MaxAddr  = 256
	// MaxSite bounds the name of a site in bytes.
	MaxSite = 128
	// MaxURL bounds a canonical task URL in bytes.
	MaxURL = 8 << 10
	// MaxInt bounds sizes and counts, so that sums of two do not overflow.
	MaxInt = 1 << 62
)

// Malformed returns an error that wraps ErrMalformed, for a field that breaks
// its rules.
func Malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrMalformed, fmt.Errorf(format, args...))
}

// PeerID reads a peer ID off the wire.
func PeerID(b []byte) (peer.ID, error) {
	if len(b) > MaxPeerID {
		return "", Malformed("peer ID of %d bytes: at most %d", len(b), MaxPeerID)
	}
	id, err := peer.IDFromBytes(b)
	if err != nil {
		return "", Malformed("peer ID %x: %w", b, err)
	}
	return id, nil
}

// PeerIDs reads at most limit peer IDs off the wire, each named once.
func PeerIDs(bs [][]byte, limit int) ([]peer.ID, error) {
	if len(bs) > limit {
		return nil, Malformed("%d peer IDs: at most %d", len(bs), limit)
	}
	var out []peer.ID
	for _, b := range bs {
		id, err := PeerID(b)
		if err != nil {
			return nil, err
		}
		for _, other := range out {
			if id == other {
				return nil, Malformed("peer %s is named twice", id)
			}
		}
		out = append(out, id)
	}
	return out, nil
}

// Addrs reads a peer's addresses off the wire.
func Addrs(bs [][]byte) ([]multiaddr.Multiaddr, error) {
	if len(bs) > MaxAddrs {
		return nil, Malformed("%d addresses: at most %d", len(bs), MaxAddrs)
	}
	var out []multiaddr.Multiaddr
	for _, b := range bs {
		if len(b) > MaxAddr {
			return nil, Malformed("address of %d bytes: at most %d", len(b), MaxAddr)
		}
		a, err := multiaddr.NewMultiaddrBytes(b)
		if err != nil {
			return nil, Malformed("address %x: %w", b, err)
		}
		out = append(out, a)
	}
	return out, nil
}

// AppendAddrs encodes a peer's addresses. Those that are too long, and those
// behind the first MaxAddrs, are left out.
func AppendAddrs(dst [][]byte, addrs []multiaddr.Multiaddr) [][]byte {
	for _, a := range addrs {
		if b := a.Bytes(); len(b) > 0 && len(b) <= MaxAddr && len(dst) < MaxAddrs {
			dst = append(dst, b)
		}
	}
	return dst
}

// Int64 reads a size or count off the wire.
func Int64(what string, v uint64) (int64, error) {
	if v > MaxInt {
		return 0, Malformed("%s %d: at most %d", what, v, int64(MaxInt))
	}
	return int64(v), nil
}

// Uint64 encodes a size or count; what is out of range becomes the next in it.
func Uint64(v int64) uint64 { return uint64(min(max(v, 0), MaxInt)) }
