package proxy

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestGatewayForms(t *testing.T) {
	for in, want := range map[string]string{
		"/url/https://host/path?q=1":        "https://host/path?q=1",
		"/url/https:/host/path":             "https://host/path",
		"/url/http:/host//a//b":             "http://host//a//b",
		"/url/HTTP://Host:80/a%2Fb%20c?x=/": "HTTP://Host:80/a%2Fb%20c?x=/",
		"/url/http://host/url/http://x/":    "http://host/url/http://x/",
		"/url/http://host?q":                "http://host?q",
	} {
		r := &http.Request{Method: "GET", RequestURI: in}
		got, err := parseTarget(r)
		if err != nil || got.face != faceGateway || got.raw != want {
			t.Errorf("%s: %q, %v, want %q", in, got.raw, err, want)
		}
	}
}

func TestGatewayServes(t *testing.T) {
	swarm := newFakeSwarm(1000)
	n := startNode(t, Config{Opener: swarm})
	for _, path := range []string{"/url/http://origin.test/a//b%2fc?x=%41", "/url/http:/origin.test/a//b%2fc?x=%41"} {
		res, body := n.raw(t, "GET", "GET "+path+" HTTP/1.1\r\nHost: "+n.addr+"\r\nConnection: close\r\n\r\n")
		wantStatus(t, res, 200)
		wantBody(t, []byte(body), swarm.data)
		wantHeader(t, res.Header, "Content-Security-Policy", "sandbox")
		reqs := swarm.requests()
		if got := reqs[len(reqs)-1]; got.Task.URL != "http://origin.test/a//b%2Fc?x=%41" || got.URL != "http://origin.test/a//b%2fc?x=%41" {
			t.Errorf("%+v", got)
		}
	}
}

func TestRefused(t *testing.T) {
	swarm := newFakeSwarm(10)
	n := startNode(t, Config{Opener: swarm, Name: "me"})
	for _, c := range []struct {
		name, request string
		status        int
		text          string
	}{
		{"root", "GET / HTTP/1.1\r\nHost: x", 404, "/url/https://"},
		{"path", "GET /v3/ HTTP/1.1\r\nHost: x", 404, "curl -x"},
		{"double slash", "GET //http://o/ HTTP/1.1\r\nHost: x", 404, "curl -x"},
		{"scheme", "GET ftp://o/f HTTP/1.1\r\nHost: x", 400, "https://"},
		{"user", "GET http://a:b@o/f HTTP/1.1\r\nHost: x", 400, "Authorization"},
		{"odd address", "GET http://0x7f.1/f HTTP/1.1\r\nHost: x", 400, "IPv4"},
		{"port", "GET http://o:99999/f HTTP/1.1\r\nHost: x", 400, "port"},
		{"fragment", "GET http://o/f#x HTTP/1.1\r\nHost: x", 400, "fragment"},
		{"gateway without URL", "GET /url/ HTTP/1.1\r\nHost: x", 400, "absolute"},
		{"gateway without scheme", "GET /url/host/path HTTP/1.1\r\nHost: x", 400, "absolute"},
		{"gateway without host", "GET /url/https:///path HTTP/1.1\r\nHost: x", 400, "host"},
		{"gateway scheme", "GET /url/file:///etc/passwd HTTP/1.1\r\nHost: x", 400, "https://"},
		{"gateway for another site", "GET /url/http://o/ HTTP/1.1\r\nHost: x\r\nSec-Fetch-Site: cross-site", 403, "not web pages"},
		{"own port", "GET http://" + n.addr + "/ HTTP/1.1\r\nHost: x", 508, "leads back"},
		{"own port by gateway", "GET /url/http://" + n.addr + "/ HTTP/1.1\r\nHost: x", 508, "leads back"},
		{"via", "GET http://o/f HTTP/1.1\r\nHost: x\r\nVia: 1.0 other, 1.1 me (p2pnode)", 508, "leads back"},
		{"CONNECT to own port", "CONNECT " + n.addr + " HTTP/1.1\r\nHost: x", 508, "leads back"},
		{"CONNECT without port", "CONNECT o HTTP/1.1\r\nHost: x", 400, "host:port"},
		{"CONNECT to port 0", "CONNECT o:0 HTTP/1.1\r\nHost: x", 400, "host:port"},
		{"CONNECT to odd address", "CONNECT 0177.1:443 HTTP/1.1\r\nHost: x", 400, "IPv4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			method, _, _ := strings.Cut(c.request, " ")
			res, body := n.raw(t, method, c.request+"\r\nConnection: close\r\n\r\n")
			wantStatus(t, res, c.status)
			wantHeader(t, res.Header, "Content-Type", "text/plain; charset=utf-8")
			if !strings.HasPrefix(body, "p2pnode: ") || !strings.Contains(body, c.text) {
				t.Errorf("body %q does not say %q", body, c.text)
			}
		})
	}
	if n := len(swarm.requests()); n != 0 {
		t.Errorf("the opener was asked %d times", n)
	}
}

// TestViaOfAnother has a name in Via that merely begins like ours.
func TestViaOfAnother(t *testing.T) {
	n := startNode(t, Config{Opener: newFakeSwarm(10), Name: "me"})
	res, _, err := n.get(t, header("Via", "1.1 me2, 1.1 other (me)"))
	if err != nil {
		t.Fatal(err)
	}
	wantStatus(t, res, 200)
}

func TestHostPort(t *testing.T) {
	for in, want := range map[string]string{
		"http://o/":          "o:80",
		"https://o/a:1/":     "o:443",
		"https://o:8443/":    "o:8443",
		"http://[::1]/":      "[::1]:80",
		"http://[::1]:8080/": "[::1]:8080",
	} {
		if got := hostPort(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestGatewayLocation(t *testing.T) {
	base, err := url.Parse("https://origin.test/dir/file?x=1")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		location    string
		credentials bool
		want        string
	}{
		{"/other", false, "/url/https://origin.test/other"},
		{"sibling?y=2", false, "/url/https://origin.test/dir/sibling?y=2"},
		{"//cdn.test/f", false, "/url/https://cdn.test/f"},
		{"https://cdn.test/f?sig=a|b", false, "/url/https://cdn.test/f?sig=a|b"},
		{"https://cdn.test/f", true, "https://cdn.test/f"},
		{"//cdn.test/f", true, "//cdn.test/f"},
		{"http://origin.test/f", true, "http://origin.test/f"},
		{"https://ORIGIN.test/f", true, "/url/https://ORIGIN.test/f"},
		{"/other", true, "/url/https://origin.test/other"},
		{"mailto:a@b", false, "mailto:a@b"},
		{"https://u:p@o/", false, "https://u:p@o/"},
		{":bad", false, ":bad"},
	} {
		if got := gatewayLocation(base, c.location, c.credentials); got != c.want {
			t.Errorf("%s (%v): %s, want %s", c.location, c.credentials, got, c.want)
		}
	}
}

func TestGatewayRedirect(t *testing.T) {
	origin := startOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "?next")
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	n := startNode(t, Config{})
	// A path that Go would encode anew takes another way to the origin.
	res, _ := n.raw(t, "GET", "GET /url/"+origin.URL+"/a|b/file HTTP/1.1\r\nHost: "+n.addr+"\r\nConnection: close\r\n\r\n")
	wantStatus(t, res, 307)
	wantHeader(t, res.Header, "Location", "/url/"+origin.URL+"/a%7Cb/file?next")
}
