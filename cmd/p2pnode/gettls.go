package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
)

// tls returns how get speaks TLS with a proxy.
func (o getOptions) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.proxyCA != "" {
		text, err := os.ReadFile(o.proxyCA)
		if err != nil {
			return nil, fmt.Errorf("read --proxy-ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("read --proxy-ca: %s holds no certificate in PEM form", o.proxyCA)
		}
	}
	if o.cert == "" && o.key == "" {
		return config, nil
	}
	if o.cert == "" || o.key == "" {
		return nil, usagef("--client-cert and --client-key go together: give both")
	}
	cert, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return nil, fmt.Errorf("read --client-cert and --client-key: %w", err)
	}
	config.Certificates = []tls.Certificate{cert}
	return config, nil
}

// errOtherCert: something else is at the proxy's port.
var errOtherCert = errors.New("the proxy shows another certificate than its daemon has: restart the daemon")

// pinned returns config for the proxy of a daemon of this machine, which is known
// by the sum of its certificate: that need not be for 127.0.0.1, nor be issued by
// anybody who is trusted.
func pinned(config *tls.Config, sum string) *tls.Config {
	config = config.Clone()
	config.InsecureSkipVerify = true // VerifyConnection is stricter
	config.VerifyConnection = func(s tls.ConnectionState) error {
		if got := sha256.Sum256(s.PeerCertificates[0].Raw); hex.EncodeToString(got[:]) != sum {
			return errOtherCert
		}
		return nil
	}
	return config
}
