package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestDecide(t *testing.T) {
	rules, err := NewRules([]Rule{
		{Hosts: []string{"bad.test", "*.bad.test"}, Action: ActionBlock},
		{Hosts: []string{"10.0.0.0/8", "[::1]"}, Action: ActionDirect},
		{URL: `\.iso$`, MinSize: 1000, MaxSize: 2000, Action: ActionP2P, Fresh: time.Hour},
		{URL: `\.iso$`, MaxSize: 10, Action: ActionBlock},
		{Methods: []string{"HEAD", "CONNECT"}, Hosts: []string{"Some.Test"}, Action: ActionDirect},
		{URL: "^https://other[.]test/", Action: ActionDirect},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, url string
		size        int64
		index       int
		known       bool
	}{
		{"GET", "http://bad.test/x", -1, 0, true},
		{"GET", "http://a.bad.test/x", -1, 0, true},
		{"GET", "http://bad.test./x", -1, 0, true},
		{"GET", "http://notbad.test/x", -1, -1, true},
		{"GET", "http://10.1.2.3:80/x", -1, 1, true},
		{"GET", "http://11.1.2.3/x", -1, -1, true},
		{"GET", "http://[::1]:8080/x", -1, 1, true},
		{"GET", "http://a.test/x.iso", -1, 2, false},
		{"GET", "http://a.test/x.iso", 1000, 2, true},
		{"GET", "http://a.test/x.iso", 2000, 2, true},
		{"GET", "http://a.test/x.iso", 2001, -1, true},
		{"GET", "http://a.test/x.iso", 999, -1, true},
		{"GET", "http://a.test/x.iso", 10, 3, true},
		{"HEAD", "http://some.test/", -1, 4, true},
		{"GET", "http://some.test/", -1, -1, true},
		{"GET", "https://other.test/", -1, 5, true},
		{"GET", "http://x.test/https://other.test/", -1, -1, true},
		{"GET", "http://a.test/x.iso", SizeNone, -1, true},
		{"CONNECT", "//some.test", -1, 4, true},
		{"CONNECT", "//other.test", -1, -1, true},
	} {
		a := Asked{Method: c.method, URL: c.url, Host: HostOf(c.url), Size: c.size}
		if c.method == "CONNECT" {
			a.URL = ""
		}
		if _, index, known := rules.Decide(a); index != c.index || known != c.known {
			t.Errorf("%+v: rule %d, known %t; want %d, %t", a, index, known, c.index, c.known)
		}
	}
	if r, index, known := (*Rules)(nil).Decide(Asked{}); r.Action != ActionP2P || index != -1 || !known {
		t.Errorf("no rules: %+v, %d, %t", r, index, known)
	}
}

func TestBadRules(t *testing.T) {
	for _, c := range []struct {
		key  string
		rule Rule
	}{
		{"url", Rule{URL: "(", Action: ActionP2P}},
		{"host", Rule{Hosts: []string{"http://x"}, Action: ActionP2P}},
		{"method", Rule{Methods: []string{"get"}, Action: ActionP2P}},
		{"max-size", Rule{MinSize: 2, MaxSize: 1, Action: ActionP2P}},
		{"action", Rule{Action: "swarm"}},
		{"fresh", Rule{Action: ActionDirect, Fresh: time.Second}},
		{"prefetch", Rule{Action: ActionP2P, Prefetch: "all"}},
		{"prefetch", Rule{Action: ActionDirect, Prefetch: PrefetchWhole}},
		{"private", Rule{Action: ActionP2P, Private: "grace"}},
		{"private", Rule{Action: ActionP2P, Private: "grace(1h"}},
		{"private", Rule{Action: ActionP2P, Private: "1h)"}},
		{"private", Rule{Action: ActionP2P, Private: "grace(0s)"}},
		{"private", Rule{Action: ActionBlock, Private: "open"}},
	} {
		_, err := NewRules([]Rule{{Action: ActionP2P}, c.rule})
		var bad *RuleError
		if !errors.As(err, &bad) || bad.Key != c.key || bad.Index != 1 {
			t.Errorf("%+v: %v", c.rule, err)
		}
	}
	if _, err := NewRules(make([]Rule, maxRules+1)); err == nil {
		t.Error("any number of rules is taken")
	}
}

// TestRulesDecide sends requests that rules take.
func TestRulesDecide(t *testing.T) {
	origin := startOrigin(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "direct") })
	rules, err := NewRules([]Rule{
		{URL: "/blocked", Action: ActionBlock},
		{URL: "/direct", Action: ActionDirect},
		{URL: "/sized", MaxSize: 99, Action: ActionBlock},
		{URL: "/sized", MaxSize: 1000, Action: ActionDirect},
		{URL: "/fresh", Action: ActionP2P, Fresh: time.Hour},
		{Methods: []string{"CONNECT"}, Action: ActionBlock},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path   string
		size   int
		status int
		body   string // "" is the swarm's
		opens  int    // of two requests
	}{
		{"/blocked", 100, 403, "p2pnode: ", 0},
		{"/direct", 100, 200, "direct", 0},
		{"/sized", 99, 403, "p2pnode: ", 2},
		{"/sized", 1000, 200, "direct", 1}, // it is remembered for a minute
		{"/sized", 1001, 200, "", 2},
		{"/fresh", 100, 200, "", 2},
		{"/other", 100, 200, "", 2},
	} {
		t.Run(fmt.Sprint(c.path, c.size), func(t *testing.T) {
			swarm := newFakeSwarm(c.size)
			n := startNode(t, Config{Opener: swarm, Rules: rules})
			for range 2 {
				res, body, err := n.do(t, "GET", origin.URL+c.path, nil, nil)
				if err != nil {
					t.Fatal(err)
				}
				wantStatus(t, res, c.status)
				if c.body == "" {
					wantBody(t, body, swarm.data)
				} else if !strings.HasPrefix(string(body), c.body) {
					t.Errorf("body %.100q", body)
				}
			}
			opens := swarm.requests()
			if len(opens) != c.opens || swarm.closes() != c.opens {
				t.Errorf("%d files opened, %d closed, want %d", len(opens), swarm.closes(), c.opens)
			}
			if c.path == "/fresh" && opens[0].Demand.Lifetime != time.Hour {
				t.Errorf("%+v", opens[0].Demand)
			}
		})
	}
	n := startNode(t, Config{Rules: rules, DialLocal: func(ctx context.Context, _, _ string) (net.Conn, error) {
		t.Error("dialled for a tunnel that is blocked")
		return nil, ctx.Err()
	}})
	res, _ := n.raw(t, "CONNECT", "CONNECT x.test:443 HTTP/1.1\r\nHost: x.test:443\r\n\r\n")
	wantStatus(t, res, 403)
}
