package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/node/host"
	"github.com/p2pnode/p2pnode/protocols/membership"
)

// swarmKeyFile is the swarm key in its directory.
const swarmKeyFile = "swarm.key"

// Defaults of what a swarm key signs.
const (
	// DefaultLifetime is how long the certificate of a reader or seed lives;
	// supernodes renew it.
	DefaultLifetime = 7 * 24 * time.Hour
	// DefaultTokenLife is how long a join secret is exchanged.
	DefaultTokenLife = 24 * time.Hour
	// DefaultSupernodeLife is how long a supernode's certificate lives; the
	// operator renews it.
	DefaultSupernodeLife = 365 * 24 * time.Hour
	// DefaultOfflineGrace is how long a node without supernodes believes
	// certificates after their end.
	DefaultOfflineGrace = 7 * 24 * time.Hour
)

// InitSwarm makes a swarm key in a directory, which is made if it is missing,
// and returns the swarm's public identity. A key that is there is not replaced:
// the error then wraps fs.ErrExist.
func InitSwarm(dir string) (peer.ID, error) {
	path := filepath.Join(dir, swarmKeyFile)
	if _, err := os.Stat(path); err == nil {
		return "", fmt.Errorf("make swarm key: %s: %w", path, fs.ErrExist)
	}
	key, err := host.LoadOrCreateKey(path)
	if err != nil {
		return "", err
	}
	return membership.SwarmID(key)
}

// swarmKey reads the key of a directory.
func swarmKey(dir string) (crypto.PrivKey, error) {
	path := filepath.Join(dir, swarmKeyFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no swarm key at %s: make one with `p2pnode swarm init`, or name its directory with --swarm-dir", path)
	}
	return host.LoadOrCreateKey(path)
}

// SwarmIdentity returns the public identity of the swarm key in a directory.
func SwarmIdentity(dir string) (peer.ID, error) {
	key, err := swarmKey(dir)
	if err != nil {
		return "", err
	}
	return membership.SwarmID(key)
}

// TokenConfig says what a join secret is good for.
type TokenConfig struct {
	// Role is reader, seed or supernode.
	Role string
	// Peer is the supernode's peer ID; only for that role, which needs it.
	Peer string
	// Uses is how many peers a supernode admits with it; 0 for any number.
	Uses uint32
	// Expires is how long it can be exchanged; of a supernode how long its
	// certificate lives. 0 is DefaultTokenLife or DefaultSupernodeLife.
	Expires time.Duration
	// Lifetime is that of the certificates; 0 is DefaultLifetime.
	Lifetime time.Duration
}

// JoinSecret is a new join secret and what it is.
type JoinSecret struct {
	// Secret is what --join takes.
	Secret string
	// Token names it for `p2pnode swarm revoke`; empty for a supernode's.
	Token   string
	Swarm   peer.ID
	Expires time.Time
}

// NewJoinSecret makes a join secret with the swarm key in a directory. A wrong
// field of cfg is a *FieldError.
func NewJoinSecret(dir string, cfg TokenConfig) (JoinSecret, error) {
	role, err := membership.ParseRole(cfg.Role)
	if err != nil {
		return JoinSecret{}, &FieldError{"role", cfg.Role, "is no role: write reader, seed or supernode"}
	}
	for field, d := range map[string]time.Duration{"expires": cfg.Expires, "lifetime": cfg.Lifetime} {
		if d < 0 || d > membership.MaxLifetime {
			return JoinSecret{}, &FieldError{field, d.String(), "must be from 1s to ten years"}
		}
	}
	if (role == membership.Supernode) != (cfg.Peer != "") {
		return JoinSecret{}, &FieldError{"peer", cfg.Peer, "belongs to the role supernode, and only to it: `p2pnode id` prints a supernode's"}
	}
	key, err := swarmKey(dir)
	if err != nil {
		return JoinSecret{}, err
	}
	if role == membership.Supernode {
		return supernodeSecret(key, cfg)
	}
	s, t, err := membership.NewSecret(key, membership.Token{
		Role: role, Uses: cfg.Uses, Expires: time.Now().Add(or(cfg.Expires, DefaultTokenLife)), Lifetime: or(cfg.Lifetime, DefaultLifetime),
	})
	return JoinSecret{Secret: s.String(), Token: t.ID.String(), Swarm: t.Swarm, Expires: t.Expires}, err
}

func supernodeSecret(key crypto.PrivKey, cfg TokenConfig) (JoinSecret, error) {
	id, err := peer.Decode(cfg.Peer)
	if err != nil {
		return JoinSecret{}, &FieldError{"peer", cfg.Peer, "is no peer ID: `p2pnode id` prints it"}
	}
	now := time.Now()
	c := membership.Certificate{Peer: id, NotBefore: now, Expires: now.Add(or(cfg.Expires, DefaultSupernodeLife))}
	chain, err := membership.IssueSupernode(key, c)
	if err != nil {
		return JoinSecret{}, err
	}
	s, err := membership.SupernodeSecret(chain)
	return JoinSecret{Secret: s.String(), Swarm: s.Swarm, Expires: c.Expires}, err
}

// Revoke signs, with the swarm key in a directory, that the certificates of a
// peer, or of all who joined with a token, are void: those issued before a time,
// or all where it is zero. The text is for `p2pnode supernode revoke`.
func Revoke(dir, subject string, before time.Time) (string, error) {
	r := membership.Revocation{NotBefore: before}
	if id, err := peer.Decode(subject); err == nil {
		r.Peer = id
	} else if r.Token, err = membership.ParseTokenID(subject); err != nil {
		return "", &FieldError{"revoke", subject, "is neither a peer ID nor the ID of a token"}
	}
	key, err := swarmKey(dir)
	if err != nil {
		return "", err
	}
	signed, err := membership.Revoke(key, r)
	return signed.String(), err
}
