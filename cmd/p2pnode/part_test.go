package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

func TestGetResumes(t *testing.T) {
	for _, c := range []struct {
		name       string
		args       []string
		want       func(data []byte) []byte
		rangeAfter string
	}{
		{"whole", nil, func(d []byte) []byte { return d }, "bytes=30000-65535"},
		{"range", []string{"--range", "1000-50000"}, func(d []byte) []byte { return d[1000:50001] }, "bytes=31000-50000"},
		{"open range", []string{"--range", "1000-"}, func(d []byte) []byte { return d[1000:] }, "bytes=31000-65535"},
		{"last bytes", []string{"--range", "-40000"}, func(d []byte) []byte { return d[25536:] }, "bytes=55536-65535"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGateway(t)
			out := filepath.Join(t.TempDir(), "out")
			args := append([]string{"-o", out}, c.args...)
			want := c.want(g.data)
			g.cut = 30000
			h, code := g.get(t, args...)
			checkError(t, h, code, exitFailed, fmt.Sprintf("30000 of %d bytes", len(want)))
			checkFile(t, out, nil)
			checkFile(t, out+".part", want[:30000])

			g.cut = 0
			if h, code := g.get(t, args...); code != exitDone {
				t.Fatalf("exit code %d: %s", code, h.errs.String())
			}
			checkFile(t, out, want)
			checkGone(t, out)
			if got := g.lastHeader("Range"); got != c.rangeAfter || g.lastHeader("If-Range") != g.etag {
				t.Errorf("continued with Range %q If-Range %q, want %q", got, g.lastHeader("If-Range"), c.rangeAfter)
			}
		})
	}
}

func TestGetStartsOver(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(g *gateway, out string)
		args   []string
	}{
		{"file changed", func(g *gateway, _ string) { g.etag, g.data = `"two"`, bytes.Repeat([]byte("z"), 40000) }, nil},
		{"file shrunk below the part", func(g *gateway, _ string) { g.etag, g.data = `"two"`, []byte("tiny") }, nil},
		{"file changed, If-Range ignored", func(g *gateway, _ string) {
			g.etag, g.data, g.noIfRange = `"two"`, bytes.Repeat([]byte("z"), len(g.data)), true
		}, nil},
		{"state lost", func(_ *gateway, out string) { os.Remove(out + ".part.json") }, nil},
		{"state damaged", func(_ *gateway, out string) { os.WriteFile(out+".part.json", []byte("{"), 0o600) }, nil},
		{"part too long", func(_ *gateway, out string) { os.WriteFile(out+".part", make([]byte, 1<<17), 0o600) }, nil},
		{"not wanted", func(*gateway, string) {}, []string{"--resume=false"}},
	} {
		for _, byteRange := range []string{"", "1-"} {
			t.Run(c.name+" "+byteRange, func(t *testing.T) {
				g := newGateway(t)
				out := filepath.Join(t.TempDir(), "out")
				args := append([]string{"-o", out}, c.args...)
				if byteRange != "" {
					args = append(args, "--range", byteRange)
				}
				g.cut = 30000
				g.get(t, args...)
				g.cut = 0
				c.change(g, out)
				if h, code := g.get(t, args...); code != exitDone {
					t.Fatalf("exit code %d: %s", code, h.errs.String())
				}
				checkFile(t, out, g.data[len(byteRange)/2:])
				checkGone(t, out)
			})
		}
	}
}

func TestGetWithoutValidatorStartsOver(t *testing.T) {
	g := newGateway(t)
	out := filepath.Join(t.TempDir(), "out")
	g.etag, g.cut = "", 30000
	g.get(t, "-o", out)
	g.cut = 0
	if h, code := g.get(t, "-o", out); code != exitDone {
		t.Fatalf("exit code %d: %s", code, h.errs.String())
	}
	checkFile(t, out, g.data)
	if got := g.lastHeader("Range"); got != "" {
		t.Errorf("continued with Range %q and no validator", got)
	}
}

func TestGetFinishesACompletePart(t *testing.T) {
	g := newGateway(t)
	out := filepath.Join(t.TempDir(), "out")
	state, _ := json.Marshal(part{URL: fileURL, Validator: g.etag, Length: int64(len(g.data))})
	os.WriteFile(out+".part", g.data, 0o600)
	os.WriteFile(out+".part.json", state, 0o600)
	if h, code := g.get(t, "-o", out); code != exitDone {
		t.Fatalf("exit code %d: %s", code, h.errs.String())
	}
	checkFile(t, out, g.data)
	if len(g.requests) > 0 {
		t.Error("a complete part was asked for again")
	}
}

func TestGetInterrupted(t *testing.T) {
	g := newGateway(t)
	ctx, cancel := context.WithCancel(t.Context())
	out := filepath.Join(t.TempDir(), "out")
	g.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", g.etag)
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write(make([]byte, 10))
		_ = http.NewResponseController(w).Flush()
		p2ptest.Eventually(t, 10*time.Second, func() bool {
			info, err := os.Stat(out + ".part")
			return err == nil && info.Size() == 10
		}, "the part file has what was sent")
		cancel()
		<-r.Context().Done()
	})
	h := newHarness()
	code := h.run(ctx, []string{"get", fileURL, "--proxy", g.URL, "-o", out})
	checkError(t, h, code, exitInterrupted, "interrupted", "10 bytes")
	checkFile(t, out+".part", make([]byte, 10))
}

func TestParseRange(t *testing.T) {
	for in, want := range map[string]byteRange{
		"": {}, "0-0": {true, 0, 0}, "5-9": {true, 5, 9}, "7-": {true, 7, -1}, "-3": {true, -1, 3},
		"0-9223372036854775807": {true, 0, 1<<63 - 1},
	} {
		if got, err := parseRange(in); err != nil || got != want || got.String() != in {
			t.Errorf("%q: got %+v, written %q, %v", in, got, got, err)
		}
	}
	for _, in := range []string{"-", "5", "9-5", "-0", "a-b", "1-2-3", "+1-2", " 1-2", "1-2,4-5", "--1", "0-9223372036854775808"} {
		if got, err := parseRange(in); err == nil {
			t.Errorf("%q is read as %+v", in, got)
		}
	}
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-1/2", "bytes 0-1/*", "bytes */5", "items 0-1/2", "bytes 5-1/9", "bytes 1-4611686018427387904/9", "bytes 0-2/2", "bytes 0-1", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, last, err := parseContentRange(s)
		if err != nil {
			return
		}
		size := int64(math.MaxInt64)
		if _, all, _ := strings.Cut(s, "/"); all != "*" {
			size, err = strconv.ParseInt(all, 10, 64)
		}
		if err != nil || first < 0 || last < first || last-first+1 <= 0 || last >= size {
			t.Fatalf("%q is %d-%d, %v", s, first, last, err)
		}
	})
}

// FuzzPart: whatever the state file says, what is asked for lies in what is wanted
// and begins where the part file ends, and the answer's place continues it.
func FuzzPart(f *testing.F) {
	const good = `{"url":"https://o/f","validator":"\"a\"","start":0,"length":100}`
	f.Add("", int64(30), good, "bytes 30-99/100")
	f.Add("", int64(30), good, "bytes 30-89/100")
	f.Add("10-19", int64(5), `{"url":"https://o/f","range":"10-19","validator":"a","start":10,"length":10}`, "bytes 15-19/100")
	f.Add("10-", int64(5), `{"url":"https://o/f","range":"10-","validator":"a","start":10,"length":90}`, "bytes 15-99/*")
	f.Add("-7", int64(5), `{"url":"https://o/f","range":"-7","validator":"a","start":93,"length":7}`, "bytes 98-99/100")
	f.Add("", int64(5), `{"url":"https://o/f","validator":"a","start":9223372036854775807,"length":-2}`, "")
	f.Add("-7", int64(5), `{"url":"https://o/f","range":"-7","validator":"a","start":-5,"length":7}`, "")
	f.Add("-7", int64(5), `{"url":"https://o/f","range":"-7","validator":"a","start":93,"length":9}`, "bytes 98-101/200")
	f.Add("1-", int64(0), "null", "bytes 1-2/3")
	f.Add("1-2", int64(0), "", "bytes 1-9/10")
	f.Fuzz(func(t *testing.T, wanted string, have int64, text, contentRange string) {
		want, err := parseRange(wanted)
		if err != nil || have < 0 {
			return
		}
		d := &download{url: "https://o/f", want: want}
		p := d.readPart([]byte(text), have)
		checkPart(t, d, p)
		if p.have != 0 && p.have != have {
			t.Fatalf("%d bytes are taken for %d", have, p.have)
		}
		if p.complete() { // nothing is asked for
			return
		}
		after := p
		res := &http.Response{StatusCode: http.StatusPartialContent, Header: http.Header{"Etag": {p.Validator}, "Content-Range": {contentRange}}}
		if after.accept(d, res) != nil {
			return
		}
		checkPart(t, d, after)
		if first, last, err := parseContentRange(contentRange); err != nil || p.have > 0 && p.Length >= 0 && after.Length != p.Length || first != after.Start+after.have || last != after.Start+after.Length-1 {
			t.Fatalf("%q continues %+v as %+v", contentRange, p, after)
		}
	})
}

// checkPart wants a part that can be continued.
func checkPart(t *testing.T, d *download, p part) {
	t.Helper()
	if p.Start < 0 || p.Length < -1 {
		t.Fatalf("%+v is continued", p)
	}
	header := p.header(d.want)
	if p.have == 0 || p.complete() {
		if want := d.want.String(); p.have == 0 && header != "" && header != "bytes="+want {
			t.Fatalf("%+v is asked for as %q, want %q", p, header, want)
		}
		return
	}
	asked, err := parseRange(strings.TrimPrefix(header, "bytes="))
	whole := d.want
	if whole.first < 0 || !whole.set { // what it is is not known before the answer
		whole.first, whole.last = p.Start, -1
	}
	if err != nil || asked.first != p.Start+p.have || asked.first < whole.first || whole.last >= 0 && (asked.last < 0 || asked.last > whole.last) ||
		asked.last >= 0 && d.want.first < 0 && d.want.set && p.Length > d.want.last || !d.want.set && p.Start != 0 {
		t.Fatalf("wanted %q: %+v is asked for as %q, %v", d.want, p, header, err)
	}
}

func TestBarNeverFails(t *testing.T) {
	for _, total := range []int64{-1, 0, 3, 100, math.MaxInt64} {
		var drawn bytes.Buffer
		b := newBar(&drawn, min(2, max(total, 0)), total)
		for range 10 {
			if n, err := b.Write(make([]byte, 7)); n != 7 || err != nil {
				t.Fatalf("total %d: wrote %d, %v", total, n, err)
			}
		}
		for _, done := range []int64{math.MinInt64, -1, 1, math.MaxInt64} {
			b.set(done, total)
			b.set(total, done)
		}
		newBar(&drawn, math.MaxInt64, total).clear()
		if err := b.Close(); err != nil || !bytes.HasSuffix(drawn.Bytes(), []byte("\n")) {
			t.Errorf("total %d: closed with %v after %q", total, err, drawn.String())
		}
	}
}
