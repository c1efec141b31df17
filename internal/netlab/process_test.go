//go:build linux

package netlab_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/netlab"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// readyWithin bounds the start of a process, readWithin one read.
const (
	readyWithin = 30 * time.Second
	readWithin  = 3 * time.Minute
)

var buildDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "p2pnode-lab-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	buildDir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// binary returns the path of the command.
var binary = sync.OnceValues(func() (string, error) {
	out := filepath.Join(buildDir, "p2pnode")
	text, err := exec.Command("go", "build", "-o", out, "github.com/p2pnode/p2pnode/cmd/p2pnode").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, text)
	}
	return out, nil
})

// process is one daemon or supernode in a namespace.
type process struct {
	t    testing.TB
	at   *netlab.Namespace
	dir  string
	args []string
	cmd  *exec.Cmd
	wait chan error
	// Of the ready line.
	Peer, Proxy, Admin string
	Addrs              []string
}

// start starts a process and returns when it is ready.
func start(t testing.TB, at *netlab.Namespace, args ...string) *process {
	t.Helper()
	return startIn(t, t.TempDir(), at, args...)
}

func startIn(t testing.TB, dir string, at *netlab.Namespace, args ...string) *process {
	t.Helper()
	p := &process{t: t, at: at, args: args, dir: dir}
	p.launch()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			text, _ := os.ReadFile(filepath.Join(p.dir, "log"))
			t.Logf("%s %s:\n%s", p.args[0], p.Peer, text[max(0, len(text)-6000):])
		}
	})
	return p
}

func (p *process) launch() {
	p.t.Helper()
	bin, err := binary()
	if err != nil {
		p.t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd = p.at.Command(bin, append(p.args, "--data-dir", filepath.Join(p.dir, "data"), "--log-level", "debug")...)
	p.cmd.Stderr = log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	line, wait := make(chan string, 1), make(chan error, 1)
	p.wait = wait
	go func() {
		s := bufio.NewScanner(out)
		s.Scan()
		line <- s.Text()
		_, _ = io.Copy(io.Discard, out)
		wait <- p.cmd.Wait()
		_ = log.Close()
	}()
	select {
	case text := <-line:
		if err := json.Unmarshal([]byte(text), p); err != nil {
			logged, _ := os.ReadFile(log.Name())
			p.t.Fatalf("ready line %q: %v\n%s", text, err, logged[max(0, len(logged)-2000):])
		}
	case <-time.After(readyWithin):
		p.t.Fatalf("%v: not ready in %s", p.args, readyWithin)
	}
}

// kill ends the process by SIGKILL and waits; it may be called again.
func (p *process) kill() {
	if p.wait == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.wait
	p.wait = nil
}

// path is the way to a peer, as /v1/status shows it.
type path struct {
	Peer, How, Transport string
	DirectAfterMs        int64  `json:"direct_after_ms"`
	LastError            string `json:"last_error"`
}

// status is what the tests look at of /v1/status.
type status struct {
	Pool       []string
	Addrs      []string
	Supernodes []struct{ Connected bool }
	Site       string
	SiteFrom   string `json:"site_from"`
	// SiteMembers are those of the pool.
	SiteMembers int `json:"site_members"`
	Network     struct {
		Reachability string
		Relays       []string
		Paths        []path
	}
}

func (p *process) status() (s status, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Admin+"/v1/status", http.NoBody)
	if err != nil {
		return s, err
	}
	resp, err := p.at.Client(10 * time.Second).Do(req)
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

// until waits until the status is as cond wants it.
func (p *process) until(within time.Duration, what string, cond func(status) bool) status {
	p.t.Helper()
	deadline := time.Now().Add(within)
	for {
		s, err := p.status()
		if err == nil && cond(s) {
			return s
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s did not happen in %v: error %v, status %+v", what, within, err, s)
		}
		wait(50 * time.Millisecond)
	}
}

// wait pauses between two looks at another process.
func wait(d time.Duration) { <-time.After(d) }

// joined reports whether the supernode answers.
func (s status) joined() bool { return len(s.Supernodes) == 1 && s.Supernodes[0].Connected }

// forget takes away the peers that the process has met before.
func (p *process) forget() {
	p.t.Helper()
	if err := os.Remove(filepath.Join(p.dir, "data", "peers.json")); err != nil {
		p.t.Fatal(err)
	}
}

// lanAddr returns the process's TCP address on its LAN.
func (p *process) lanAddr() string {
	p.t.Helper()
	for _, a := range p.Addrs {
		if strings.HasPrefix(a, "/ip4/"+p.at.IP+"/tcp/") {
			return a
		}
	}
	p.t.Fatalf("no address on the LAN among %v", p.Addrs)
	return ""
}

// to returns the path to a peer.
func (s status) to(peer string) (path, bool) {
	for _, p := range s.Network.Paths {
		if p.Peer == peer {
			return p, true
		}
	}
	return path{}, false
}

// read reads a URL through the process's gateway and compares it; it returns
// where the first byte came from.
func (p *process) read(url string, want []byte, within time.Duration) (source string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Proxy+"/url/"+url, http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := p.at.Client(within).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", fmt.Errorf("after %d of %d bytes: %w", len(body), len(want), err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d: %s", resp.StatusCode, strings.TrimSpace(string(body[:min(len(body), 300)])))
	}
	if sha256.Sum256(body) != sha256.Sum256(want) {
		return "", errors.New("wrong bytes")
	}
	return resp.Header.Get("P2pnode-Source"), nil
}

// listen are the flags of a process that listens on all interfaces.
func listen(port string) []string {
	return []string{"--listen", "/ip4/0.0.0.0/tcp/" + port, "--listen", "/ip4/0.0.0.0/udp/" + port + "/quic-v1", "--admin", "127.0.0.1:0"}
}

// world is a lab with a supernode and an origin on its public segment.
type world struct {
	*netlab.Lab
	t         testing.TB
	supernode *process
	origin    *p2ptest.Origin
	join      string // the secret that lets daemons in
}

func newWorld(t testing.TB, more ...string) *world {
	t.Helper()
	w := &world{Lab: netlab.Start(t), t: t}
	l, err := w.Host("origin").Listen("0.0.0.0:80")
	if err != nil {
		t.Fatal(err)
	}
	w.origin = p2ptest.NewOriginOn(t, l)
	keys, dir := t.TempDir(), t.TempDir()
	run(t, "swarm", "init", "--swarm-dir", keys)
	id := run(t, "id", "--data-dir", filepath.Join(dir, "data"))
	secret := run(t, "swarm", "token", "--swarm-dir", keys, "--role", "supernode", "--peer", id)
	w.join = run(t, "swarm", "token", "--swarm-dir", keys, "--role", "seed", "--uses", "many")
	args := append([]string{"supernode", "--join", secret}, listen("65003")...)
	w.supernode = startIn(t, dir, w.Host("super"), append(args, more...)...)
	return w
}

// run runs a command that ends by itself, and returns what it prints.
func run(t testing.TB, args ...string) string {
	t.Helper()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(bin, args...).Output()
	if err != nil {
		t.Fatalf("p2pnode %v: %v", args, err)
	}
	return strings.TrimSpace(string(out))
}

// originIP is the origin's address: it is the first host of each lab.
const originIP = "11.11.0.11"

// add puts a file at the origin and returns its URL.
func (w *world) add(path string, data []byte) string {
	w.origin.Add(path, data)
	return "http://" + originIP + path
}

// supernodeAddrs are the public addresses of the supernode.
func (w *world) supernodeAddrs() (flags []string) {
	for _, a := range w.supernode.Addrs {
		if strings.HasPrefix(a, "/ip4/11.") {
			flags = append(flags, "--supernode", a)
		}
	}
	return flags
}

// daemon starts a node.
func (w *world) daemon(at *netlab.Namespace, more ...string) *process {
	w.t.Helper()
	args := append([]string{"daemon"}, listen("65000")...)
	args = append(args, "--proxy", "127.0.0.1:0", "--origin-fallback=false", "--join", w.join)
	return start(w.t, at, append(append(args, w.supernodeAddrs()...), more...)...)
}
