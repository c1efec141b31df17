package e2e

import (
	"encoding/pem"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"testing"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// TestTLSClients reads an HTTPS origin through proxies that open its TLS. See
// TestClients.
func TestTLSClients(t *testing.T) {
	need(t, "curl")
	origin := p2ptest.NewOrigin(t)
	plain, err := url.Parse(origin.URL)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(&httputil.ReverseProxy{Rewrite: func(pr *httputil.ProxyRequest) { pr.SetURL(plain) }})
	srv.StartTLS()
	t.Cleanup(srv.Close)
	curl := newTool(t)
	cert := curl.write(t, "origin.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
	bin := binary(t, "")
	curl.run(t, bin, "gen-ca", "--data-dir", curl.dir, "127.0.0.1")
	s := newSwarm(t, bin, 2, 2, "--intercept", "127.0.0.1", "--ca-cert", curl.path("ca.pem"), "--ca-key", curl.path("ca.key"),
		"--origin-ca", cert)
	data := p2ptest.Bytes(41, 9<<20+5)
	origin.Add("/file", data)
	target := srv.URL + "/file"
	for i, d := range s.daemons {
		before := origin.Bytes("/file")
		trusting := []string{"-sSf", "--cacert", curl.path("ca.pem"), "-x"}
		out := curl.run(t, "curl", append(trusting, d.Proxy, "-o", "opened", "-w", "%{http_version}", target)...)
		curl.wantFile(t, "opened", data)
		if want := "2"; string(out) != want {
			t.Errorf("curl was answered in HTTP/%s, want HTTP/%s", out, want)
		}
		wantSame(t, "a range", curl.run(t, "curl", append(trusting, d.Proxy, "-r", "5-9", target)...), data[5:10])
		if _, err := curl.try(t, "curl", "-sS", "--cacert", cert, "-x", d.Proxy, target); err == nil {
			t.Error("a client that does not trust the authority got an answer")
		}
		curl.run(t, "curl", "-sSf", "-o", "gated", d.Proxy+"/url/"+target)
		curl.wantFile(t, "gated", data)
		if n := origin.Bytes("/file") - before; i > 0 && n != 0 {
			t.Errorf("the origin sent %d bytes to the second client", n)
		}
	}
	if n := origin.Bytes("/file"); n != int64(len(data)) {
		t.Errorf("the origin sent %d bytes of %d", n, len(data))
	}
	if info, err := os.Stat(curl.path("ca.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the authority's key: %v, %v", info.Mode(), err)
	}
}
