//go:build unix

package main

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/p2pnode/p2pnode/testground/plan"
	"github.com/p2pnode/p2pnode/testground/runner"
)

// TestManifest: the manifest has exactly the plan's cases, and each parameter
// says what it is.
func TestManifest(t *testing.T) {
	m, err := runner.LoadManifest("manifest.toml")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range m.TestCases {
		names = append(names, c.Name)
		if c.Instances.Min < 2 || c.Instances.Default < c.Instances.Min || c.Instances.Max < c.Instances.Default {
			t.Errorf("%s: instances %+v", c.Name, c.Instances)
		}
		for name, p := range c.Params {
			if p.Type == "" || p.Desc == "" || p.Default == nil {
				t.Errorf("%s: parameter %s: %+v: want type, desc and default", c.Name, name, p)
			}
		}
	}
	want := plan.Names()
	slices.Sort(names)
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("the manifest has the cases %q, the plan %q", names, want)
	}
}

// orphanVariable has this binary be a runner that is killed.
const orphanVariable = "P2PNODE_TESTGROUND_ORPHANS"

// TestNoOrphans kills a runner, which cannot clean up then: its instances must
// end all the same.
func TestNoOrphans(t *testing.T) {
	if os.Getenv(orphanVariable) != "" {
		runForEver(t)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestNoOrphans$", "-test.v")
	cmd.Env = append(os.Environ(), orphanVariable+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pids []int
	lines := bufio.NewScanner(out)
	for len(pids) < 3 && lines.Scan() {
		if text, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), "pid "); ok {
			pid, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if len(pids) < 3 {
		t.Fatalf("the runner has started %d instances, want 3", len(pids))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, pid := range pids {
		for !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) && !zombie(pid) {
			select {
			case <-tick.C:
			case <-ctx.Done():
				_ = syscall.Kill(pid, syscall.SIGKILL)
				t.Fatalf("instance %d has outlived its runner", pid)
			}
		}
	}
}

// zombie reports whether a process has ended and nobody has asked for its exit
// code: in a container whose first process does not, orphans stay so.
func zombie(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	_, rest, ok := strings.Cut(string(text), ") ")
	return ok && strings.HasPrefix(rest, "Z")
}

// runForEver runs a case that does not end, and prints its instances.
func runForEver(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m, err := runner.LoadManifest("manifest.toml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := m.Case("churn")
	if err != nil {
		t.Fatal(err)
	}
	params, err := c.Values(map[string]string{"duration": "4m"})
	if err != nil {
		t.Fatal(err)
	}
	err = runner.Run{Plan: m.Name, Case: "churn", ID: "test", Binary: self, Instances: 3, Params: params, OutDir: t.TempDir(),
		Started: func(pid int) { _, _ = os.Stdout.WriteString("pid " + strconv.Itoa(pid) + "\n") }}.Do(context.Background())
	t.Fatalf("the run has ended: %v", err)
}

// TestCompositions: what the compositions name is in the manifest.
func TestCompositions(t *testing.T) {
	m, err := runner.LoadManifest("manifest.toml")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("compositions/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("compositions %q, %v", files, err)
	}
	for _, path := range files {
		var c struct {
			Global struct {
				Plan  string `toml:"plan"`
				Case  string `toml:"case"`
				Total int    `toml:"total_instances"`
			} `toml:"global"`
			Groups []struct {
				Instances struct {
					Count int `toml:"count"`
				} `toml:"instances"`
				Run struct {
					Params map[string]string `toml:"test_params"`
				} `toml:"run"`
			} `toml:"groups"`
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := toml.Unmarshal(text, &c); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		of, err := m.Case(c.Global.Case)
		if err != nil || c.Global.Plan != m.Name {
			t.Errorf("%s: plan %s, %v", path, c.Global.Plan, err)
			continue
		}
		total := 0
		for _, g := range c.Groups {
			total += g.Instances.Count
			if _, err := of.Values(g.Run.Params); err != nil || len(g.Run.Params) == 0 {
				t.Errorf("%s: %d parameters, %v", path, len(g.Run.Params), err)
			}
		}
		if total != c.Global.Total || total > of.Instances.Max {
			t.Errorf("%s: %d instances in groups, %d in all, at most %d", path, total, c.Global.Total, of.Instances.Max)
		}
	}
}
