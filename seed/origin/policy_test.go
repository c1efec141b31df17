package origin

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestPolicyAddresses(t *testing.T) {
	for addr, open := range map[string]bool{
		"8.8.8.8": true, "1.1.1.1": true, "100.63.255.255": true, "100.128.0.0": true,
		"172.15.255.255": true, "172.32.0.0": true, "223.255.255.255": true, "168.63.129.15": true,
		"11.0.0.0": true, "169.253.255.255": true, "198.17.255.255": true, "198.20.0.0": true,
		"2606:4700::1111": true, "2a00:1450::1": true, "2001:200::1": true,
		"::ffff:8.8.8.8": true, "64:ff9b::808:808": true,

		"0.0.0.0": false, "0.1.2.3": false, "10.0.0.1": false, "10.255.255.255": false,
		"100.64.0.1": false, "100.127.255.255": false, "100.100.100.200": false,
		"127.0.0.1": false, "127.255.255.255": false, "168.63.129.16": false,
		"169.254.0.1": false, "169.254.169.254": false, "169.254.170.2": false,
		"172.16.0.1": false, "172.31.255.255": false, "192.0.0.1": false, "192.0.0.192": false,
		"192.0.2.1": false, "192.88.99.1": false, "192.168.1.1": false, "198.18.0.1": false,
		"198.19.255.255": false, "198.51.100.7": false, "203.0.113.9": false,
		"224.0.0.1": false, "239.255.255.255": false, "240.0.0.1": false, "255.255.255.255": false,

		"::": false, "::1": false, "::7f00:1": false, "fe80::1": false, "fe80::1%eth0": false, "fec0::1": false,
		"fc00::1": false, "fd00:ec2::254": false, "fd12::1": false, "ff02::1": false, "100::1": false,
		"2001::1": false, "2001:2::1": false, "2001:10::1": false, "2001:20::1": false, "2001:db8::1": false,
		"2002:a00:1::1": false, "3fff::1": false, "5f00::1": false, "4000::1": false,
		"::ffff:10.0.0.1": false, "::ffff:127.0.0.1": false, "::ffff:169.254.169.254": false,
		"::ffff:0:10.0.0.1": false, "64:ff9b::a00:1": false, "64:ff9b::a9fe:a9fe": false,
		"64:ff9b::7f00:1": false, "64:ff9b:1::808:808": false,
	} {
		for _, p := range []*Policy{nil, {}} {
			err := p.CheckAddr(netip.MustParseAddr(addr))
			if open != (err == nil) || err != nil && !errors.Is(err, ErrForbiddenTarget) {
				t.Errorf("%s: got %v, want open %t", addr, err, open)
			}
		}
	}
	if err := (*Policy)(nil).CheckAddr(netip.Addr{}); err == nil {
		t.Error("the zero address is open")
	}
}

func TestPolicyAllow(t *testing.T) {
	p, err := NewPolicy([]string{"10.1.0.0/16", "192.168.7.9", "[fd00::5]", "fc01::/32", "::ffff:172.16.0.0/108", "cache.corp", "*.Lab.example.", "bücher.example"})
	if err != nil {
		t.Fatal(err)
	}
	for addr, open := range map[string]bool{
		"10.1.255.1": true, "10.2.0.1": false, "192.168.7.9": true, "192.168.7.10": false,
		"fd00::5": true, "fd00::6": false, "fc01:0:1::1": true, "172.16.3.4": true, "172.32.3.4": true,
		"172.31.0.0": true, "::ffff:10.1.0.1": true, "64:ff9b::10.1.0.1": true, "64:ff9b::10.2.0.1": false,
	} {
		if err := p.CheckAddr(netip.MustParseAddr(addr)); open != (err == nil) {
			t.Errorf("%s: got %v, want open %t", addr, err, open)
		}
	}
	for name, allowed := range map[string]bool{
		"cache.corp": true, "CACHE.corp.": true, "x.cache.corp": false, "cache.corporation": false,
		"a.lab.example": true, "a.b.LAB.example": true, "lab.example": false, ".lab.example": false, "badlab.example": false,
		"xn--bcher-kva.example": true, "": false,
	} {
		if got := p.allowsName(name); got != allowed {
			t.Errorf("name %q: allowed %t, want %t", name, got, allowed)
		}
	}
	for _, bad := range []string{"", "*", "*.", "http://host", "host:80", "host/path", "10.0.0.0/33", "a b", "user@host", "*.*.example"} {
		if _, err := NewPolicy([]string{bad}); err == nil || !strings.Contains(err.Error(), "allowed origin") {
			t.Errorf("entry %q: got %v", bad, err)
		}
	}
}

func TestPolicyControl(t *testing.T) {
	var p *Policy
	for _, tc := range []struct {
		network, address string
		open             bool
	}{
		{"tcp4", "8.8.8.8:443", true},
		{"tcp6", "[2606:4700::1111]:443", true},
		{"tcp4", "127.0.0.1:80", false},
		{"tcp6", "[fe80::1%lo]:80", false},
		{"udp4", "8.8.8.8:53", false},
		{"unix", "/run/docker.sock", false},
		{"tcp", "nonsense", false},
	} {
		err := p.Control(t.Context(), tc.network, tc.address, nil)
		if tc.open != (err == nil) || err != nil && !errors.Is(err, ErrForbiddenTarget) {
			t.Errorf("%s %s: got %v, want open %t", tc.network, tc.address, err, tc.open)
		}
	}
}

// The check follows the address that is dialled, not the name: a public name
// may well resolve to a private address.
func TestPolicyDialsByResolvedAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, tc := range []struct {
		allow []string
		host  string
		open  bool
	}{
		{nil, "localhost", false},
		{nil, "127.0.0.1", false},
		{[]string{"localhost"}, "localhost", true},
		{[]string{"localhost"}, "127.0.0.1", false},
		{[]string{"127.0.0.0/8"}, "localhost", true},
		{[]string{"10.0.0.0/8"}, "localhost", false},
	} {
		p, err := NewPolicy(tc.allow)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := p.DialContext(&net.Dialer{})(deadline(t), "tcp", net.JoinHostPort(tc.host, port))
		if err == nil {
			conn.Close()
		}
		if tc.open != (err == nil) || err != nil && !errors.Is(err, ErrForbiddenTarget) {
			t.Errorf("allow %q, dial %s: got %v, want open %t", tc.allow, tc.host, err, tc.open)
		}
	}
}

func TestPolicyCheckURL(t *testing.T) {
	var p *Policy
	for raw, open := range map[string]bool{
		"https://8.8.8.8/x": true, "http://[2606:4700::1111]:8080/": true,
		"http://127.0.0.1/": false, "http://[::1]/": false, "http://localhost/": false,
		"ftp://8.8.8.8/": false, "http:///": false, "mailto:a@b": false,
		"file:///etc/passwd": false, "file://8.8.8.8/etc/passwd": false, "unix:///run/docker.sock": false, "gopher://8.8.8.8/": false,
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.CheckURL(deadline(t), u); open != (err == nil) || err != nil && !errors.Is(err, ErrForbiddenTarget) {
			t.Errorf("%s: got %v, want open %t", raw, err, open)
		}
	}
}

// Nothing opens the node's own ports: no address that is allowed, no name.
func TestPolicyOwnPorts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	own := l.Addr().(*net.TCPAddr).AddrPort()
	for _, allow := range [][]string{{"127.0.0.0/8"}, {"localhost"}} {
		p, err := NewPolicy(allow)
		if err != nil {
			t.Fatal(err)
		}
		bounded, err := p.Within(nil, func(a netip.AddrPort) bool { return a == own })
		if err != nil {
			t.Fatal(err)
		}
		for name, tc := range map[string]struct {
			p    *Policy
			open bool
		}{"without": {p, true}, "with": {bounded, false}} {
			_, port, _ := net.SplitHostPort(l.Addr().String())
			conn, err := tc.p.DialContext(&net.Dialer{})(deadline(t), "tcp4", net.JoinHostPort("localhost", port))
			if err == nil {
				conn.Close()
			}
			if tc.open != (err == nil) || err != nil && !errors.Is(err, ErrForbiddenTarget) {
				t.Errorf("allow %q, %s the bound: got %v, want open %t", allow, name, err, tc.open)
			}
		}
	}
	allowing, err := NewPolicy([]string{"localhost", "*.test"})
	if err != nil {
		t.Fatal(err)
	}
	allowing, err = allowing.Within(nil, func(a netip.AddrPort) bool { return a.Addr().IsLoopback() && (a.Port() == 65000 || a.Port() == 443) })
	if err != nil {
		t.Fatal(err)
	}
	for raw, open := range map[string]bool{
		"http://localhost:65000/": false, "http://LOCALHOST.:65000/": false, "https://localhost/": false, "http://localhost/": true,
		"http://a..test:65000/": true, "http://a..test:65537/": false, // a name that resolves nowhere
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		err = allowing.CheckURL(deadline(t), u)
		if open != (err == nil) || err != nil && !errors.Is(err, ErrForbiddenTarget) || err != nil && u.Port() != "65537" && !errors.Is(err, ErrSelf) {
			t.Errorf("%s by way of a proxy, allowed by its name: %v, want open %t", raw, err, open)
		}
	}
	bounded, err := (*Policy)(nil).Within(nil, func(a netip.AddrPort) bool {
		return a == netip.MustParseAddrPort("8.8.8.8:1") || a == netip.MustParseAddrPort("8.8.4.4:443")
	})
	if err != nil {
		t.Fatal(err)
	}
	for raw, open := range map[string]bool{
		"http://8.8.8.8:1/": false, "https://[::ffff:8.8.8.8]:1/": false, "http://8.8.8.8/": true, "http://8.8.8.8:65537/": false,
		"https://8.8.4.4/": false, "https://8.8.4.4:443/": false, "http://8.8.4.4/": true,
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := bounded.CheckURL(deadline(t), u); open != (err == nil) || err != nil && !errors.Is(err, ErrForbiddenTarget) {
			t.Errorf("%s by way of a proxy: %v, want open %t", raw, err, open)
		}
	}
	for address, open := range map[string]bool{"8.8.8.8:1": false, "[::ffff:8.8.8.8]:1": false, "8.8.8.8:2": true} {
		if err := bounded.Control(t.Context(), "tcp", address, nil); open != (err == nil) {
			t.Errorf("%s: %v, want open %t", address, err, open)
		}
	}
}

// An allowed name that does not resolve here is looked up once a minute, not for each
// request: where DNS drops questions each takes a second.
func TestPolicyUnresolved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := NewPolicy([]string{"*.corp.test"})
		if err != nil {
			t.Fatal(err)
		}
		if p, err = p.Within(nil, func(a netip.AddrPort) bool { return a.Addr().IsLoopback() }); err != nil {
			t.Fatal(err)
		}
		dropped := true
		p.resolve = func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
			if !dropped {
				return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		check := func(ctx context.Context, host string, takes time.Duration, want error) {
			t.Helper()
			start := time.Now()
			err := p.CheckURL(ctx, &url.URL{Scheme: "http", Host: host})
			if !errors.Is(err, want) || time.Since(start) != takes {
				t.Errorf("%s: %v after %v, want %v after %v", host, err, time.Since(start), want, takes)
			}
		}
		leaving, leave := context.WithTimeout(t.Context(), ownLookup/2)
		defer leave()
		check(leaving, "a.corp.test", ownLookup/2, nil)
		check(t.Context(), "a.corp.test", ownLookup, nil) // that a request ended says nothing of the name
		for range 3 {
			check(t.Context(), "a.corp.test", 0, nil)
			check(t.Context(), "A.corp.TEST.:8080", 0, nil)
		}
		check(t.Context(), "b.corp.test", ownLookup, nil)
		for range 2 { // not allowed: each time it is looked up, and refused
			ctx, cancel := context.WithTimeout(t.Context(), ownLookup/2)
			check(ctx, "c.test", ownLookup/2, ErrForbiddenTarget)
			cancel()
		}
		time.Sleep(unresolvedMemory)
		check(t.Context(), "a.corp.test", ownLookup, nil)
		dropped = false
		time.Sleep(unresolvedMemory)
		check(t.Context(), "a.corp.test", 0, ErrSelf) // it resolves by now, and is looked up each time
		check(t.Context(), "a.corp.test", 0, ErrSelf)
	})
}

// With a list of origins no other host is asked, whatever its address.
func TestPolicyOnly(t *testing.T) {
	p, err := (*Policy)(nil).Within([]string{"*.example.org", "registry.test", "8.8.8.0/24"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for host, open := range map[string]bool{
		"a.example.org": true, "REGISTRY.test.": true, "8.8.8.8": true, "::ffff:8.8.8.8": true,
		"example.org": false, "evil.test": false, "8.8.9.8": false, "registry.test.evil.test": false,
	} {
		err := p.checkHost(host)
		if open != (err == nil) || err != nil && !errors.Is(err, ErrForbiddenTarget) {
			t.Errorf("%s: %v, want open %t", host, err, open)
		}
		if !open {
			if _, err := p.DialContext(&net.Dialer{})(deadline(t), "tcp", net.JoinHostPort(host, "1")); !errors.Is(err, ErrForbiddenTarget) {
				t.Errorf("dial %s: %v", host, err)
			}
			if err := p.CheckURL(deadline(t), &url.URL{Scheme: "http", Host: net.JoinHostPort(host, "1")}); !errors.Is(err, ErrForbiddenTarget) {
				t.Errorf("check %s: %v", host, err)
			}
		}
	}
	// What is listed is not thereby open.
	if err := p.CheckAddr(netip.MustParseAddr("10.0.0.1")); err == nil {
		t.Error("a private address is open")
	}
	if _, err := (*Policy)(nil).Within([]string{"http://x"}, nil); err == nil {
		t.Error("a URL is taken for a host")
	}
}
