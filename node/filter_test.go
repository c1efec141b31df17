package node

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
)

// TestFilters: what supernodes say counts before a node's own list, which is
// warned of where it differs; what was used before is still known by its version.
func TestFilters(t *testing.T) {
	var out bytes.Buffer
	cfg := Config{DataDir: t.TempDir(), FilterQuery: []string{"own"}, Logger: slog.New(slog.NewTextHandler(&out, nil))}
	f := newFilters(cfg)
	warned := func(of string) bool {
		defer out.Reset()
		return strings.Contains(out.String(), "level=WARN") && strings.Contains(out.String(), of)
	}
	if got := f.Current(); !slices.Equal(got.Query, cfg.FilterQuery) || f.Swarm() != nil {
		t.Errorf("before: %v, %v", got, f.Swarm())
	}
	f.adopt(said([]string{"a", "b"}))
	if got := f.Current(); !slices.Equal(got.Query, []string{"a", "b"}) || !warned("differs from the supernode's") {
		t.Errorf("the supernode's: %v", got)
	}
	for _, query := range [][]string{{"own"}, {"a", "b"}} {
		want := content.NewFilter(query)
		if got, ok := f.ByVersion(want.Version); !ok || !slices.Equal(got.Query, query) {
			t.Errorf("version of %v: %v, %t", query, got, ok)
		}
	}
	if _, ok := f.ByVersion(0); ok {
		t.Error("went by a filter that it never had")
	}
	f.adopt(said([]string{"a", "token"}))
	if got := f.Current(); !slices.Equal(got.Query, cfg.FilterQuery) || !warned("parameter=token") {
		t.Errorf("a list with a credential: %v", got)
	}
	f.adopt(said(nil))
	if got := f.Current(); !slices.Equal(got.Query, cfg.FilterQuery) || warned("") {
		t.Errorf("nothing said: %v", got)
	}
	f.adopt(said([]string{"own"}))
	if warned("") {
		t.Error("warned of a list that is the same")
	}
	for i := range maxFormerFilters + 1 {
		f.adopt(said([]string{"x", string(rune('a' + i))}))
	}
	if _, ok := f.ByVersion(content.NewFilter([]string{"own"}).Version); ok {
		t.Error("remembers every filter")
	}
}

// TestFilterKept: after a restart files have the names that they had.
func TestFilterKept(t *testing.T) {
	cfg := Config{DataDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}
	names := []string{"a", "b"}
	if err := newFilters(cfg).save(cfg.DataDir, names); err != nil {
		t.Fatal(err)
	}
	f := newFilters(cfg)
	if got := f.Current(); !slices.Equal(got.Query, names) || got.Version != content.NewFilter(names).Version {
		t.Errorf("after a restart: %v", got)
	}
	for range 2 {
		if err := f.save(cfg.DataDir, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := newFilters(cfg).Current(); got.Version != 0 {
		t.Errorf("after nothing was said: %v", got)
	}
	if err := writeFile(cfg.DataDir+"/"+filterFile, []byte("[")); err != nil {
		t.Fatal(err)
	}
	if got := newFilters(cfg).Current(); got.Version != 0 {
		t.Errorf("of a broken file: %v", got)
	}
}

// said is what supernodes say.
func said(names []string) func() []string { return func() []string { return names } }
