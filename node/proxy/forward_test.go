package proxy

import (
	"net/http"
	"testing"
)

// TestMaxForwards: OPTIONS and TRACE go as far as they say (RFC 9110 section
// 7.6.2); on other methods the field means nothing.
func TestMaxForwards(t *testing.T) {
	seen := make(chan http.Header, 1)
	origin := startOrigin(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header })
	n := startNode(t, Config{})
	for _, c := range []struct {
		method, field, passed string
		status                int // 0: the origin's
	}{
		{"OPTIONS", "2", "1", 0},
		{"OPTIONS", "0", "", 200},
		{"TRACE", "1", "0", 0},
		{"TRACE", "0", "", 405},
		{"OPTIONS", "x", "x", 0},
		{"DELETE", "0", "0", 0},
	} {
		res, _, err := n.do(t, c.method, origin.URL+"/", header("Max-Forwards", c.field), nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.status != 0 {
			wantStatus(t, res, c.status)
			continue
		}
		wantHeader(t, <-seen, "Max-Forwards", c.passed)
	}
	if len(seen) > 0 {
		t.Error("a request went on that should not")
	}
}

// TestVia names the version in which a message came (RFC 9110 section 7.6.3).
func TestVia(t *testing.T) {
	seen := make(chan http.Header, 1)
	origin := startOrigin(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header })
	n := startNode(t, Config{Name: "me"})
	for ask, want := range map[string]string{
		"GET " + origin.URL + "/ HTTP/1.0\r\n\r\n":                                               "1.0 me",
		"GET " + origin.URL + "/ HTTP/1.1\r\nHost: x\r\nVia: 1.0 a\r\nConnection: close\r\n\r\n": "1.0 a, 1.1 me",
	} {
		res, _ := n.raw(t, "GET", ask)
		wantStatus(t, res, 200)
		wantHeader(t, res.Header, "Via", "1.1 me")
		got := <-seen
		if joined := got.Values("Via"); len(joined) == 2 {
			got.Set("Via", joined[0]+", "+joined[1])
		}
		wantHeader(t, got, "Via", want)
	}
}

// TestGatewayFields: what an origin says about its site must not become true of
// the node's.
func TestGatewayFields(t *testing.T) {
	const fields = "Strict-Transport-Security: max-age=1\nAlt-Svc: h3=\":443\"\nClear-Site-Data: *\nX-Kept: 1\n"
	swarm := newFakeSwarm(10)
	swarm.meta.Fields = fields
	n := startNode(t, Config{Opener: swarm})
	origin := startOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		for name, value := range swarm.meta.Fields.All() {
			w.Header().Set(name, value)
		}
	})
	gateway := "http://" + n.addr + "/url/"
	for _, c := range []struct {
		method, target, sts string
	}{
		{"GET", gateway + "http://origin.test/file", ""},
		{"POST", gateway + origin.URL, ""},
		{"GET", "http://origin.test/file", "max-age=1"},
		{"POST", origin.URL, "max-age=1"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, c.target, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		client := n.client
		if c.sts == "" {
			client = http.DefaultClient
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		wantHeader(t, res.Header, "Strict-Transport-Security", c.sts)
		wantHeader(t, res.Header, "X-Kept", "1")
	}
	http.DefaultClient.CloseIdleConnections()
}
