package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// newTestCA returns an authority for hosts and the pool that trusts it.
func newTestCA(t *testing.T, now func() time.Time, hosts ...string) (*CA, *x509.CertPool) {
	t.Helper()
	cert, key, err := GenerateCA(hosts, now())
	if err != nil {
		t.Fatal(err)
	}
	ca, err := NewCA(cert, key, now)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(cert) {
		t.Fatal("the certificate is no PEM")
	}
	return ca, roots
}

func TestGenerateCA(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	certPEM, keyPEM, err := GenerateCA([]string{"example.com"}, now)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		t.Errorf("the key is a %T", pair.PrivateKey)
	}
	c := pair.Leaf
	if !c.IsCA || !c.MaxPathLenZero || c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign || !c.PermittedDNSDomainsCritical {
		t.Errorf("the certificate is %+v", c)
	}
	if now.Before(c.NotBefore) || c.NotAfter.Sub(now) != caLife {
		t.Errorf("good from %s to %s", c.NotBefore, c.NotAfter)
	}
}

// TestNameConstraints: what clients make of the authority's constraints.
func TestNameConstraints(t *testing.T) {
	for _, c := range []struct {
		hosts    []string
		good, no []string
	}{
		{nil, []string{"a.example", "10.0.0.1", "::1"}, nil},
		{[]string{"a.example"}, []string{"a.example", "x.a.example"}, []string{"b.example", "xa.example", "10.0.0.1", "::1"}},
		{[]string{"*.a.example", "b.example"}, []string{"x.a.example", "b.example"}, []string{"c.example", "127.0.0.1"}},
		{[]string{"10.0.0.1"}, []string{"10.0.0.1"}, []string{"10.0.0.2", "a.example", "::1"}},
		{[]string{"a.example", "::1"}, []string{"a.example", "::1"}, []string{"::2", "b.example"}},
	} {
		ca, roots := newTestCA(t, time.Now, c.hosts...)
		for _, host := range slices.Concat(c.good, c.no) {
			leaf, err := ca.certificate(host)
			if err != nil {
				t.Fatal(err)
			}
			_, err = leaf.Leaf.Verify(x509.VerifyOptions{DNSName: bracketed(host), Roots: roots})
			if good := slices.Contains(c.good, host); (err == nil) != good {
				t.Errorf("authority for %q, host %s: %v, want good %t", c.hosts, host, err, good)
			}
			if covers := ca.Covers(HostPatterns{host}) == nil; covers != slices.Contains(c.good, host) {
				t.Errorf("authority for %q covers %s: %t", c.hosts, host, covers)
			}
		}
	}
}

func TestLeavesAreKept(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	ca, _ := newTestCA(t, func() time.Time { return now })
	get := func(host string) *tls.Certificate {
		leaf, err := ca.certificate(host)
		if err != nil {
			t.Fatal(err)
		}
		return leaf
	}
	first := get("a.example")
	now = now.Add(leafLife - leafRenew - time.Second)
	if get("a.example") != first {
		t.Error("a certificate is made anew while it is good")
	}
	now = now.Add(2 * time.Second)
	second := get("a.example")
	if second == first || second.Leaf.NotAfter.Sub(now) < leafLife-time.Second {
		t.Errorf("a certificate that ends on %s is kept on %s", first.Leaf.NotAfter, now)
	}
	for i := range maxLeaves {
		get(fmt.Sprintf("h%d.example", i))
	}
	if ca.leaves.Len() != maxLeaves || get("a.example") == second {
		t.Errorf("%d certificates are kept, want %d", ca.leaves.Len(), maxLeaves)
	}
	now = now.Add(caLife - 2*leafLife) // the authority ends before a certificate would
	if leaf := get("late.example").Leaf; leaf.NotAfter.After(ca.cert.NotAfter) {
		t.Errorf("a certificate is good to %s, the authority to %s", leaf.NotAfter, ca.cert.NotAfter)
	}
}

func TestNewCARefuses(t *testing.T) {
	now := time.Now()
	certPEM, keyPEM, err := GenerateCA(nil, now)
	if err != nil {
		t.Fatal(err)
	}
	_, otherKey, err := GenerateCA(nil, now)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := NewCA(certPEM, keyPEM, nil)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.certificate("a.example")
	if err != nil {
		t.Fatal(err)
	}
	leafKey, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cert, key []byte
		now       time.Time
	}{
		"another's key":   {certPEM, otherKey, now},
		"no PEM":          {[]byte("x"), keyPEM, now},
		"no authority":    {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Leaf.Raw}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: leafKey}), now},
		"an expired one":  {certPEM, keyPEM, now.Add(caLife)},
		"nothing":         {nil, nil, now},
		"key in its name": {keyPEM, keyPEM, now},
	} {
		if _, err := NewCA(c.cert, c.key, func() time.Time { return c.now }); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestHostPatterns(t *testing.T) {
	p, err := NewHostPatterns([]string{"A.example", "*.b.example", "10.0.0.1", "[::1]", "2001:DB8::1", "bücher.example"})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{
		"a.example": true, "x.a.example": false, "b.example": false, "x.b.example": true, "y.x.b.example": true, ".b.example": false,
		"xb.example": false, "10.0.0.1": true, "10.0.0.2": false, "::1": true, "2001:db8::1": true, "xn--bcher-kva.example": true, "": false,
	} {
		if p.Match(host) != want {
			t.Errorf("%q: %t, want %t", host, !want, want)
		}
	}
	for _, bad := range []string{"", "*", "*.", "*.10.0.0.1", "a.example:443", "http://a", "a/b", "a*b", "*.*.a", "a b", "10.0.0.300"} {
		if got, err := NewHostPatterns([]string{bad}); err == nil {
			t.Errorf("%q is read as %q", bad, got)
		}
		if _, _, err := GenerateCA([]string{bad}, time.Now()); err == nil {
			t.Errorf("an authority for %q was made", bad)
		}
	}
	if HostPatterns(nil).Match("a") || strings.Join(p, " ") != "a.example *.b.example 10.0.0.1 ::1 2001:db8::1 xn--bcher-kva.example" {
		t.Errorf("patterns are %q", p)
	}
}

// FuzzCA: an authority that is accepted may sign, and its certificates end with it.
func FuzzCA(f *testing.F) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, hosts := range [][]string{nil, {"a.example", "10.0.0.1"}} {
		certPEM, keyPEM, err := GenerateCA(hosts, now)
		if err != nil {
			f.Fatal(err)
		}
		cert, _ := pem.Decode(certPEM)
		key, _ := pem.Decode(keyPEM)
		f.Add(cert.Bytes, key.Bytes)
		f.Add(cert.Bytes[:len(cert.Bytes)-1], key.Bytes)
		f.Add(key.Bytes, cert.Bytes)
	}
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
		ca, err := NewCA(certPEM, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), func() time.Time { return now })
		if err != nil {
			return
		}
		if !ca.cert.IsCA || ca.cert.KeyUsage&x509.KeyUsageCertSign == 0 || !now.Before(ca.cert.NotAfter) {
			t.Fatalf("accepted: %+v", ca.cert)
		}
		for _, host := range []string{"a.example", "10.0.0.1"} {
			leaf, err := ca.certificate(host)
			if err != nil {
				return
			}
			if leaf.Leaf.NotAfter.After(ca.cert.NotAfter) || leaf.Leaf.IsCA || leaf.Leaf.VerifyHostname(bracketed(host)) != nil {
				t.Fatalf("certificate for %s: %+v", host, leaf.Leaf)
			}
		}
	})
}

// FuzzHostPatterns: a pattern that is read is in canonical form, takes what it
// names, and no other host.
func FuzzHostPatterns(f *testing.F) {
	for _, s := range []string{"A.example", "*.b.example", "10.0.0.1", "[::1]", "2001:DB8::1", "b\u00fccher.example", "*", "*.*.a", "a.example:443", "a.example.", "::ffff:10.0.0.1", "%41.example", "x@a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := NewHostPatterns([]string{s})
		if err != nil {
			return
		}
		if again, err := NewHostPatterns(p); err != nil || !slices.Equal(again, p) {
			t.Fatalf("%q is %q, then %q, %v", s, p, again, err)
		}
		name, wildcard := strings.CutPrefix(p[0], "*")
		if wildcard && (!p.Match("x"+name) || p.Match(name) || p.Match(name[1:])) || !wildcard && !p.Match(name) || p.Match("") || p.Match(name+"x") {
			t.Fatalf("%q is %q", s, p)
		}
	})
}
