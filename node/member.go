package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	libp2phost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/node/host"
	"github.com/p2pnode/p2pnode/protocols/membership"
)

// Names of what a member keeps in its data directory, mode 0600.
const (
	chainFile       = "membership.cert"
	revocationsFile = "revocations"
	usesFile        = "token-uses.json"
)

// Pauses between tries to get a certificate, and the part of its life before
// the end of which it is renewed.
const (
	joinFirst = 500 * time.Millisecond
	joinMax   = 30 * time.Second
	// refusedPause is the least time between two certificates that are got
	// because a peer refused the one before: it may be the peer that is wrong.
	refusedPause = time.Minute
	renewedPart  = 3
)

// released is before the program can run: a clock that shows less is wrong.
var released = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// built returns when this program was made, as far as it knows.
func built() time.Time {
	info, _ := debug.ReadBuildInfo()
	if info != nil {
		for _, s := range info.Settings {
			if at, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil && at.After(released) {
				return at
			}
		}
	}
	return released
}

// isMember reports whether a data directory holds a certificate.
func isMember(dataDir string) bool {
	_, err := os.Stat(filepath.Join(dataDir, chainFile))
	return err == nil
}

// MembershipStatus is how a node is a member of a closed swarm.
type MembershipStatus struct {
	// Closed says that there is a swarm; without one a node is on loopback only.
	Closed bool `json:"closed"`
	// Note says what that means.
	Note string `json:"note"`
	// Swarm is the public identity of the swarm, Role and Expires what the
	// certificate says; Joined is false before there is one.
	Swarm   string     `json:"swarm,omitempty"`
	Joined  bool       `json:"joined"`
	Role    string     `json:"role,omitempty"`
	Expires *time.Time `json:"expires,omitempty"`
	// Members are the admitted peers among the connected ones; Revocations
	// those known.
	Members     int `json:"members"`
	Revocations int `json:"revocations"`
}

// openStatus is that of a node without a swarm.
func openStatus() MembershipStatus {
	return MembershipStatus{Note: "no swarm: this node listens on loopback only, and whoever is on this machine is served"}
}

// member is this process's membership of a swarm.
type member struct {
	dir         string
	self, swarm peer.ID
	secret      membership.Secret
	revocations *membership.Revocations
	gate        *host.Gate
	log         *slog.Logger

	refused chan struct{}                // a peer refused the certificate; one token
	offline atomic.Pointer[func() bool]  // whether no supernode is reached
	saving  sync.Mutex                   // held while the revocations are written
	revoked atomic.Pointer[func()]       // hears of new revocations
	count   func(membership.Certificate) // counts the use of a token; nil but for a supernode

	mu sync.Mutex
	// mu guards the following.
	vouched map[peer.ID]time.Time // when those who are revoked by date joined anew
}

// openMember reads the membership in a data directory, and takes in a join
// secret; nil where there is neither. The caller gives the gate to its host.
func openMember(dataDir, join string, self peer.ID, log *slog.Logger) (*member, membership.Chain, error) {
	m := &member{dir: dataDir, self: self, log: log, refused: make(chan struct{}, 1)}
	chain, err := m.load()
	if err != nil {
		return nil, nil, err
	}
	if join == "" && chain == nil {
		return nil, nil, nil
	}
	if chain != nil {
		if m.swarm, err = chain.Swarm(); err != nil {
			return nil, nil, m.damaged(err)
		}
	}
	if join != "" {
		if chain, err = m.take(join, chain); err != nil {
			return nil, nil, fmt.Errorf("join: %w", err)
		}
	}
	if chain != nil {
		cert, _, err := chain.Open(m.swarm)
		if err != nil {
			return nil, nil, m.damaged(err)
		}
		if cert.Peer != self {
			return nil, nil, fmt.Errorf("%s is of peer %s, and this is %s: restore the key, or delete the certificate and join anew", m.path(chainFile), cert.Peer, self)
		}
	}
	m.revocations = membership.NewRevocations(m.swarm)
	return m, chain, m.loadRevocations()
}

func (m *member) path(name string) string { return filepath.Join(m.dir, name) }

func (m *member) damaged(err error) error {
	return fmt.Errorf("%s is damaged: %w: restore it, or delete it and join anew", m.path(chainFile), err)
}

// load reads the certificate; nil where there is none.
func (m *member) load() (membership.Chain, error) {
	text, err := os.ReadFile(m.path(chainFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read membership: %w", err)
	}
	return text, nil
}

// take reads a join secret. Of a supernode it is the certificate, which is kept
// where it ends later than the one there is.
func (m *member) take(join string, chain membership.Chain) (membership.Chain, error) {
	s, err := parseJoin(join)
	if err != nil {
		return nil, err
	}
	if chain != nil && s.Swarm != m.swarm {
		return nil, fmt.Errorf("the secret is of swarm %s, but %s is of swarm %s: delete that file to change swarms", s.Swarm, m.path(chainFile), m.swarm)
	}
	m.secret, m.swarm = s, s.Swarm
	if len(s.Issuer) == 0 {
		return chain, nil
	}
	cert, _, err := s.Issuer.Open(s.Swarm)
	if err != nil {
		return nil, err
	}
	if cert.Peer != m.self {
		return nil, fmt.Errorf("the secret is of supernode %s, and this is %s: make one with `p2pnode swarm token --role supernode --peer %s`", cert.Peer, m.self, m.self)
	}
	if old, _, err := chain.Open(s.Swarm); err == nil && !old.Expires.Before(cert.Expires) {
		return chain, nil
	}
	return s.Issuer, m.keep(s.Issuer)
}

// parseJoin reads a join secret, or the file that @FILE names.
func parseJoin(join string) (membership.Secret, error) {
	if file, ok := strings.CutPrefix(join, "@"); ok {
		text, err := os.ReadFile(file)
		if err != nil {
			return membership.Secret{}, fmt.Errorf("read join secret: %w", err)
		}
		join = string(text)
	}
	return membership.ParseSecret(join)
}

// keep writes the certificate.
func (m *member) keep(chain membership.Chain) error {
	if err := writeFile(m.path(chainFile), chain); err != nil {
		return fmt.Errorf("keep certificate: %w", err)
	}
	return nil
}

// loadRevocations reads the known revocations. A line that is not signed by the
// swarm key is left out.
func (m *member) loadRevocations() error {
	text, err := os.ReadFile(m.path(revocationsFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read revocations: %w", err)
	}
	m.readRevocations(string(text))
	return nil
}

func (m *member) readRevocations(text string) {
	for line := range strings.Lines(text) {
		signed, err := membership.ParseRevocation(line)
		if err == nil {
			_, err = m.revocations.Add(signed)
		}
		if err != nil {
			m.log.Warn("a kept revocation cannot be used", "err", err)
		}
	}
}

// writeRevocations returns all that are known as readRevocations reads them.
func (m *member) writeRevocations() string {
	var text strings.Builder
	for _, s := range m.revocations.List() {
		text.WriteString(s.String() + "\n")
	}
	return text.String()
}

// revoke takes revocations in, up to the first that is not the swarm key's, and
// keeps the new ones.
func (m *member) revoke(signed ...membership.SignedRevocation) error {
	var errs []error
	news := false
	for _, s := range signed {
		fresh, err := m.revocations.Add(s)
		news = news || fresh
		if err != nil {
			errs = append(errs, err)
			break
		}
	}
	if !news {
		return errors.Join(errs...)
	}
	m.log.Info("memberships were revoked", "known", len(m.revocations.List()))
	if f := m.revoked.Load(); f != nil {
		(*f)()
	}
	m.saving.Lock()
	defer m.saving.Unlock()
	if err := writeFile(m.path(revocationsFile), []byte(m.writeRevocations())); err != nil {
		errs = append(errs, fmt.Errorf("keep revocations: %w", err))
	}
	return errors.Join(errs...)
}

// Hear takes in the revocations of a heartbeat or its acknowledgement; Sum and All
// are what those tell of.
func (m *member) Hear(revoked [][]byte) {
	signed := make([]membership.SignedRevocation, 0, len(revoked))
	for _, r := range revoked {
		signed = append(signed, r)
	}
	if err := m.revoke(signed...); err != nil {
		m.log.Debug("a peer told of revocations that cannot be used", "err", err)
	}
}

// Sum returns the sum of the known revocations.
func (m *member) Sum() uint64 { return m.revocations.Sum() }

// All returns the known revocations, the newest last.
func (m *member) All() [][]byte {
	var out [][]byte
	for _, s := range m.revocations.List() {
		out = append(out, s)
	}
	return out
}

// admitted hears of each peer whose certificate is good. One that is revoked by
// date is vouched for by a certificate that it got for joining anew.
func (m *member) admitted(c membership.Certificate) {
	if before := m.revocations.Before(c.Peer); !before.IsZero() {
		m.vouch(c)
	}
	if m.count != nil {
		m.count(c)
	}
}

func (m *member) vouch(c membership.Certificate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.vouched == nil {
		m.vouched = make(map[peer.ID]time.Time)
	}
	if at := c.Since(); at.After(m.vouched[c.Peer]) {
		m.vouched[c.Peer] = at
	}
}

// believes reports whether what a peer signs is believed: it is not revoked, or
// by a date after which it joined anew.
func (m *member) believes(id peer.ID) bool {
	before := m.revocations.Before(id)
	if before.IsZero() {
		return true
	}
	if c, ok := m.gate.Certificate(id); ok && !c.Since().Before(before) {
		m.vouch(c) // it joined anew before the revocation was heard of
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.vouched[id]
	return ok && !at.Before(before)
}

// newGate makes the gate.
func (m *member) newGate(chain membership.Chain, issuer membership.Issuer, grace time.Duration) *host.Gate {
	m.gate = host.NewGate(host.GateConfig{
		Swarm: m.swarm, Chain: chain, Revocations: m.revocations, Issuer: issuer,
		Offline: m.isOffline, Grace: grace, Built: built(), Refused: m.onRefused, Admitted: m.admitted, Logger: m.log,
	})
	return m.gate
}

func (m *member) isOffline() bool {
	f := m.offline.Load()
	return f != nil && (*f)()
}

// onRefused asks for another certificate where a peer says that ours is no good.
func (m *member) onRefused(err error) {
	if !errors.Is(err, membership.ErrExpired) && !errors.Is(err, membership.ErrRevoked) {
		m.log.Warn("a peer refused this node's certificate", "err", err)
		return
	}
	select {
	case m.refused <- struct{}{}:
	default:
	}
}

// cert returns the certificate there is.
func (m *member) cert() (membership.Certificate, bool) { return m.gate.Own() }

// run gets a certificate from the supernodes, and renews it until ctx ends. A
// node that never had one fails where all of them refuse its join secret.
func (m *member) run(ctx context.Context, h libp2phost.Host, supernodes []peer.AddrInfo) error {
	fails := 0
	var obtained time.Time
	for {
		wait := time.Duration(0)
		cert, joined := m.cert()
		switch {
		case fails > 0:
			wait = time.Duration((0.5 + rand.Float64()) * float64(min(joinFirst<<min(fails-1, 10), joinMax)))
		case joined:
			life := cert.Expires.Sub(cert.NotBefore)
			wait = time.Until(cert.Expires.Add(-life/renewedPart)) - time.Duration(rand.Float64()*float64(life)/10)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		case <-m.refused:
			timer.Stop()
			if fails > 0 || time.Since(obtained) < refusedPause {
				continue // it is being tried, with a pause, or was just done
			}
		}
		err := m.obtain(ctx, h, supernodes, joined)
		var refused *membership.RefusedError
		switch {
		case err == nil:
			fails, obtained = 0, time.Now()
			continue
		case ctx.Err() != nil:
			return nil
		case !joined && errors.As(err, &refused) && !errors.Is(err, membership.ErrBusy) && !errors.Is(err, membership.ErrUnable):
			return fmt.Errorf("join the swarm: %w", err)
		case fails == 0:
			m.log.Warn("no certificate from any supernode yet, trying on", "err", err)
		}
		fails++
	}
}

// obtain asks one supernode after the other for a certificate. The error is of
// the last one that could not be asked, else what the last one said.
func (m *member) obtain(ctx context.Context, h libp2phost.Host, supernodes []peer.AddrInfo, renew bool) error {
	var verdict, failed error
	for _, s := range supernodes {
		chain, err := m.ask(ctx, h, s, renew)
		var refused *membership.RefusedError
		if err == nil {
			err = m.lasting(chain)
		}
		switch {
		case err == nil:
			if err := m.keep(chain); err != nil {
				return err
			}
			m.gate.SetChain(ctx, chain)
			if c, ok := m.cert(); ok {
				m.log.Info("certificate obtained", "supernode", s.ID, "role", c.Role, "expires", c.Expires)
			}
			return nil
		case errors.As(err, &refused):
			verdict = fmt.Errorf("supernode %s: %w", s.ID, err)
		default:
			failed = err
		}
	}
	if failed != nil {
		return failed
	}
	return verdict
}

// lasting refuses a certificate that is over already: the clock of this machine
// or of the supernode is wrong, and asking again at once would not help.
func (m *member) lasting(chain membership.Chain) error {
	cert, _, err := chain.Open(m.swarm)
	if err == nil && time.Now().After(built()) && errors.Is(cert.Check(time.Now()), membership.ErrExpired) {
		err = fmt.Errorf("it issued a certificate that ended at %s: set the clocks of both machines", cert.Expires.UTC().Format(time.RFC3339))
	}
	return err
}

func (m *member) ask(ctx context.Context, h libp2phost.Host, s peer.AddrInfo, renew bool) (membership.Chain, error) {
	if err := h.Connect(ctx, s); err != nil {
		return nil, fmt.Errorf("reach supernode %s: %w", s.ID, err)
	}
	if !renew {
		return membership.Join(ctx, h, s.ID, m.secret)
	}
	chain, err := membership.Renew(ctx, h, s.ID, m.swarm, m.gate.Chain())
	if _, noToken := m.secret.Token(); err != nil && noToken == nil {
		return membership.Join(ctx, h, s.ID, m.secret)
	}
	return chain, err
}

// status describes the membership.
func (m *member) status() MembershipStatus {
	s := MembershipStatus{
		Closed: true, Note: "a closed swarm: only members are served", Swarm: m.swarm.String(),
		Members: m.gate.Members(), Revocations: len(m.revocations.List()),
	}
	if c, ok := m.cert(); ok {
		s.Joined, s.Role, s.Expires = true, c.Role.String(), &c.Expires
	}
	return s
}

// role returns what the certificate, or else the join secret, makes of this
// node.
func (m *member) role(chain membership.Chain) membership.Role {
	if c, _, err := chain.Open(m.swarm); err == nil {
		return c.Role
	}
	t, err := m.secret.Token()
	if err != nil {
		return 0
	}
	return t.Role
}
