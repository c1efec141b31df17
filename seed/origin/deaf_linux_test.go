package origin

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDeafConnections: connections to origins end when what they send is not
// acknowledged; a slow origin's kernel acknowledges.
func TestDeafConnections(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	policy, err := NewPolicy([]string{"127.0.0.0/8"})
	if err != nil {
		t.Fatal(err)
	}
	c := New(Config{Policy: policy, ConnectTimeout: 7 * time.Second})
	defer c.CloseIdle()
	for name, transport := range map[string]*http.Transport{"direct": c.direct, "proxied": c.proxied} {
		conn, err := transport.DialContext(t.Context(), "tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		raw, err := conn.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var got int
		if cerr := raw.Control(func(fd uintptr) {
			got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		}); cerr != nil || err != nil {
			t.Fatal(cerr, err)
		}
		if got != 7000 {
			t.Errorf("%s: TCP_USER_TIMEOUT is %d ms, want 7000", name, got)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}

// timeoutError is what a dialer says when nobody answers.
type timeoutError struct{}

func (timeoutError) Error() string { return "i/o timeout" }
func (timeoutError) Timeout() bool { return true }

// TestMuteOrigin: an origin that a connection's attempts got no answer from is not
// tried again for the same reader, one that refuses is.
func TestMuteOrigin(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want int
	}{
		{"no answer", timeoutError{}, 1},
		{"refused", unix.ECONNREFUSED, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			dials := 0
			client := New(Config{
				Dial: func(_ context.Context, network, _ string) (net.Conn, error) {
					dials++
					return nil, &net.OpError{Op: "dial", Net: network, Err: c.err}
				},
				Limits: Limits{RetryDelay: time.Millisecond},
			})
			defer client.CloseIdle()
			resp, err := client.Get(t.Context(), Request{URL: "http://192.0.2.1/file"})
			if err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				t.Fatal("an answer of nobody")
			}
			if dials != c.want {
				t.Errorf("%d dials, want %d: %v", dials, c.want, err)
			}
		})
	}
}
