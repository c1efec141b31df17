package node_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node"
)

// TestProxyNeedsAccess: what others can reach does not start without a word on
// who may use it.
func TestProxyNeedsAccess(t *testing.T) {
	for _, c := range []struct {
		name  string
		cfg   node.Config
		field string // "" is good
	}{
		{"loopback", node.Config{Proxy: "127.0.0.1:0"}, ""},
		{"elsewhere", node.Config{Proxy: "0.0.0.0:0"}, "proxy"},
		{"all addresses", node.Config{Proxy: ":0"}, "proxy"},
		{"open", node.Config{Proxy: "0.0.0.0:0", ProxyOpen: true}, ""},
		{"users", node.Config{Proxy: "[::]:0", ProxyUsers: "file"}, ""},
		{"a name", node.Config{Proxy: "host.test:0", ProxyOpen: true}, "proxy"},
		{"no port", node.Config{Proxy: "0.0.0.0", ProxyOpen: true}, "proxy"},
		{"bad port", node.Config{Proxy: "0.0.0.0:x", ProxyOpen: true}, "proxy"},
		{"client CA without TLS", node.Config{Proxy: "0.0.0.0:0", ProxyClientCA: "file"}, "proxy-client-ca"},
		{"certificate without key", node.Config{ProxyCert: "file"}, "proxy-key"},
		{"certificates of clients", node.Config{Proxy: "0.0.0.0:0", ProxyClientCA: "file", ProxyCert: "file", ProxyKey: "file"}, ""},
		{"rate", node.Config{ProxyRate: -1}, "proxy-rate"},
	} {
		c.cfg.DataDir = "x"
		err := c.cfg.Validate()
		var field *node.FieldError
		if c.field == "" && err != nil || c.field != "" && (!errors.As(err, &field) || field.Field != c.field) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// elsewhere returns an address of this machine that is not loopback.
func elsewhere(t *testing.T) string {
	t.Helper()
	host := otherAddress(t)
	if host == "" {
		t.Skip("this machine has no address but loopback")
	}
	return host
}

// otherAddress is elsewhere, or empty where there is none.
func otherAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && !ip.IP.IsLoopback() {
			return ip.IP.String()
		}
	}
	return ""
}

// through asks for a URL through a proxy; 0 where that did not come about.
func through(t *testing.T, proxy *url.URL, config *tls.Config, target string) int {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: config, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Error(err)
	}
	return res.StatusCode
}

func TestProxyUsers(t *testing.T) {
	host := elsewhere(t)
	hash, err := bcrypt.GenerateFromPassword([]byte("right"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(users, []byte("# users\n\nann:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	origin := p2ptest.NewOrigin(t)
	target := origin.Add("/file", p2ptest.Bytes(1, 1000))
	n := startNode(t, node.Config{Seed: true, OriginAllow: []string{"127.0.0.0/8"}, Proxy: "0.0.0.0:0", ProxyUsers: users})
	local, err := url.Parse(n.Info().Proxy)
	if err != nil {
		t.Fatal(err)
	}
	away := *local
	away.Host = net.JoinHostPort(host, local.Port())
	for _, c := range []struct {
		name  string
		user  *url.Userinfo
		proxy url.URL
		want  int
	}{
		{"this machine", nil, *local, 200},
		{"nobody", nil, away, 407},
		{"wrong password", url.UserPassword("ann", "wrong"), away, 407},
		{"unknown user", url.UserPassword("bob", "right"), away, 407},
		{"user", url.UserPassword("ann", "right"), away, 200},
	} {
		c.proxy.User = c.user
		if got := through(t, &c.proxy, nil, target); got != c.want {
			t.Errorf("%s: status %d, want %d", c.name, got, c.want)
		}
	}
	if got := through(t, local, nil, "http://"+away.Host+"/x"); got != http.StatusLoopDetected {
		t.Errorf("the node's own port by another address: status %d", got)
	}
	for _, text := range []string{"", "ann", "ann:plain\n"} {
		if err := os.WriteFile(users, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var field *node.FieldError
		if _, err := node.New(node.Config{DataDir: t.TempDir(), ProxyUsers: users}); !errors.As(err, &field) || field.Field != "proxy-users" {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// certificate makes a key and a certificate of its own or of an issuer's, in
// files of dir.
func certificate(t *testing.T, dir, name string, issuer *tls.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: issuer == nil, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := template, any(key)
	if issuer != nil {
		parent, signer = issuer.Leaf, issuer.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	for suffix, text := range map[string][]byte{".crt": certPEM, ".key": keyPEM} {
		if err := os.WriteFile(filepath.Join(dir, name+suffix), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestProxyClientCertificates(t *testing.T) {
	dir := t.TempDir()
	ca := certificate(t, dir, "ca", nil)
	certificate(t, dir, "server", &ca)
	client, stranger := certificate(t, dir, "client", &ca), certificate(t, dir, "stranger", nil)
	origin := p2ptest.NewOrigin(t)
	target := origin.Add("/file", p2ptest.Bytes(1, 1000))
	n := startNode(t, node.Config{
		Seed: true, OriginAllow: []string{"127.0.0.0/8"},
		ProxyCert: filepath.Join(dir, "server.crt"), ProxyKey: filepath.Join(dir, "server.key"), ProxyClientCA: filepath.Join(dir, "ca.crt"),
	})
	proxy, err := url.Parse(n.Info().Proxy)
	if err != nil || !strings.HasPrefix(n.Info().Proxy, "https://") {
		t.Fatal(n.Info().Proxy, err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Leaf)
	for _, c := range []struct {
		name  string
		certs []tls.Certificate
		want  int
	}{{"none", nil, 0}, {"a stranger's", []tls.Certificate{stranger}, 0}, {"good", []tls.Certificate{client}, 200}} {
		if got := through(t, proxy, &tls.Config{RootCAs: roots, Certificates: c.certs}, target); got != c.want {
			t.Errorf("%s: status %d, want %d", c.name, got, c.want)
		}
	}
}
