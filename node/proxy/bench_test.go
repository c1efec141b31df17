package proxy

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// BenchmarkFace reads ranges of a file in memory through the gateway, beside
// the same ranges from http.ServeContent: what the face itself costs.
func BenchmarkFace(b *testing.B) {
	swarm := newFakeSwarm(16 << 20)
	h := New(Config{Opener: swarm, Logger: slog.New(slog.DiscardHandler)})
	plain := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-test")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(swarm.data))
	})
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20, 16 << 20} {
		for _, c := range []struct {
			name    string
			handler http.Handler
		}{{"face", h}, {"plain", plain}} {
			b.Run(fmt.Sprintf("%s/%d", c.name, size), func(b *testing.B) {
				srv := httptest.NewServer(c.handler)
				defer srv.Close()
				req, err := http.NewRequestWithContext(b.Context(), "GET", srv.URL+"/url/http://origin.test/file", nil)
				if err != nil {
					b.Fatal(err)
				}
				req.Header.Set("Range", fmt.Sprintf("bytes=0-%d", size-1))
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					res, err := srv.Client().Do(req)
					if err != nil {
						b.Fatal(err)
					}
					if n, err := io.Copy(io.Discard, res.Body); n != int64(size) || err != nil {
						b.Fatal(n, err)
					}
					_ = res.Body.Close()
				}
			})
		}
	}
}
