package node

import (
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pnode/p2pnode/node/host"
)

// Names of the keys in a data directory: of the node or of a supernode alone,
// and of the embedded supernode.
const (
	identityFile = "identity.key"
	embeddedFile = "supernode.key"
)

// PeerID returns the peer ID of the node, or of the supernode alone, whose data
// directory this is. It makes the directory and the identity where there is
// none, so that an address can be given out before the first start. A process
// that has the directory open is not disturbed.
func PeerID(dataDir string) (peer.ID, error) {
	if err := checkDataDir(dataDir); err != nil {
		return "", err
	}
	_, id, err := identity(dataDir, identityFile)
	return id, err
}

// EmbeddedID is PeerID of the supernode that a daemon without others runs itself.
func EmbeddedID(dataDir string) (peer.ID, error) {
	if err := checkDataDir(dataDir); err != nil {
		return "", err
	}
	_, id, err := identity(dataDir, embeddedFile)
	return id, err
}

// identity returns a key of a data directory and its peer ID, making it where
// there is none.
func identity(dataDir, file string) (crypto.PrivKey, peer.ID, error) {
	key, err := host.LoadOrCreateKey(filepath.Join(dataDir, file))
	if err != nil {
		return nil, "", err
	}
	id, err := peer.IDFromPrivateKey(key)
	return key, id, err
}
