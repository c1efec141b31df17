package node

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/p2pnode/p2pnode/node/proxy"
)

// The files of the authority for interception in a data directory.
const (
	caCertFile = "ca.pem"
	caKeyFile  = "ca.key"
)

// web is what the HTTP faces stand on besides their port.
type web struct {
	registries map[string]string
	intercept  *proxy.Interception // nil for none
	roots      *tls.Config         // of origins; nil for the system's
}

// openWeb reads the files that the faces need.
func openWeb(cfg Config) (w web, err error) {
	w.registries = registries(cfg.Registries)
	if w.roots, err = originRoots(cfg.OriginCA); err != nil {
		return w, err
	}
	w.intercept, err = openCA(cfg)
	return w, err
}

// openCA reads the authority for interception.
func openCA(cfg Config) (*proxy.Interception, error) {
	if len(cfg.Intercept) == 0 {
		return nil, nil
	}
	hosts, err := proxy.NewHostPatterns(cfg.Intercept)
	if err != nil {
		return nil, err
	}
	cert, err1 := os.ReadFile(cfg.CACert)
	key, err2 := os.ReadFile(cfg.CAKey)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("intercept: %w: make an authority with `p2pnode gen-ca`, or name one with --ca-cert and --ca-key", err)
	}
	ca, err := proxy.NewCA(cert, key, nil)
	if err == nil {
		err = ca.Covers(hosts)
	}
	if err != nil {
		return nil, fmt.Errorf("intercept with %s: %w", cfg.CACert, err)
	}
	return &proxy.Interception{CA: ca, Hosts: hosts}, nil
}

// originRoots returns the system's roots and those of a file; nil for the
// system's alone.
func originRoots(file string) (*tls.Config, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read --origin-ca: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's roots: %w", err)
	}
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read --origin-ca: %s holds no certificate in PEM form", file)
	}
	return &tls.Config{RootCAs: roots}, nil
}

// transport returns what carries what the swarm does not.
func (w web) transport(dial proxy.DialFunc) http.RoundTripper {
	t := proxy.NewTransport(dial)
	t.TLSClientConfig = w.roots.Clone()
	return t
}

// proxyConfig adds what is read here to the configuration of the faces.
func (w web) proxyConfig(cfg proxy.Config) proxy.Config {
	cfg.Registries, cfg.Intercept = w.registries, w.intercept
	cfg.DirectLocal, cfg.DirectRemote = w.transport(cfg.DialLocal), w.transport(cfg.DialRemote)
	return cfg
}

// ErrHost is wrapped by GenerateCA's refusal of a host.
var ErrHost = proxy.ErrHostPattern

// GenerateCA writes an authority for interception into a directory, which is made
// if it is missing: ca.pem, for clients to trust, and ca.key, which its owner alone
// can read. Where hosts are listed it can vouch for no others but names below them; see
// Config.Intercept for their form, others are refused with ErrHost. It returns the
// two paths, and an error that wraps fs.ErrExist, with nothing changed, where one
// of them is there.
func GenerateCA(dir string, hosts []string) (cert, key string, err error) {
	certPEM, keyPEM, err := proxy.GenerateCA(hosts, time.Now())
	if err != nil {
		return "", "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", "", fmt.Errorf("make a directory for the authority: %w", err)
	}
	cert, key = filepath.Join(dir, caCertFile), filepath.Join(dir, caKeyFile)
	if err := writeNew(key, keyPEM, 0o600); err != nil {
		return "", "", err
	}
	if err := writeNew(cert, certPEM, 0o644); err != nil {
		return "", "", errors.Join(err, os.Remove(key))
	}
	return cert, key, nil
}

// writeNew writes a file that must not be there.
func writeNew(path string, text []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(path))
	}
	return nil
}

// registries turns the NAME=URL of Config.Registries, which Validate has
// accepted, into what the mirror looks up.
func registries(list []string) map[string]string {
	out := make(map[string]string, len(list))
	for _, s := range list {
		name, base, _ := strings.Cut(s, "=")
		out[name] = strings.TrimSuffix(base, "/")
	}
	return out
}

func checkRegistries(list []string) *FieldError {
	for _, s := range list {
		name, base, ok := strings.Cut(s, "=")
		u, err := url.Parse(base)
		if !ok || name == "" || strings.Contains(name, "/") || err != nil || u.Scheme != "http" && u.Scheme != "https" ||
			u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return &FieldError{"registry", s, "is not NAME=URL: write one like example.com=https://registry.example.com:5000"}
		}
	}
	return nil
}

func checkIntercept(hosts []string) *FieldError {
	for _, s := range hosts {
		if _, err := proxy.NewHostPatterns([]string{s}); err != nil {
			return &FieldError{"intercept", s, "is no host name, *.name or IP address: write it without scheme and port"}
		}
	}
	return nil
}
