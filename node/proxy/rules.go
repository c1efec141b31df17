package proxy

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Action is what a rule does with a request.
type Action string

// Actions of rules. A request that no rule takes is ActionP2P.
const (
	// ActionP2P goes through the swarm, where a shared cache may answer it.
	ActionP2P Action = "p2p"
	// ActionDirect goes to the origin, untouched.
	ActionDirect Action = "direct"
	// ActionBlock is refused (403).
	ActionBlock Action = "block"
)

// Rule says what happens to the requests that it takes: those that meet all of
// its conditions. An empty condition is met by every request.
type Rule struct {
	// URL is a regular expression (RE2) that the canonical task URL, without
	// the filtered query parameters, must match somewhere. Of a tunnel the URL
	// is not known: a rule with this condition does not take it.
	URL string
	// Hosts are names, "*.name" for all names below one, addresses and CIDR
	// blocks; the host is compared as the URL has it and is not looked up.
	Hosts []string
	// Methods are in capitals; CONNECT is a tunnel.
	Methods []string
	// MinSize and MaxSize bound the size of the file in bytes, both included; 0
	// is no bound. The size is learnt from the swarm before the rule is decided
	// on. Requests whose answer has none do not meet such a condition.
	MinSize, MaxSize int64
	// Action is what is done.
	Action Action
	// Fresh, where positive, is how long a file counts as current on this node
	// after it was confirmed, whatever the origin says. With ActionP2P alone.
	Fresh time.Duration
	// Prefetch says how much of a file is brought in when a part of it was read:
	// PrefetchAsked, PrefetchWhole, or "" for what the node does otherwise. With
	// ActionP2P alone.
	Prefetch string
	// Private says, of this node as a seed, to whom it grants private files while
	// their origin cannot be reached: "strict" or "" to nobody; "grace(1h)", with
	// any duration, to those whom the origin let in no longer ago; "open" to all
	// who show credentials, of whatever worth. With ActionP2P alone.
	Private string
}

// Values of Rule.Prefetch.
const (
	PrefetchAsked = "asked"
	PrefetchWhole = "whole"
)

// Grace returns what Private says: for how long after the origin let somebody in,
// and whether everybody with credentials is let in.
func (r Rule) Grace() (after time.Duration, open bool) {
	after, open, _ = parsePrivate(r.Private)
	return after, open
}

func parsePrivate(s string) (after time.Duration, open, ok bool) {
	switch s {
	case "", "strict":
		return 0, false, true
	case "open":
		return 0, true, true
	}
	text, begins := strings.CutPrefix(s, "grace(")
	text, ends := strings.CutSuffix(text, ")")
	after, err := time.ParseDuration(text)
	return after, false, begins && ends && err == nil && after > 0
}

// RuleError says what is wrong with a rule. Index is its place, from 0 on; Key
// is as in the configuration file.
type RuleError struct {
	Index      int
	Key, Value string
	Reason     string
}

// Error is one line.
func (e *RuleError) Error() string {
	return fmt.Sprintf("rule %d: %s: %q %s", e.Index+1, e.Key, e.Value, e.Reason)
}

// Rules is a list of rules of which the first that takes a request counts. The
// nil Rules has none. It does not change.
type Rules struct{ rules []compiled }

type compiled struct {
	Rule
	url      *regexp.Regexp
	prefixes []netip.Prefix
	names    []string
}

// maxRules bounds a list: each request is compared with all of them.
const maxRules = 1024

// NewRules checks and compiles a list. The error is a *RuleError.
func NewRules(list []Rule) (*Rules, error) {
	out := new(Rules)
	for i, r := range list {
		bad := func(key, value, reason string) error { return &RuleError{i, key, value, reason} }
		if i == maxRules {
			return nil, bad("rules", fmt.Sprint(len(list)), fmt.Sprintf("are more than %d", maxRules))
		}
		c := compiled{Rule: r}
		if r.URL != "" {
			var err error
			if c.url, err = regexp.Compile(r.URL); err != nil {
				return nil, bad("url", r.URL, "is no regular expression: "+err.Error())
			}
		}
		for _, h := range r.Hosts {
			if !c.addHost(h) {
				return nil, bad("host", h, "is no host name, *.name, address or CIDR block: write it without scheme and port")
			}
		}
		for _, m := range r.Methods {
			if m == "" || m != strings.ToUpper(m) || strings.ContainsAny(m, " \t,") {
				return nil, bad("method", m, "is no method in capitals")
			}
		}
		if r.MinSize < 0 || r.MaxSize < 0 || r.MaxSize > 0 && r.MaxSize < r.MinSize {
			return nil, bad("max-size", fmt.Sprint(r.MaxSize), fmt.Sprintf("is below min-size %d", r.MinSize))
		}
		if !slices.Contains([]Action{ActionP2P, ActionDirect, ActionBlock}, r.Action) {
			return nil, bad("action", string(r.Action), "is not p2p, direct or block")
		}
		if r.Fresh < 0 || r.Fresh > 0 && r.Action != ActionP2P {
			return nil, bad("fresh", r.Fresh.String(), "is for action p2p, and positive")
		}
		if !slices.Contains([]string{"", PrefetchAsked, PrefetchWhole}, r.Prefetch) || r.Prefetch != "" && r.Action != ActionP2P {
			return nil, bad("prefetch", r.Prefetch, "is not asked or whole, with action p2p")
		}
		if _, _, ok := parsePrivate(r.Private); !ok || r.Private != "" && r.Action != ActionP2P {
			return nil, bad("private", r.Private, "is not strict, grace(DURATION) or open, with action p2p")
		}
		out.rules = append(out.rules, c)
	}
	return out, nil
}

// addHost takes one of Rule.Hosts.
func (c *compiled) addHost(s string) bool {
	if p, err := netip.ParsePrefix(s); err == nil {
		c.prefixes = append(c.prefixes, p.Masked())
		return true
	}
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		c.prefixes = append(c.prefixes, netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()))
		return true
	}
	name := strings.TrimPrefix(s, "*.")
	if name == "" || strings.ContainsAny(name, "*/:@?# \t") {
		return false
	}
	c.names = append(c.names, strings.ToLower(s))
	return true
}

// Asked is what rules decide on.
type Asked struct {
	Method string
	// URL is the canonical task URL; of a tunnel it is empty.
	URL string
	// Host is the URL's or the tunnel's, canonical, without a port.
	Host string
	// Size of the file in bytes, or SizeUnknown, or SizeNone.
	Size int64
}

// What Asked.Size may be instead of a size.
const (
	// SizeUnknown: it can still be learnt.
	SizeUnknown = -1
	// SizeNone: there is none, as of an upload or a tunnel.
	SizeNone = -2
)

// HostOf returns the host of a canonical URL, without port and brackets.
func HostOf(canonical string) string {
	u, err := url.Parse(canonical)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// Decide returns the first rule that takes a request, and its place from 0 on;
// without one, ActionP2P and -1. It reports false where the size decides and is
// not known: the rule is then the first that may take it.
func (r *Rules) Decide(a Asked) (rule Rule, index int, ok bool) {
	if r == nil {
		return Rule{Action: ActionP2P}, -1, true
	}
	for i, c := range r.rules {
		if !c.takes(a) {
			continue
		}
		switch sized := c.MinSize > 0 || c.MaxSize > 0; {
		case !sized:
			return c.Rule, i, true
		case a.Size == SizeUnknown:
			return c.Rule, i, false
		case a.Size >= c.MinSize && (c.MaxSize == 0 || a.Size <= c.MaxSize) && a.Size >= 0:
			return c.Rule, i, true
		}
	}
	return Rule{Action: ActionP2P}, -1, true
}

// takes reports whether all conditions but the size are met.
func (c *compiled) takes(a Asked) bool {
	if len(c.Methods) > 0 && !slices.Contains(c.Methods, a.Method) {
		return false
	}
	if c.url != nil && (a.URL == "" || !c.url.MatchString(a.URL)) {
		return false
	}
	return len(c.Hosts) == 0 || c.host(a.Host)
}

func (c *compiled) host(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		addr = addr.Unmap()
		return slices.ContainsFunc(c.prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
	}
	host = strings.TrimSuffix(host, ".")
	return slices.ContainsFunc(c.names, func(name string) bool {
		if below, ok := strings.CutPrefix(name, "*"); ok {
			return strings.HasSuffix(host, below)
		}
		return host == name
	})
}
