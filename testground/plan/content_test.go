package plan

import (
	"bytes"
	"io"
	"log/slog"
	"net/http/httptest"
	"testing"
)

// TestContent: a part read from anywhere is what the whole file has there, and
// the checker finds a wrong byte.
func TestContent(t *testing.T) {
	f := File{Seed: 7, Index: 3, Size: 10_000}
	all, err := io.ReadAll(f.Reader(0, f.Size))
	if err != nil || int64(len(all)) != f.Size {
		t.Fatalf("%d bytes, %v", len(all), err)
	}
	for _, off := range []int64{0, 1, 15, 16, 17, 4096, 9_999} {
		part, err := io.ReadAll(f.Reader(off, f.Size-off))
		if err != nil || !bytes.Equal(part, all[off:]) {
			t.Errorf("from %d on: %v, equal %t", off, err, bytes.Equal(part, all[off:]))
		}
	}
	c := newChecker(f, 100)
	if _, err := c.Write(all[100:200]); err != nil {
		t.Error(err)
	}
	all[250] ^= 1
	if _, err := c.Write(all[200:300]); err == nil || err.Error() != "byte 250 is wrong" {
		t.Errorf("a wrong byte: %v", err)
	}
}

// TestOriginCounts: ranges are answered, and each byte sent is counted.
func TestOriginCounts(t *testing.T) {
	f := File{Seed: 1, Index: 0, Size: 1000}
	o := &Origin{seed: 1, size: func(int) int64 { return f.Size }, log: slog.New(slog.DiscardHandler), sent: make(map[int][]span)}
	for _, header := range []string{"bytes=0-499", "bytes=250-749"} {
		r := httptest.NewRequest("GET", f.Path(), nil)
		r.Header.Set("Range", header)
		w := httptest.NewRecorder()
		o.ServeHTTP(w, r)
		if w.Code != 206 || w.Body.Len() != 500 {
			t.Errorf("%s: %d, %d bytes", header, w.Code, w.Body.Len())
		}
	}
	if got, want := o.Tally(), (Tally{Requests: 2, Bytes: 1000, Unique: 750, MaxCopies: 2}); got != want {
		t.Errorf("tally %+v, want %+v", got, want)
	}
}
