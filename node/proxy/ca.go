package proxy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

const (
	// caLife is how long an authority is good, leafLife how long a certificate
	// is that it signs; one with less than leafRenew left is replaced.
	caLife    = 5 * 365 * 24 * time.Hour
	leafLife  = 7 * 24 * time.Hour
	leafRenew = 24 * time.Hour
	// clockSkew is how far behind a client's clock may be.
	clockSkew = time.Hour
	// maxLeaves bounds the certificates that are kept; the least recently used
	// is made anew.
	maxLeaves = 1024
)

// GenerateCA makes a certificate authority for interception, ECDSA on P-256 and
// good for five years, as the PEM of its certificate and of its key (PKCS #8).
// Where hosts are listed, as HostPatterns reads them, it can vouch for no others
// but names below them (RFC 5280 section 4.2.1.10): a pattern *.example.com lets
// it vouch for example.com too.
func GenerateCA(hosts []string, now time.Time) (certPEM, keyPEM []byte, err error) {
	patterns, err := NewHostPatterns(hosts)
	if err != nil {
		return nil, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "p2pnode interception " + now.UTC().Format(time.DateOnly)},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(caLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	constrain(template, patterns)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("make the authority's certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("write the authority's key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

// constrain limits what a certificate can vouch for. A constraint says nothing
// of the other kind of name, so where one kind is not listed it is excluded.
func constrain(c *x509.Certificate, p HostPatterns) {
	if len(p) == 0 {
		return
	}
	c.PermittedDNSDomainsCritical = true
	for _, pattern := range p {
		if ip, err := netip.ParseAddr(pattern); err == nil {
			c.PermittedIPRanges = append(c.PermittedIPRanges, &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())})
		} else {
			c.PermittedDNSDomains = append(c.PermittedDNSDomains, strings.TrimPrefix(pattern, "*."))
		}
	}
	if len(c.PermittedIPRanges) == 0 {
		c.ExcludedIPRanges = []*net.IPNet{
			{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, {IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
		}
	}
	if len(c.PermittedDNSDomains) == 0 {
		c.ExcludedDNSDomains = []string{""}
	}
}

func serial() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	b[0] &= 0x7f
	b[15] |= 1 // it must not be 0
	return new(big.Int).SetBytes(b)
}

// CA signs the certificates of intercepted hosts. Safe for concurrent use.
type CA struct {
	cert *x509.Certificate
	key  crypto.Signer
	now  func() time.Time
	// leafKey is the key of all certificates that are signed.
	leafKey *ecdsa.PrivateKey
	leaves  *lru.Cache[string, *tls.Certificate]
}

// NewCA reads an authority from the PEM of its certificate and its key. now is
// the clock, nil for time.Now.
func NewCA(certPEM, keyPEM []byte, now func() time.Time) (*CA, error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("read the authority: %w", err)
	}
	if now == nil {
		now = time.Now
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA || pair.Leaf.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, errors.New("read the authority: it must not sign certificates: make one with p2pnode gen-ca")
	}
	if !now().Before(pair.Leaf.NotAfter) {
		return nil, fmt.Errorf("read the authority: it expired on %s: make another with p2pnode gen-ca", pair.Leaf.NotAfter.Format(time.DateOnly))
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	leaves, err := lru.New[string, *tls.Certificate](maxLeaves)
	if err != nil {
		panic("proxy: " + err.Error()) // the size is a positive constant
	}
	return &CA{cert: pair.Leaf, key: key, now: now, leafKey: leafKey, leaves: leaves}, nil
}

// Covers returns an error where the authority cannot vouch for a pattern's hosts.
func (ca *CA) Covers(p HostPatterns) error {
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	for _, pattern := range p {
		host := strings.Replace(pattern, "*", "any", 1)
		leaf, err := ca.sign(host)
		if err == nil {
			_, err = leaf.Leaf.Verify(x509.VerifyOptions{DNSName: bracketed(host), Roots: roots, CurrentTime: ca.now()})
		}
		if err != nil {
			return fmt.Errorf("the authority cannot vouch for %s: %w", pattern, err)
		}
	}
	return nil
}

// bracketed writes a host as x509 wants an address to be marked.
func bracketed(host string) string {
	if _, err := netip.ParseAddr(host); err == nil {
		return "[" + host + "]"
	}
	return host
}

// certificate returns a host's certificate, which is kept for the next
// connection to it.
func (ca *CA) certificate(host string) (*tls.Certificate, error) {
	if kept, ok := ca.leaves.Get(host); ok && kept.Leaf.NotAfter.Sub(ca.now()) > leafRenew {
		return kept, nil
	}
	leaf, err := ca.sign(host)
	if err != nil {
		return nil, err
	}
	ca.leaves.Add(host, leaf)
	return leaf, nil
}

func (ca *CA) sign(host string) (*tls.Certificate, error) {
	now := ca.now()
	template := &x509.Certificate{
		SerialNumber: serial(), NotBefore: now.Add(-clockSkew), NotAfter: now.Add(leafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if template.NotAfter.After(ca.cert.NotAfter) {
		template.NotAfter = ca.cert.NotAfter
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		template.IPAddresses = []net.IP{ip.AsSlice()}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, ca.leafKey.Public(), ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate for %s: %w", host, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate for %s: %w", host, err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, ca.cert.Raw}, PrivateKey: ca.leafKey, Leaf: leaf}, nil
}

// ErrHostPattern is wrapped by the refusals of NewHostPatterns.
var ErrHostPattern = errors.New("want a host name, *.name or an IP address, without port")

// HostPatterns is a list of host names, of *.name for all names below one, and of
// IP addresses, in canonical form.
type HostPatterns []string

// NewHostPatterns reads a list. Entries have no port.
func NewHostPatterns(list []string) (HostPatterns, error) {
	var p HostPatterns
	for _, entry := range list {
		name, wildcard := strings.CutPrefix(entry, "*.")
		addr, err := tunnelAddr(net.JoinHostPort(strings.Trim(name, "[]"), "443"))
		host := ""
		if err == nil {
			host, _, err = net.SplitHostPort(addr)
		}
		_, notIP := netip.ParseAddr(host)
		if err != nil || wildcard && notIP == nil || strings.ContainsAny(name, "*/?#@%") {
			return nil, fmt.Errorf("host %q: %w", entry, ErrHostPattern)
		}
		if wildcard {
			host = "*." + host
		}
		p = append(p, host)
	}
	return p, nil
}

// Match reports whether a host, in canonical form, is in the list.
func (p HostPatterns) Match(host string) bool {
	for _, pattern := range p {
		suffix, wildcard := strings.CutPrefix(pattern, "*")
		if host == pattern || wildcard && len(host) > len(suffix) && strings.HasSuffix(host, suffix) {
			return true
		}
	}
	return false
}
