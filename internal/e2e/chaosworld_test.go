package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inNamespace is set where a chaos test runs in a network namespace of its own.
const inNamespace = "P2PNODE_CHAOS_NETNS"

// isolate runs the test again in a network namespace of its own, where nodes can
// be cut off from one another, and reports whether it did; not where this user may
// not make one.
func isolate(t *testing.T) bool {
	if os.Getenv(inNamespace) != "" {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			t.Fatalf("bring up loopback: %v: %s", err, out)
		}
		return false
	}
	probe := exec.Command("unshare", "-n", "sh", "-c", "ip link set lo up && iptables -w -A OUTPUT -p tcp -m owner --gid-owner 1 -m multiport --dports 1,2 -j DROP")
	if out, err := probe.CombinedOutput(); err != nil {
		t.Logf("nodes are not cut off from one another: that takes root, unshare, ip and iptables: %v: %.200s", err, out)
		return false
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "-n", os.Args[0], "-test.run=^TestChaos$", "-test.v", "-test.timeout=0")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Run(); err != nil {
		t.Errorf("in a network namespace of its own: %v", err)
	}
	return true
}

// gidOf is the group that a node's process has, by which its packets are known.
func gidOf(node int) int { return 70_000 + node }

// cut drops, or with -D drops no more, all packets between a node and its peers.
// Its clients and the origin are not peers.
func (c *chaos) cut(op string, i int) {
	peers := []string{c.superPort}
	for j, n := range c.nodes {
		if j != i {
			peers = append(peers, n.port)
		}
	}
	own := c.nodes[i].port
	for _, rule := range [][]string{
		{"-p", "tcp", "--dport", own},
		{"-p", "tcp", "--sport", own},
		{"-p", "tcp", "-m", "owner", "--gid-owner", strconv.Itoa(gidOf(i)), "-m", "multiport", "--dports", strings.Join(peers, ",")},
	} {
		args := append([]string{"-w", op, "OUTPUT"}, append(rule, "-j", "DROP")...)
		if out, err := exec.Command("iptables", args...).CombinedOutput(); err != nil {
			c.t.Errorf("iptables %v: %v: %s", args, err, out)
		}
	}
}

// partitioned cuts a node off from all others: it reads from the origin itself
// what it does not hold.
func (c *chaos) partitioned() {
	i := c.r.IntN(len(c.nodes))
	c.cut("-A", i)
	c.pause(1000, 8000)
	c.cut("-D", i)
}

// clockJumped moves the clock of a process by up to eleven hours to either side, or
// to 1970, as on a machine without a battery, and leaves it there. Two clocks then
// differ by less than the day that membership allows, or one is before the program's
// own date, and its certificates are not asked for theirs.
func (c *chaos) clockJumped() {
	p := c.supernode
	if i := c.r.IntN(len(c.nodes) + 1); i < len(c.nodes) {
		p = c.nodes[i].process
	}
	to := time.Duration(c.r.Int64N(int64(22*time.Hour))) - 11*time.Hour
	if c.r.IntN(4) == 0 {
		to = -time.Duration(time.Now().Unix()) * time.Second
	}
	if err := os.WriteFile(clockFile(p), []byte(strconv.FormatInt(int64(to/time.Second), 10)), 0o600); err != nil {
		c.t.Error(err)
	}
	c.pause(500, 2000)
}

func clockFile(p *process) string { return filepath.Join(p.dir, "clock") }

// clockVar names the file that a binary made by clockBinary takes its clock's
// error from, in seconds; it is read ten times a second.
const clockVar = "P2PNODE_TEST_CLOCK"

const clockSource = `package main

import (
	"os"
	"strconv"
	"strings"
	"time"
)

func init() {
	go func() {
		for tick := time.Tick(100 * time.Millisecond); ; <-tick {
			text, _ := os.ReadFile(os.Getenv("` + clockVar + `"))
			if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil {
				time.SetJump(n)
			}
		}
	}()
}
`

// clockBinary builds the command with a clock that can be set: with another
// time.Now, whose monotonic part goes on as it does when somebody sets a
// machine's clock. Nothing of that is in the product.
func clockBinary(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/p2pnode/p2pnode").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	const was = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	changed := strings.Replace(string(text), was, was+"\tsec += jump\n", 1)
	if changed == string(text) {
		t.Fatalf("%s has another Now than this test knows: adapt it", source)
	}
	changed += "\nvar jump int64\n\n// SetJump sets the clock's error.\nfunc SetJump(seconds int64) { jump = seconds }\n"
	dir := t.TempDir()
	overlay := map[string]map[string]string{"Replace": {
		source: write(t, dir, "time.go", changed),
		filepath.Join(strings.TrimSpace(string(module)), "cmd", "p2pnode", "zclock.go"): write(t, dir, "zclock.go", clockSource),
	}}
	list, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(buildDir, "p2pnode-clock")
	cmd := exec.Command("go", "build", "-overlay", write(t, dir, "overlay.json", string(list)), "-o", out, "github.com/p2pnode/p2pnode/cmd/p2pnode")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build with a clock that can be set: %v\n%s", err, text)
	}
	return out
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// blockOf names a block of a file.
type blockOf struct {
	path  string
	index int
}

// refusals remembers, of each block, when the origin was made to fail a request for
// it. A node asks for a block four times a minute at most while that fails, and who
// asks it then is told so: for a minute after four failures a read of it may be.
type refusals struct {
	byBlock map[blockOf][]time.Time
}

const (
	budget       = 4
	budgetPeriod = time.Minute
)

// refused notes a request that is made to fail, with the blocks that it asks for;
// all where it asks for no range: without metadata nothing of a file can be read.
func (c *chaos) refused(r *http.Request) {
	var first, last int
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); err != nil {
		first, last = 0, maxChaosFile
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := first >> 20; i <= last>>20; i++ {
		b := blockOf{r.URL.Path, i}
		list := append(c.failures.byBlock[b], time.Now())
		c.failures.byBlock[b] = list[max(0, len(list)-budget):]
	}
}

// spent reports whether so many requests for a block of a part of a file failed in
// the minute before a moment that nodes may not ask for it then.
func (c *chaos) spent(file, off, end int, since time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := off >> 20; i <= (end-1)>>20; i++ {
		list := c.failures.byBlock[blockOf{fmt.Sprintf("/file%d", file), i}]
		if len(list) == budget && since.Sub(list[0]) < budgetPeriod {
			return true
		}
	}
	return false
}
