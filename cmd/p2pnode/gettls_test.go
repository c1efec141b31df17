package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// TestGetTLS: get trusts who it is told to, and shows the certificate that it is
// given.
func TestGetTLS(t *testing.T) {
	shown := make(chan int, 1)
	gateway := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown <- len(r.TLS.PeerCertificates)
		_, _ = io.WriteString(w, "ok")
	}))
	gateway.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	gateway.StartTLS()
	defer gateway.Close()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	own := gateway.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	o := getOptions{proxyCA: write("ca.pem", "CERTIFICATE", own.Certificate[0]), key: write("key.pem", "PRIVATE KEY", key)}
	o.cert = o.proxyCA
	config, err := o.tls()
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, gateway.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := newClient(config).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if n := <-shown; n != 1 {
		t.Errorf("%d certificates were shown", n)
	}
	if res, err := newClient(pinned(config, "00")).Do(req); err == nil {
		_ = res.Body.Close()
		t.Error("another certificate than the pinned one is trusted")
	}
}
