package e2e

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// readyWithin bounds the start of a process.
const readyWithin = 20 * time.Second

// binaries are built once a run, by tag; "" is the product.
var binaries sync.Map

var buildDir string

func TestMain(m *testing.M) {
	if raced {
		fmt.Println("skipped: the race detector does not see into the processes that these tests start; run them without -race")
		os.Exit(0)
	}
	dir, err := os.MkdirTemp("", "p2pnode-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	buildDir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// binary returns the path of the command, built with a tag.
func binary(t testing.TB, tag string) string {
	t.Helper()
	build, _ := binaries.LoadOrStore(tag, sync.OnceValues(func() (string, error) {
		out := filepath.Join(buildDir, "p2pnode"+tag)
		cmd := exec.Command("go", "build", "-tags", tag, "-o", out, "github.com/p2pnode/p2pnode/cmd/p2pnode")
		text, err := cmd.CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("build: %w\n%s", err, text)
		}
		return out, nil
	}))
	path, err := build.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// process is one daemon or supernode.
type process struct {
	t    testing.TB
	args []string
	bin  string
	dir  string
	data string
	log  *os.File
	cmd  *exec.Cmd
	wait chan error
	// setup is called before each start.
	setup func(*process)
	// Of the ready line.
	Peer, Proxy, Admin, Supernode string
	Addrs                         []string
}

// start starts a process and returns when it is ready.
func start(t testing.TB, bin string, args ...string) *process {
	t.Helper()
	return startAt(t, "", bin, args...)
}

// startAt is start with the data in a directory of its own; "" for none such.
func startAt(t testing.TB, data, bin string, args ...string) *process {
	t.Helper()
	return startWith(t, data, bin, nil, args...)
}

// startWith is startAt with a last look at the process before each start; nil for
// none.
func startWith(t testing.TB, data, bin string, setup func(*process), args ...string) *process {
	t.Helper()
	p := &process{t: t, bin: bin, args: args, dir: t.TempDir(), data: data, setup: setup}
	if data == "" {
		p.data = filepath.Join(p.dir, "data")
	}
	p.launch()
	t.Cleanup(func() {
		p.signal(syscall.SIGCONT)
		p.kill()
		if t.Failed() {
			if text, err := os.ReadFile(p.log.Name()); err == nil {
				t.Logf("%s %s:\n%s", p.Peer, p.args[0], troubles(text))
			}
		}
	})
	return p
}

// troubles returns the lines of a log that speak of errors.
func troubles(log []byte) string {
	var out []string
	for line := range strings.SplitSeq(string(log), "\n") {
		if strings.Contains(line, "err=") && !strings.Contains(line, "err=<nil>") && !strings.Contains(line, "connection reset by peer") {
			out = append(out, line[:min(len(line), 400)])
		}
	}
	return strings.Join(out[max(0, len(out)-40):], "\n")
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

func (p *process) launch() {
	p.t.Helper()
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	p.log = log
	p.cmd = exec.Command(p.bin, append(p.args, "--data-dir", p.data)...)
	p.cmd.Stderr = log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if p.setup != nil {
		p.setup(p)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	line := make(chan string, 1)
	p.wait = make(chan error, 1)
	go func() {
		s := bufio.NewScanner(out)
		s.Scan()
		line <- s.Text()
		_, _ = io.Copy(io.Discard, out)
		p.wait <- p.cmd.Wait()
		_ = log.Close()
	}()
	select {
	case text := <-line:
		var info struct {
			Peer, Proxy, Admin, Supernode string
			Addrs                         []string
		}
		if err := json.Unmarshal([]byte(text), &info); err != nil {
			logged, _ := os.ReadFile(log.Name())
			p.t.Fatalf("ready line %q: %v\n%s", text, err, tail(logged, 2000))
		}
		p.Peer, p.Proxy, p.Admin, p.Supernode, p.Addrs = info.Peer, info.Proxy, info.Admin, info.Supernode, info.Addrs
	case <-time.After(readyWithin):
		p.t.Fatalf("%v: not ready in %s", p.args, readyWithin)
	}
}

func (p *process) signal(s os.Signal) { _ = p.cmd.Process.Signal(s) }

// kill ends the process by SIGKILL and waits for its end; it may be called
// again.
func (p *process) kill() {
	if p.wait == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.wait
	p.wait = nil
}

// restart starts the process again on the same data directory and addresses.
func (p *process) restart() {
	p.t.Helper()
	p.launch()
}

// freePorts returns n TCP ports of loopback on which nobody listens. They lie
// below those that the system gives to outgoing connections, so that they stay
// free while their process is restarted.
func freePorts(t testing.TB, n int) []string {
	t.Helper()
	var out []string
	for tries := 0; len(out) < n; tries++ {
		port := strconv.Itoa(20000 + rand.IntN(12000))
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:"+port)
		if err != nil {
			if tries > 1000 {
				t.Fatal(err)
			}
			continue
		}
		defer func() { _ = l.Close() }()
		out = append(out, port)
	}
	return out
}

// swarm is one supernode and its daemons.
type swarm struct {
	t         testing.TB
	supernode *process
	daemons   []*process
}

// newSwarm starts a supernode and n daemons, and returns when every daemon
// knows all seeds. TCP ports are fixed, so that a restart finds its peers. more
// are further arguments of the daemons.
func newSwarm(t testing.TB, bin string, n, replicas int, more ...string) *swarm {
	t.Helper()
	ports := freePorts(t, n+1)
	s := &swarm{t: t}
	s.supernode = start(t, bin, "supernode", "--listen", "/ip4/127.0.0.1/tcp/"+ports[n], "--admin", "127.0.0.1:0",
		"--replicas", strconv.Itoa(replicas), "--log-level", "debug")
	for i := range n {
		s.daemons = append(s.daemons, start(t, bin, append([]string{
			"daemon", "--listen", "/ip4/127.0.0.1/tcp/" + ports[i], "--proxy", "127.0.0.1:0", "--admin", "127.0.0.1:0",
			"--supernode", s.supernode.Addrs[0], "--origin-allow", "127.0.0.0/8", "--log-level", "debug",
		}, more...)...))
	}
	s.settle(n)
	return s
}

// settle waits until every daemon has a pool of n seeds.
func (s *swarm) settle(n int) {
	s.t.Helper()
	for _, d := range s.daemons {
		p2ptest.Eventually(s.t, 15*time.Second, func() bool { return len(d.status(s.t).Pool) == n }, "pool of "+d.Peer)
	}
}

// status is what the tests look at of /v1/status.
type status struct {
	Pool      []string
	Connected int `json:"connected_peers"`
	Ready     bool
	Store     struct{ Files int }
}

func (p *process) status(t testing.TB) (s status) {
	t.Helper()
	p.admin(t, "/v1/status", &s)
	return s
}

// task is what the tests look at of /v1/tasks.
type task struct {
	Task, URL, Role string
	Size, Held      int64
	Seeds           []string
}

func (p *process) tasks(t testing.TB) (out []task) {
	t.Helper()
	p.admin(t, "/v1/tasks", &out)
	return out
}

func (p *process) admin(t testing.TB, path string, into any) {
	t.Helper()
	resp, err := http.Get(p.Admin + path) //nolint:noctx // bounded by the test
	if err != nil {
		t.Fatalf("admin: %v", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		t.Fatalf("admin %s: %v", path, err)
	}
}

// metric returns the sum of a metric's samples.
func (p *process) metric(t testing.TB, name string) float64 {
	t.Helper()
	resp, err := http.Get(p.Admin + "/metrics") //nolint:noctx // bounded by the test
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var sum float64
	sc := bufio.NewScanner(resp.Body)
	for sc.Scan() {
		if rest, ok := strings.CutPrefix(sc.Text(), name); ok && (rest[0] == ' ' || rest[0] == '{') {
			var v float64
			if _, err := fmt.Sscan(rest[strings.LastIndexByte(rest, ' ')+1:], &v); err != nil {
				t.Fatal(err)
			}
			sum += v
		}
	}
	return sum
}

// client returns an HTTP client that uses the process as its proxy.
func (p *process) client() *http.Client {
	proxy, err := url.Parse(p.Proxy)
	if err != nil {
		p.t.Fatal(err)
	}
	return &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxy), DisableKeepAlives: true}, Timeout: 60 * time.Second}
}

// get reads a URL, or its bytes [off, end) where end > 0, through the process's
// proxy: one request, no retry.
func (p *process) get(rawURL string, off, end int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, rawURL, http.NoBody)
	if err != nil {
		return nil, err
	}
	want := http.StatusOK
	if end > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, end-1))
		want = http.StatusPartialContent
	}
	resp, err := p.client().Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return body, err
	}
	if resp.StatusCode != want {
		return nil, fmt.Errorf("status %d, want %d: %s", resp.StatusCode, want, tail(body, 300))
	}
	return body, nil
}

// check reads a range (the whole file where end is 0) and compares.
func (p *process) check(rawURL string, data []byte, off, end int64) error {
	got, err := p.get(rawURL, off, end)
	if err != nil {
		return fmt.Errorf("read [%d,%d) through %s: %w", off, end, p.Peer, err)
	}
	want := data
	if end > 0 {
		want = data[off:end]
	}
	if sha256.Sum256(got) != sha256.Sum256(want) {
		i := 0
		for i < min(len(got), len(want)) && got[i] == want[i] {
			i++
		}
		return fmt.Errorf("read [%d,%d) through %s: %d bytes, want %d; wrong from byte %d on", off, end, p.Peer, len(got), len(want), i)
	}
	return nil
}

// all runs the functions at once and joins their errors.
func all(fs ...func() error) error {
	errs := make([]error, len(fs))
	var wg sync.WaitGroup
	for i, f := range fs {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	return errors.Join(errs...)
}
