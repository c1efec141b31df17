package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// clientTimeout bounds one run of a client.
const clientTimeout = time.Minute

// clients is what the tests of real clients share: two daemons, both seeds, and
// an origin that counts.
type clients struct {
	*swarm
	origin *p2ptest.Origin
}

// TestClients runs the tools that people have, as people call them, through the
// proxy, the gateway or the mirror of real daemons. Each checks the bytes, and
// that what the second daemon's client gets costs the origin nothing.
//
// A tool that is not installed is skipped, unless the variable P2PNODE_CLIENTS,
// a list with blanks, names it: then that is a failure.
func TestClients(t *testing.T) {
	c := &clients{swarm: newSwarm(t, binary(t, ""), 2, 2), origin: p2ptest.NewOrigin(t)}
	for _, test := range []struct {
		name string
		run  func(*testing.T, *clients)
	}{
		{"curl", testCurl}, {"curl ranges", testCurlRanges}, {"curl upload", testCurlUpload},
		{"wget", testWget}, {"aria2c", testAria2}, {"apt-get", testApt}, {"git", testGit}, {"git dumb", testGitDumb},
		{"npm", testNPM}, {"qemu-img", testQemu},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, c) })
	}
}

// need skips the test where a tool is missing.
func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err == nil {
			continue
		}
		if slices.Contains(strings.Fields(os.Getenv("P2PNODE_CLIENTS")), tool) {
			t.Fatalf("%s was installed and is not in PATH", tool)
		}
		t.Skipf("no %s here: .ci/run clients installs it", tool)
	}
}

// tool is one run of a client.
type tool struct {
	dir string
	env []string
}

// newTool gives a client a directory of its own and no settings of this user.
func newTool(t *testing.T, env ...string) tool {
	dir := t.TempDir()
	return tool{dir: dir, env: append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C"}, env...)}
}

func (c tool) path(name string) string { return filepath.Join(c.dir, name) }

// run runs a command in the directory, to its successful end, and returns what
// it printed on stdout.
func (c tool) run(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	out, err := c.try(t, name, args...)
	if err != nil {
		t.Fatalf("%s %q: %v", name, args, err)
	}
	return out
}

func (c tool) try(t *testing.T, name string, args ...string) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clientTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = c.dir, c.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err != nil {
		t.Logf("%s: %s%s", name, tail(stdout.Bytes(), 1000), tail(stderr.Bytes(), 2000))
	}
	return stdout.Bytes(), err
}

// write makes a file in the directory.
func (c tool) write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := c.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantFile compares a file in the directory.
func (c tool) wantFile(t *testing.T, name string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(c.path(name))
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, name, got, want)
}

func wantSame(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if sha256.Sum256(got) != sha256.Sum256(want) {
		t.Errorf("%s: %d bytes that are not the %d wanted: %.200q", what, len(got), len(want), got)
	}
}

// each runs a client at each daemon, and wants the origin to send nothing for those
// after the first: not one byte of any file whose path begins with prefix.
func (c *clients) each(t *testing.T, prefix string, run func(d *process)) {
	t.Helper()
	for i, d := range c.daemons {
		before := c.origin.BytesBelow(prefix)
		run(d)
		if n := c.origin.BytesBelow(prefix) - before; i > 0 && n != 0 {
			t.Errorf("the origin sent %d bytes below %s to client %d, of what the first had got", n, prefix, i+1)
		}
	}
}

// wantOnce wants the origin to have sent each byte of a file once, to all
// clients of all daemons together.
func (c *clients) wantOnce(t *testing.T, path string, data []byte) {
	t.Helper()
	if n := c.origin.Bytes(path); n != int64(len(data)) {
		t.Errorf("the origin sent %d bytes of %s, which has %d, in %d requests", n, path, len(data), c.origin.Requests(path))
	}
}
