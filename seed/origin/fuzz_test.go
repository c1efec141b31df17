package origin

import (
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
)

// FuzzAnswer: whatever an origin writes into its header, what is taken of it
// lies in the file and in what was asked.
func FuzzAnswer(f *testing.F) {
	f.Add("bytes 0-99/1000", "max-age=60, private", "17", "identity", int64(100), uint16(206), int64(0), int64(100))
	f.Add("bytes 5-4/*", "no-store", "Wed, 21 Oct 2015 07:28:00 GMT", "gzip", int64(-1), uint16(200), int64(7), int64(3))
	f.Add("bytes 9223372036854775806-9223372036854775807/9223372036854775807", "", "-1", "", int64(0), uint16(206), int64(1)<<62, int64(1))
	now := time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, contentRange, cacheControl, number, coding string, length int64, status uint16, off, n int64) {
		if off < 0 || n < 0 || off > 1<<62 || n > 1<<62 {
			return
		}
		asked := content.Range{Off: off, Len: n}
		a := &http.Response{Request: &http.Request{Method: http.MethodGet}, ProtoMajor: 1, StatusCode: int(status), ContentLength: length, Header: http.Header{
			"Content-Range": {contentRange}, "Cache-Control": {cacheControl}, "Age": {number}, "Retry-After": {number}, "Content-Encoding": {coding},
		}}
		if d := retryAfter(number, now); d < 0 || d > 24*time.Hour {
			t.Errorf("Retry-After %q is %v", number, d)
		}
		if d := ageOf(a.Header); d < 0 {
			t.Errorf("Age %q is %v", number, d)
		}
		_, _ = shareable(a.Header, ""), shareable(a.Header, "sha256:")
		size, rng, err := held(a, Request{Range: asked}, asked)
		if err != nil {
			return
		}
		if rng.Off < 0 || rng.Len < 0 || size >= 0 && rng.End() > size || status == http.StatusPartialContent && !asked.Contains(rng) {
			t.Errorf("took %v of %d bytes, asked for %v", rng, size, asked)
		}
	})
}

// FuzzPolicy: no spelling of a private or loopback address is let through.
func FuzzPolicy(f *testing.F) {
	for _, s := range []string{"127.0.0.1:80", "[::ffff:10.0.0.1]:443", "[64:ff9b::a9fe:a9fe]:80", "169.254.169.254:80", "8.8.8.8:443", "[fe80::1%eth0]:1", "x"} {
		f.Add(s)
	}
	p, err := NewPolicy(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, address string) {
		if p.Control(t.Context(), "tcp", address, nil) != nil {
			return
		}
		ap := mustAddrPort(t, address)
		a := ap.Addr().Unmap()
		if a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || a.IsInterfaceLocalMulticast() {
			t.Errorf("%s is let through", address)
		}
	})
}

func FuzzAllow(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8", "*.example.org", "example.org", "[::1]", "::ffff:10.0.0.0/104", "http://x", "*."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, entry string) {
		p, err := NewPolicy([]string{entry})
		if err == nil && len(p.hosts)+len(p.suffixes)+len(p.prefixes) != 1 {
			t.Errorf("%q allows nothing, or more than one thing", entry)
		}
	})
}

func mustAddrPort(t *testing.T, s string) netip.AddrPort {
	t.Helper()
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		t.Fatalf("%q was let through, and is no address: %v", s, err)
	}
	return ap
}
