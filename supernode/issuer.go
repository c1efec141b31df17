package supernode

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/protocols/membership"
)

// maxCounted bounds the remembered uses of tokens that have a bound: past it
// such tokens are refused, others are not.
const maxCounted = 65_536

// IssuerConfig says how an Issuer issues. Key, Chain and Revocations are needed.
type IssuerConfig struct {
	// Key is the supernode's; Chain its certificate, signed by the swarm key.
	Key   crypto.PrivKey
	Chain membership.Chain
	// Revocations void tokens and certificates.
	Revocations *membership.Revocations
	// Grace is how long after its end a certificate is still renewed: a site
	// may have been offline.
	Grace time.Duration
	// File keeps the uses of tokens over restarts; "" for nowhere.
	File string
	// Now is nil for time.Now.
	Now func() time.Time
}

// Issuer issues certificates for join secrets, and renews them. It counts the
// uses of a token by the peers that used it: a peer that asks again counts once.
// What other supernodes admitted it counts by the certificates that it sees, since
// members connect to all of them: a token is used more often than it says only
// within the moment that this takes, or while they are cut off from one another.
// Safe for concurrent use. It implements membership.Issuer.
type Issuer struct {
	cfg   IssuerConfig
	swarm peer.ID
	own   membership.Certificate

	mu sync.Mutex
	// mu guards the following; the file is written under it, since a use that
	// is not kept is no use.
	uses  map[string]map[string]time.Time // by token and peer: when the token ends
	count int
}

// NewIssuer returns an Issuer; a file that cannot be read is an error, or a
// token could be used anew.
func NewIssuer(cfg IssuerConfig) (*Issuer, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	id, err := peer.IDFromPrivateKey(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("make issuer: %w", err)
	}
	i := &Issuer{cfg: cfg, uses: make(map[string]map[string]time.Time)}
	swarm, err := cfg.Chain.Swarm()
	if err != nil {
		return nil, fmt.Errorf("make issuer: %w", err)
	}
	own, _, err := cfg.Chain.Open(swarm)
	switch {
	case err != nil:
		return nil, fmt.Errorf("make issuer: %w", err)
	case own.Role != membership.Supernode || own.Peer != id:
		return nil, fmt.Errorf("make issuer: the certificate is of %s, a %s: want one of supernode %s", own.Peer, own.Role, id)
	}
	i.swarm, i.own = swarm, own
	if cfg.File == "" {
		return i, nil
	}
	text, err := os.ReadFile(cfg.File)
	if errors.Is(err, fs.ErrNotExist) {
		return i, nil
	}
	if err == nil {
		err = i.load(text)
	}
	if err != nil {
		return nil, fmt.Errorf("read the used tokens: %w: restore %s, or delete it, which lets tokens be used anew", err, cfg.File)
	}
	return i, nil
}

// load takes over the uses that save wrote.
func (i *Issuer) load(text []byte) error {
	if err := json.Unmarshal(text, &i.uses); err != nil {
		return err
	}
	if i.uses == nil { // the text was null
		i.uses = make(map[string]map[string]time.Time)
	}
	for _, peers := range i.uses {
		i.count += len(peers)
	}
	return nil
}

// Join implements membership.Issuer.
func (i *Issuer) Join(from peer.ID, t membership.Token) (membership.Chain, error) {
	now := i.cfg.Now()
	if err := i.able(now); err != nil {
		return nil, err
	}
	if err := t.Check(now); err != nil {
		return nil, err
	}
	if err := i.cfg.Revocations.Token(t.ID, now); err != nil {
		return nil, err
	}
	c := membership.Certificate{Peer: from, Role: t.Role, NotBefore: now, Expires: now.Add(t.Lifetime), Token: t.ID, Lifetime: t.Lifetime, Joined: now}
	if t.Uses > 0 {
		c.CountedUntil = t.Expires
	}
	if err := i.cfg.Revocations.Check(c); err != nil {
		return nil, err
	}
	if err := i.use(from, t, now); err != nil {
		return nil, err
	}
	return membership.Issue(i.cfg.Key, i.cfg.Chain, c)
}

// Admit issues a certificate without a token: to the node of the same process.
func (i *Issuer) Admit(id peer.ID, role membership.Role, life time.Duration) (membership.Chain, error) {
	now := i.cfg.Now()
	if err := i.able(now); err != nil {
		return nil, err
	}
	c := membership.Certificate{Peer: id, Role: role, NotBefore: now, Expires: now.Add(life), Lifetime: life, Joined: now}
	if err := i.cfg.Revocations.Check(c); err != nil {
		return nil, err
	}
	return membership.Issue(i.cfg.Key, i.cfg.Chain, c)
}

// Renew implements membership.Issuer.
func (i *Issuer) Renew(from peer.ID, chain membership.Chain) (membership.Chain, error) {
	old, issuer, err := chain.Open(i.swarm)
	if err != nil {
		return nil, err
	}
	now := i.cfg.Now()
	if err := i.able(now); err != nil {
		return nil, err
	}
	switch {
	case old.Peer != from:
		return nil, fmt.Errorf("%w: of %s, shown by %s", membership.ErrMalformed, old.Peer, from)
	case old.Role == membership.Supernode:
		return nil, fmt.Errorf("%w: the swarm key renews supernodes", membership.ErrUnable)
	}
	for _, c := range []membership.Certificate{issuer, old} {
		if err := i.cfg.Revocations.Check(c); err != nil {
			return nil, err
		}
		if err := c.Check(now.Add(-i.cfg.Grace)); errors.Is(err, membership.ErrExpired) {
			return nil, err
		}
	}
	return membership.Issue(i.cfg.Key, i.cfg.Chain, membership.Certificate{
		Peer: from, Role: old.Role, NotBefore: now, Expires: now.Add(old.Life()), Token: old.Token,
		Lifetime: old.Life(), Joined: earlier(old.Since(), now), CountedUntil: old.CountedUntil,
	})
}

// earlier keeps a peer that joined by a clock that was ahead from having joined
// after its certificate was made.
func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// able returns an error where the supernode's own certificate is over: what it
// issued would be over too, and the peer would ask for another one at once.
func (i *Issuer) able(now time.Time) error {
	if !now.Before(i.own.Expires) {
		return fmt.Errorf("%w: this supernode's certificate ended on %s", membership.ErrUnable, i.own.Expires.UTC().Format(time.RFC3339))
	}
	return nil
}

// use counts a peer that uses a token.
func (i *Issuer) use(from peer.ID, t membership.Token, now time.Time) error {
	if t.Uses == 0 {
		return nil
	}
	id, by := t.ID.String(), from.String()
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, again := i.uses[id][by]; again {
		return nil
	}
	i.forget(now)
	if len(i.uses[id]) >= int(t.Uses) {
		return fmt.Errorf("token %s: %w", id, membership.ErrUsedUp)
	}
	if i.count >= maxCounted {
		return fmt.Errorf("%w: %d uses of tokens are remembered", membership.ErrBusy, i.count)
	}
	if i.uses[id] == nil {
		i.uses[id] = make(map[string]time.Time)
	}
	i.uses[id][by] = t.Expires
	i.count++
	if err := i.save(); err != nil {
		delete(i.uses[id], by)
		i.count--
		return fmt.Errorf("%w: %w", membership.ErrBusy, err)
	}
	return nil
}

// Seen counts a peer whose certificate another supernode issued for a token with
// a bound. It is written with the next use: after a restart the peer is seen again.
func (i *Issuer) Seen(c membership.Certificate) {
	now := i.cfg.Now()
	if !now.Before(c.CountedUntil) {
		return
	}
	id, by := c.Token.String(), c.Peer.String()
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, again := i.uses[id][by]; again || i.count >= maxCounted {
		return
	}
	if i.uses[id] == nil {
		i.uses[id] = make(map[string]time.Time)
	}
	i.uses[id][by] = c.CountedUntil
	i.count++
}

// forget drops the tokens whose time is over; the caller holds mu.
func (i *Issuer) forget(now time.Time) {
	for id, peers := range i.uses {
		for _, expires := range peers {
			if now.After(expires) {
				i.count -= len(peers)
				delete(i.uses, id)
			}
			break // all have the token's
		}
	}
}

// save writes the uses; the caller holds mu.
func (i *Issuer) save() error {
	if i.cfg.File == "" {
		return nil
	}
	text, err := json.Marshal(i.uses)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(i.cfg.File), "."+filepath.Base(i.cfg.File)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), i.cfg.File)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keep the used tokens: %w", err), os.Remove(f.Name()))
	}
	return nil
}
