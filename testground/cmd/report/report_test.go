package main

import (
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/p2pnode/p2pnode/testground/plan"
)

// TestReport makes a report of a fan-out to two readers whose bound is known,
// with one read that failed and links that were not all applied.
func TestReport(t *testing.T) {
	in, out := t.TempDir(), t.TempDir()
	lines := `{"kind":"run","time":"2026-11-23T10:00:00Z","run_id":"r","case":"fanout","commit":"c0ffee","n":4,"instance":1,"run":{"role":"origin","links":{"by":"user-space","uplink_mbit":8}}}
{"kind":"run","time":"2026-11-23T10:00:00Z","run_id":"r","case":"fanout","commit":"c0ffee","n":4,"instance":2,"run":{"role":"node","links":{"by":"user-space","uplink_mbit":8,"loss_pct":1,"not_applied":"loss of 1 %"}}}
{"kind":"read","run_id":"r","time":"2026-11-23T10:00:01Z","case":"fanout","n":4,"read":{"phase":"cold","len":1000000,"source":"peer","first_ms":10,"whole_ms":2000}}
{"kind":"read","run_id":"r","time":"2026-11-23T10:00:01Z","case":"fanout","n":4,"read":{"phase":"cold","len":1000000,"source":"origin","first_ms":5,"whole_ms":1500}}
{"kind":"read","run_id":"r","time":"2026-11-23T10:00:01Z","case":"fanout","n":4,"read":{"phase":"cold","len":1000000,"err":"broken"}}
{"kind":"check","run_id":"r","time":"2026-11-23T10:00:01Z","case":"fanout","n":4,"check":{"name":"origin bytes","got":3,"bound":2,"unit":"bytes"}}
{"kind":"metric","run_id":"r","time":"2026-11-23T10:00:01Z","case":"fanout","n":4,"metric":{"name":"origin_bytes","value":3,"unit":"bytes"}}
{"kind":"metric","run_id":"r","time":"2026-11-23T10:00:01Z","case":"fanout","n":4,"metric":{"name":"origin_unique_bytes","value":2,"unit":"bytes"}}
`
	if err := os.WriteFile(filepath.Join(in, plan.ResultFile), []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"-out", out, in}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(out, "report.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| failed or wrong reads | 1 of 3 | 0 | **broken** |", "| origin bytes | 3 bytes | 2 | **broken** |", "loss of 1 %", "c0ffee",
		// 8 Mbit through 8 Mbit/s is a second; three readers, 24 Mbit through 32 is less.
		"The last reader had the file after 2000 ms, 2 times the bound max(F/us, F/dmin, NF/(us+Σu)) of 1000 ms.",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	plots, err := filepath.Glob(filepath.Join(out, "*.svg"))
	if err != nil || len(plots) != 2 {
		t.Fatalf("plots %q, %v; want 2", plots, err)
	}
	for _, p := range plots {
		f, err := os.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		d := xml.NewDecoder(f)
		for err == nil {
			_, err = d.Token()
		}
		if err != io.EOF { //nolint:errorlint // the decoder returns it as it is
			t.Errorf("%s: %v", p, err)
		}
		_ = f.Close()
	}
}

func TestNoResults(t *testing.T) {
	if err := run([]string{t.TempDir()}); err == nil || !strings.Contains(err.Error(), plan.ResultFile) {
		t.Errorf("a folder without results: %v", err)
	}
	if err := run(nil); err == nil {
		t.Error("no folder passed")
	}
}
