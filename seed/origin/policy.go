package origin

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/net/idna"
)

// Policy says to which targets requests may go. URLs are named by peers, so a
// seed must not be a way into the network it stands in: of the addresses only
// public unicast ones are open, and whatever the operator allows. The zero
// value and nil allow nothing more. A Policy is immutable and safe for
// concurrent use.
//
// Rejected: checking the URL's host before the request. The name may resolve to
// another address when it is dialled (DNS rebinding).
type Policy struct {
	hosts    map[string]bool // exact names
	suffixes []string        // ".example.org" for *.example.org
	prefixes []netip.Prefix

	only *Policy                   // the hosts that origins may have; nil for all
	self func(netip.AddrPort) bool // this node's own ports; nil for none

	// resolve is for CheckURL; nil for net.DefaultResolver's LookupNetIP.
	resolve func(ctx context.Context, network, host string) ([]netip.Addr, error)
	// unresolved has the allowed names that did not resolve, and until when they are
	// not looked up; the least recently used of maxUnresolved is forgotten. Nil where
	// no name is allowed.
	unresolved *lru.Cache[string, time.Time]
}

// AnywhereBut returns a policy that admits all addresses but a node's own ports,
// which self reports. It is for clients who can go to those places themselves.
func AnywhereBut(self func(netip.AddrPort) bool) *Policy {
	all := []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	return &Policy{prefixes: all, self: self}
}

// Within returns p with two more bounds. Where only lists anything, in the form
// of NewPolicy's allow, no other host is asked, be its address open or not. self
// reports the node's own ports: nothing opens them, for who is asked to fetch
// from them is asked to talk to himself with his own rights.
func (p *Policy) Within(only []string, self func(netip.AddrPort) bool) (*Policy, error) {
	var bounded Policy
	if p != nil {
		bounded = *p
	}
	bounded.self = self
	if len(only) > 0 {
		var err error
		if bounded.only, err = NewPolicy(only); err != nil {
			return nil, err
		}
	}
	return &bounded, nil
}

// checkHost returns an error where the host of a URL is none that may be asked.
func (p *Policy) checkHost(host string) error {
	if p == nil || p.only == nil || p.only.allowsName(host) {
		return nil
	}
	if a, err := netip.ParseAddr(host); err == nil {
		a = a.Unmap()
		if slices.ContainsFunc(p.only.prefixes, func(x netip.Prefix) bool { return x.Contains(a) }) {
			return nil
		}
	}
	return fmt.Errorf("%w: %s is not in --origin-only", ErrForbiddenTarget, host)
}

// checkSelf returns an error where an address is this node's own.
func (p *Policy) checkSelf(address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: address %q: %w", ErrForbiddenTarget, address, err)
	}
	if p != nil && p.self != nil && p.self(netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())) {
		return fmt.Errorf("%w: %s is %w", ErrForbiddenTarget, ap, ErrSelf)
	}
	return nil
}

// NewPolicy returns a policy that admits, besides public addresses, what allow
// lists: an IP address, a CIDR prefix, a host name, or *.name for all names
// below it. A host name admits whatever it resolves to, private addresses
// included: allow only names whose DNS you trust. An entry has no port.
func NewPolicy(allow []string) (*Policy, error) {
	unresolved, err := lru.New[string, time.Time](maxUnresolved)
	if err != nil {
		panic("origin: " + err.Error()) // the size is a positive constant
	}
	p := &Policy{hosts: make(map[string]bool), unresolved: unresolved}
	for _, entry := range allow {
		if prefix, ok := parsePrefix(entry); ok {
			p.prefixes = append(p.prefixes, prefix)
			continue
		}
		name, wildcard := strings.CutPrefix(entry, "*.")
		ascii, err := idna.Lookup.ToASCII(strings.TrimSuffix(name, "."))
		if err != nil || ascii == "" || strings.ContainsAny(ascii, ":/*@?#[] ") {
			return nil, fmt.Errorf("allowed origin %q: want a host name, *.name, an IP address or a CIDR prefix, without scheme and port", entry)
		}
		if wildcard {
			p.suffixes = append(p.suffixes, "."+ascii)
		} else {
			p.hosts[ascii] = true
		}
	}
	return p, nil
}

// parsePrefix reads an address or a prefix; IPv4-mapped IPv6 becomes IPv4.
func parsePrefix(s string) (netip.Prefix, bool) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, false
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), true
}

// allowsName reports whether the operator allows a host by its name.
func (p *Policy) allowsName(host string) bool {
	if p == nil {
		return false
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if p.hosts[host] {
		return true
	}
	for _, s := range p.suffixes {
		if strings.HasSuffix(host, s) && len(host) > len(s) {
			return true
		}
	}
	return false
}

// CheckAddr returns an error that wraps ErrForbiddenTarget where connections to
// the address are not allowed.
func (p *Policy) CheckAddr(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	forms := []netip.Addr{a}
	if v4, ok := embedded(a); ok {
		forms = append(forms, v4)
	}
	if p != nil {
		for _, prefix := range p.prefixes {
			for _, form := range forms {
				if prefix.Contains(form) {
					return nil
				}
			}
		}
	}
	for _, form := range forms {
		if reason := notPublic(form); reason != "" {
			return fmt.Errorf("%w: %s is %s; --origin-allow can admit it", ErrForbiddenTarget, a, reason)
		}
	}
	return nil
}

// Control is a net.Dialer's ControlContext: it checks the resolved address of
// each connection before it is made.
func (p *Policy) Control(_ context.Context, network, address string, _ syscall.RawConn) error {
	if !strings.HasPrefix(network, "tcp") {
		return fmt.Errorf("%w: network %s", ErrForbiddenTarget, network)
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: address %q: %w", ErrForbiddenTarget, address, err)
	}
	if err := p.checkSelf(address); err != nil {
		return err
	}
	return p.CheckAddr(ap.Addr())
}

// DialContext returns a dial function that obeys the policy: names that are
// allowed as such are dialled freely, all others under Control. It copies d.
func (p *Policy) DialContext(d *net.Dialer) func(ctx context.Context, network, addr string) (net.Conn, error) {
	free, checked := *d, *d
	checked.ControlContext = p.Control
	free.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error { return p.checkSelf(address) }
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err == nil {
			err = p.checkHost(host)
		}
		if err != nil {
			return nil, &net.OpError{Op: "dial", Net: network, Err: err}
		}
		if p.allowsName(host) {
			return free.DialContext(ctx, network, addr)
		}
		return checked.DialContext(ctx, network, addr)
	}
}

// CheckURL checks a target that somebody else, an upstream proxy, is going to
// dial: the scheme, and every address that the host name has here. It cannot check
// what the proxy resolves the name to. A name that does not resolve here is
// refused, since nothing is known of it; an operator whose proxy alone can resolve
// allows it by name. One that does is allowed by its name like by DialContext: any
// address but the node's own. It may block on DNS, for an allowed name for ownLookup,
// and once one did not resolve it is not looked up for unresolvedMemory.
func (p *Policy) CheckURL(ctx context.Context, u *url.URL) error {
	if err := checkScheme(u); err != nil {
		return err
	}
	host := u.Hostname()
	if err := p.checkHost(host); err != nil {
		return err
	}
	port := uint64(80)
	if u.Scheme == "https" {
		port = 443
	}
	if s := u.Port(); s != "" {
		var err error
		if port, err = strconv.ParseUint(s, 10, 16); err != nil {
			return fmt.Errorf("%w: port %q", ErrForbiddenTarget, s)
		}
	}
	allowed := p.allowsName(host)
	var addrs []netip.Addr
	var err error
	if allowed {
		addrs = p.lookupAllowed(ctx, host)
	} else if addrs, err = p.lookup(ctx, host); err != nil {
		return fmt.Errorf("%w: %s cannot be checked before it is given to the proxy; --origin-allow can admit it: %w", ErrForbiddenTarget, host, err)
	}
	for _, a := range addrs {
		err := p.checkSelf(netip.AddrPortFrom(a, uint16(port)).String())
		if err == nil && !allowed {
			err = p.CheckAddr(a)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

const (
	// ownLookup is how long an allowed name may take to resolve: this node's own names
	// do at once, and where the upstream proxy alone can resolve, requests for a name
	// wait so long once in unresolvedMemory.
	ownLookup        = time.Second
	unresolvedMemory = time.Minute
	maxUnresolved    = 1024
)

func (p *Policy) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	resolve := net.DefaultResolver.LookupNetIP
	if p != nil && p.resolve != nil {
		resolve = p.resolve
	}
	return resolve(ctx, "ip", host)
}

// lookupAllowed is lookup for an allowed name: one that does not resolve has no
// address here.
func (p *Policy) lookupAllowed(ctx context.Context, host string) []netip.Addr {
	host = strings.ToLower(strings.TrimSuffix(host, ".")) // with the dot /etc/hosts is passed over
	if until, ok := p.unresolved.Get(host); ok && time.Now().Before(until) {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, ownLookup)
	defer cancel()
	addrs, err := p.lookup(limited, host)
	if err != nil && ctx.Err() == nil { // else it says nothing of the name
		p.unresolved.Add(host, time.Now().Add(unresolvedMemory))
	}
	return addrs
}

func checkScheme(u *url.URL) error {
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%w: scheme %q, host %q: want http or https and a host", ErrForbiddenTarget, u.Scheme, u.Host)
	}
	return nil
}
