package proxy

import (
	"net/http"
	"testing"
)

// TestCredentialsForOneHop: credentials that Connection names are for this node (RFC
// 9110 section 7.6.1): neither the swarm nor an origin gets them, and who sends no
// others is anonymous.
func TestCredentialsForOneHop(t *testing.T) {
	swarm := newFakeSwarm(10)
	h := New(Config{Opener: swarm})
	for i, c := range []struct {
		connection []string
		want       int
	}{{nil, 2}, {[]string{"close, AUTHORIZATION"}, 1}, {[]string{"authorization", "x,cookie "}, 0}} {
		fields := http.Header{"Authorization": {"x"}, "Cookie": {"a=b"}, "Connection": c.connection}
		wantStatus(t, ask(h, "127.0.0.1:9", fields), 200)
		if got := swarm.requests()[i].Credentials; len(got) != c.want {
			t.Errorf("Connection: %q: the swarm gets %q, want %d of them", c.connection, got, c.want)
		}
	}

	f := newFakeRegistry(t)
	n := startNode(t, Config{Opener: swarm})
	path := "/v2/a/b/manifests/v1?ns=" + f.ns()
	n.ask(t, http.MethodHead, path, "Authorization", "Bearer secret", "Connection", "authorization")
	f.wantAsked(t, "HEAD /v2/a/b/manifests/v1")
	f.set(func() { f.status = 500 })
	if res, _ := n.ask(t, http.MethodHead, path); res.StatusCode != 200 {
		t.Errorf("what an anonymous client was told is not remembered: %s", res.Status)
	}
}
