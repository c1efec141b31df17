package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/testground/plan"
	"github.com/p2pnode/p2pnode/testground/runner"
)

// TestMain is an instance where the runner has started it as one.
func TestMain(m *testing.M) {
	if plan.IsInstance() {
		plan.Main()
		return
	}
	flag.Parse()
	if raced {
		fmt.Println("skipped: swarms of processes under the race detector are slower than their heartbeats; run them without -race")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// runCase runs a case with its manifest's defaults but for set.
func runCase(t *testing.T, name string, instances int, set map[string]string) (plan.Results, error) {
	t.Helper()
	m, err := runner.LoadManifest("manifest.toml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := m.Case(name)
	if err != nil {
		t.Fatal(err)
	}
	params, err := c.Values(set)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	var mu sync.Mutex
	var said []string
	r := runner.Run{Plan: m.Name, Case: name, ID: "test", Binary: self, Instances: instances, Params: params, OutDir: t.TempDir(),
		Log: func(s string) { mu.Lock(); defer mu.Unlock(); said = append(said, s) }}
	begun := time.Now()
	ran := r.Do(ctx)
	t.Logf("%s with %d instances took %s", name, instances, time.Since(begun).Round(10*time.Millisecond))
	results, err := plan.LoadResults(r.Outputs())
	if err != nil {
		t.Fatal(err)
	}
	if ran != nil {
		t.Log(strings.Join(said, "\n"))
		logs, _ := filepath.Glob(filepath.Join(r.Outputs(), "*", "*", "node.log"))
		for _, l := range logs {
			if text, err := os.ReadFile(l); err == nil && len(text) > 0 {
				t.Logf("%s: %s", l, text[max(0, len(text)-1500):])
			}
		}
	}
	return results, ran
}

// mustCheck fails where a run has not looked at an invariant, or noted it as
// broken.
func mustCheck(t *testing.T, rs plan.Results, names ...string) {
	t.Helper()
	checks := rs.Checks()
	for _, name := range names {
		if c, ok := checks[name]; !ok || !c.OK {
			t.Errorf("check %q: %+v (there: %t)", name, c, ok)
		}
	}
}
