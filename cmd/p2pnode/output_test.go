package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

func TestGetFollowsLinks(t *testing.T) {
	for name, exists := range map[string]bool{"to a file": true, "dangling": false} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t)
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
				t.Fatal(err)
			}
			target, link := filepath.Join(dir, "sub", "target"), filepath.Join(dir, "link")
			if exists {
				if err := os.WriteFile(target, []byte("old"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Symlink(filepath.Join("sub", "target"), link); err != nil {
				t.Skip(err)
			}
			if h, code := g.get(t, "-o", link); code != exitDone {
				t.Fatalf("exit code %d: %s", code, h.errs.String())
			}
			checkFile(t, target, g.data)
			if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
				t.Errorf("the link was replaced: %v, %v", info, err)
			}
		})
	}
}

func TestGetLocksItsPart(t *testing.T) {
	g := newGateway(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	unlock, err := lockFile(out + ".part.lock")
	if err != nil {
		t.Fatal(err)
	}
	h, code := g.get(t, "-o", out)
	checkError(t, h, code, exitFailed, "another get is writing", out+".part")
	checkGone(t, out)
	unlock()
	if h, code := g.get(t, "-o", out); code != exitDone {
		t.Fatalf("exit code %d: %s", code, h.errs.String())
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left %v, %v; want the output alone", left, err)
	}
}

func TestGetKeepsTheURL(t *testing.T) {
	for in, want := range map[string]string{
		"http://Origin.example/a|b%2fc?x=<y>&z=%2F#part": "http://Origin.example/a|b%2fc?x=<y>&z=%2F",
		"http://a/x y\tz":      "http://a/x%20y%09z",
		"http://a//b/../c/":    "http://a//b/../c/",
		"http://a/ü%C3%BC?":    "http://a/ü%C3%BC?",
		"http://a?q":           "http://a?q",
		"http://a:80/?a=b?c=d": "http://a:80/?a=b?c=d",
	} {
		g := newGateway(t)
		g.reply = func(w http.ResponseWriter) bool { _, _ = io.WriteString(w, "x"); return true }
		h := newHarness()
		if code := h.run(t.Context(), []string{"get", in, "--proxy", g.Listener.Addr().String(), "-o", "-"}); code != exitDone {
			t.Errorf("%q: exit code %d: %s", in, code, h.errs.String())
			continue
		}
		if got := g.requests[0].RequestURI; got != "/url/"+want {
			t.Errorf("%q: asked for %q, want %q", in, got, "/url/"+want)
		}
	}
}
