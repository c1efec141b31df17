package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

const (
	chaosSeeds   = 5
	chaosNodes   = chaosSeeds + 1 // and a reader
	chaosFiles   = 20
	chaosReaders = 4
	maxChaosFile = 6 << 20
	// healthyWithin bounds the time from the last fault to good health.
	healthyWithin = 15 * time.Second
	// excusedFor is how long after an outage of the origin a read may still be
	// told of it: peers honour the pause that one of them was given.
	excusedFor = 10 * time.Second
)

// chaos is a closed swarm of processes and what is done to it.
type chaos struct {
	t      *testing.T
	r      *rand.Rand
	origin *p2ptest.Origin
	urls   []string
	data   [][]byte

	supernode *process
	nodes     []*chaosNode
	full      *chaosNode // its disk can be filled; nil where nothing can be mounted
	superPort string

	mu sync.Mutex
	// mu guards the following.
	failures refusals

	// outage is when the origin may be noticed as broken last, Unix ns.
	outage atomic.Int64
	reads  atomic.Int64
	lost   atomic.Int64 // reads that ended early, and may have
}

// chaosNode is a daemon. Faults count what was done to it: a read during which
// that changed may fail.
type chaosNode struct {
	*process
	proxy  string
	port   string // where it listens for peers
	disk   string
	faulty atomic.Bool
	faults atomic.Int64
}

// usage is what a process takes.
type usage struct{ goroutines, files, memory int64 }

// TestChaos: for P2PNODE_CHAOS (a duration) processes of a closed swarm are
// killed, stopped, cut off from their supernode and their disk, their clocks set,
// and the origin fails, while clients read random ranges. No byte is wrong; no
// read fails through a node that is well while a source can be reached; all is
// well 15 s after the last fault, and nothing has grown.
func TestChaos(t *testing.T) {
	d, err := time.ParseDuration(os.Getenv("P2PNODE_CHAOS"))
	if err != nil {
		t.Skip("takes as long as P2PNODE_CHAOS says, such as 90s: not set")
	}
	if runtime.GOOS != "linux" {
		t.Skip("reads Linux's /proc")
	}
	if isolate(t) {
		return
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := newChaos(t, rand.New(rand.NewPCG(seed, 1)))
	c.warm()
	before := c.usages()
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range chaosReaders {
		wg.Go(func() { c.read(ctx, rand.New(rand.NewPCG(seed, uint64(i)+2))) })
	}
	counts := c.rage(time.Now().Add(d))
	healed := time.Now()
	c.recover()
	took := time.Since(healed)
	stop()
	wg.Wait()
	t.Logf("%d reads, %d cut short by a fault at their own node or the origin; faults: %v; healthy %v after the last", c.reads.Load(), c.lost.Load(), counts, took)
	if took > healthyWithin {
		t.Errorf("healthy %v after the last fault, want %v", took, healthyWithin)
	}
	if c.reads.Load() < int64(d.Seconds()) {
		t.Errorf("only %d reads in %v: nothing was tested", c.reads.Load(), d)
	}
	c.checkGrowth(before)
	c.watch(d + took)
}

// newChaos starts the swarm.
func newChaos(t *testing.T, r *rand.Rand) *chaos {
	c := &chaos{t: t, r: r, origin: p2ptest.NewOrigin(t), failures: refusals{make(map[blockOf][]time.Time)}}
	for i := range chaosFiles {
		data := p2ptest.Bytes(uint64(i)+100, 1<<20+r.IntN(maxChaosFile-(1<<20)))
		c.data = append(c.data, data)
		c.urls = append(c.urls, c.origin.Add(fmt.Sprintf("/file%d", i), data))
	}
	ports, keys := freePorts(t, 2*chaosNodes+1), t.TempDir()
	bin := clockBinary(t)
	c.superPort = ports[2*chaosNodes]
	run := func(args ...string) string {
		out, err := exec.Command(bin, args...).Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return strings.TrimSpace(string(out))
	}
	run("swarm", "init", "--swarm-dir", keys)
	super := filepath.Join(t.TempDir(), "super")
	id := run("id", "--data-dir", super)
	c.supernode = startWith(t, super, bin, c.world(chaosNodes), "supernode", "--listen", "/ip4/127.0.0.1/tcp/"+c.superPort, "--admin", "127.0.0.1:0",
		"--join", run("swarm", "token", "--swarm-dir", keys, "--role", "supernode", "--peer", id))
	seed := run("swarm", "token", "--swarm-dir", keys, "--role", "seed", "--uses", "many")
	reader := run("swarm", "token", "--swarm-dir", keys, "--role", "reader")
	for i := range chaosNodes {
		join := seed
		if i == chaosSeeds {
			join = reader
		}
		n := &chaosNode{proxy: "http://127.0.0.1:" + ports[2*i+1], port: ports[2*i]}
		dir := filepath.Join(t.TempDir(), "node")
		if i == 0 && mount(t, dir) {
			c.full, n.disk = n, dir
		}
		n.process = startWith(t, dir, bin, c.world(i), "daemon", "--listen", "/ip4/127.0.0.1/tcp/"+ports[2*i], "--proxy", "127.0.0.1:"+ports[2*i+1], "--admin", "127.0.0.1:0",
			"--supernode", c.supernode.Addrs[0], "--join", join, "--origin-allow", "127.0.0.0/8", "--cache-size", "32MiB")
		c.nodes = append(c.nodes, n)
	}
	c.settle(time.Minute)
	return c
}

// world puts a process where its packets and its clock are known.
func (c *chaos) world(i int) func(*process) {
	return func(p *process) {
		if os.Getenv(inNamespace) != "" {
			p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Gid: uint32(gidOf(i))}}
		}
		p.cmd.Env = append(os.Environ(), clockVar+"="+clockFile(p))
	}
}

// mount puts a small file system at a directory, where that is allowed: 64 MiB
// of it are what a node leaves free.
func mount(t *testing.T, dir string) bool {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("mount", "-t", "tmpfs", "-o", "size=112m,mode=700", "tmpfs", dir).Run(); err != nil {
		t.Logf("no disk is filled: this user cannot mount a tmpfs: %v", err)
		return false
	}
	t.Cleanup(func() {
		if err := exec.Command("umount", "-l", dir).Run(); err != nil {
			t.Errorf("umount %s: %v", dir, err)
		}
	})
	return true
}

// settle waits until all nodes know all seeds.
func (c *chaos) settle(limit time.Duration) {
	c.t.Helper()
	for _, n := range c.nodes {
		end := time.Now().Add(limit)
		for s := n.status(c.t); !s.Ready || len(s.Pool) != chaosSeeds; s = n.status(c.t) {
			if time.Now().After(end) {
				c.t.Fatalf("%s knows %d of %d seeds, and is ready: %t; it says %s\nthe supernode says %s", n.Peer, len(s.Pool), chaosSeeds, s.Ready, n.page("/v1/status"), c.supernode.page("/v1/status"))
			}
			<-time.After(50 * time.Millisecond)
		}
	}
}

// page returns one of the admin API.
func (p *process) page(path string) string {
	res, err := http.Get(p.Admin + path) //nolint:noctx // bounded by the test
	if err != nil {
		return err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// warm reads every file once through every node.
func (c *chaos) warm() {
	c.t.Helper()
	for _, n := range c.nodes {
		for i := range c.urls {
			if err := c.readOnce(c.t.Context(), n, i, 0, len(c.data[i])); err != nil {
				c.t.Fatalf("warm: %v", err)
			}
		}
	}
}

var errWrong = errors.New("wrong bytes")

// readOnce reads a range through a node. Wrong bytes are errWrong, also where
// the read fails behind them.
func (c *chaos) readOnce(ctx context.Context, n *chaosNode, file, off, end int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	proxy, err := url.Parse(n.proxy)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.urls[file], http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, end-1))
	client := http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxy), DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusPartialContent {
		return fmt.Errorf("status %d: %.200s", res.StatusCode, body)
	}
	want := c.data[file][off:end]
	if len(body) > len(want) || !bytes.Equal(body, want[:len(body)]) {
		return fmt.Errorf("%w in [%d,%d) of file %d, %d came", errWrong, off, end, file, len(body))
	}
	if err == nil && len(body) != len(want) {
		err = fmt.Errorf("%d of %d bytes without an error", len(body), len(want))
	}
	return err
}

// read reads random ranges through random nodes that are well.
func (c *chaos) read(ctx context.Context, r *rand.Rand) {
	for ctx.Err() == nil {
		n := c.nodes[r.IntN(len(c.nodes))]
		faults := n.faults.Load()
		if n.faulty.Load() {
			n = c.nodes[(slices.Index(c.nodes, n)+1)%len(c.nodes)]
			if faults = n.faults.Load(); n.faulty.Load() {
				continue
			}
		}
		file := r.IntN(len(c.urls))
		off := r.IntN(len(c.data[file]))
		end := min(len(c.data[file]), off+1+r.IntN(1<<20))
		begun := time.Now()
		err := c.readOnce(ctx, n, file, off, end)
		c.reads.Add(1)
		switch {
		case err == nil || ctx.Err() != nil && !errors.Is(err, errWrong):
		case errors.Is(err, errWrong):
			c.t.Error(err)
		case n.faults.Load() != faults || begun.UnixNano() < c.outage.Load() || c.spent(file, off, end, begun):
			c.lost.Add(1)
		default:
			c.t.Errorf("%s after %v through %s, which is well: %v", time.Now().UTC().Format("15:04:05.000"), time.Since(begun), n.Peer, err)
		}
	}
}

// rage does one thing after the other to the swarm, and undoes it. Of the nodes the
// last seed and the reader are never killed: what grows would be small again.
func (c *chaos) rage(until time.Time) map[string]int {
	type fault struct {
		name string
		do   func()
	}
	faults := []fault{
		{"kill", func() { c.harm(c.nodes[c.r.IntN(chaosSeeds-1)], c.killed) }},
		{"stop", func() { c.harm(c.nodes[c.r.IntN(chaosNodes)], c.stopped) }},
		{"half", c.half},
		{"supernode killed", c.supernodeKilled},
		{"supernode stopped", c.supernodeStopped},
		{"origin flaky", c.originFlaky},
		{"origin down", c.originDown},
		{"clock", c.clockJumped},
	}
	if c.full != nil {
		faults = append(faults, fault{"disk full", c.diskFull})
	}
	if os.Getenv(inNamespace) != "" {
		faults = append(faults, fault{"partition", c.partitioned})
	}
	counts := make(map[string]int)
	start := time.Now()
	seen := start
	for round := 0; time.Now().Before(until); round++ {
		if time.Since(seen) >= watchEvery {
			seen = time.Now()
			c.watch(seen.Sub(start))
		}
		f := faults[c.r.IntN(len(faults))]
		if round < len(faults) {
			f = faults[round] // each of them once at least
		}
		c.t.Logf("%s %s", time.Now().UTC().Format("15:04:05.000"), f.name)
		f.do()
		counts[f.name]++
		c.pause(500, 2000)
	}
	return counts
}

// pause waits from so many to so many milliseconds.
func (c *chaos) pause(from, to int) {
	<-time.After(time.Duration(from+c.r.IntN(to-from)) * time.Millisecond)
}

// harm does something to a node; reads through it may fail meanwhile.
func (c *chaos) harm(n *chaosNode, f func(*chaosNode)) {
	n.faulty.Store(true)
	n.faults.Add(1)
	f(n)
	n.faults.Add(1)
	n.faulty.Store(false)
}

func (c *chaos) killed(n *chaosNode) {
	n.kill()
	c.pause(10, 3000)
	n.restart()
}

func (c *chaos) stopped(n *chaosNode) {
	n.signal(syscall.SIGSTOP)
	c.pause(500, 6000)
	n.signal(syscall.SIGCONT)
}

// half stops two nodes and the supernode at once: to the others that is a
// partition, with themselves on the side without a supernode.
func (c *chaos) half() {
	a, b := c.nodes[1], c.nodes[2]
	c.supernode.signal(syscall.SIGSTOP)
	c.harm(a, func(*chaosNode) {
		a.signal(syscall.SIGSTOP)
		c.harm(b, c.stopped)
		a.signal(syscall.SIGCONT)
	})
	c.supernode.signal(syscall.SIGCONT)
}

func (c *chaos) supernodeKilled() {
	c.supernode.kill()
	c.pause(500, 4000)
	c.supernode.restart()
}

func (c *chaos) supernodeStopped() {
	c.supernode.signal(syscall.SIGSTOP)
	c.pause(1000, 6000)
	c.supernode.signal(syscall.SIGCONT)
}

// diskFull fills a node's disk to the last byte for a while: it is well all the
// same.
func (c *chaos) diskFull() {
	name := filepath.Join(c.full.disk, "filler")
	f, err := os.Create(name)
	if err != nil {
		c.t.Errorf("fill the disk: %v", err)
		return
	}
	chunk := make([]byte, 1<<20)
	for err == nil {
		_, err = f.Write(chunk)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		c.t.Errorf("fill the disk: %v", err)
	}
	c.pause(2000, 5000)
	if err := errors.Join(f.Close(), os.Remove(name)); err != nil {
		c.t.Error(err)
	}
}

// originFlaky breaks every third response; the rest are sources enough.
func (c *chaos) originFlaky() {
	var n atomic.Int64
	c.origin.SetFault(func(r *http.Request) p2ptest.Fault {
		switch n.Add(1) % 6 {
		case 0:
			c.refused(r)
			return p2ptest.Fault{Status: http.StatusServiceUnavailable}
		case 3:
			c.refused(r)
			return p2ptest.Fault{CutAfter: 100_000}
		}
		return p2ptest.Fault{}
	})
	c.pause(2000, 5000)
	c.origin.SetFault(nil)
}

// originDown fails every request: what no node holds cannot be read.
func (c *chaos) originDown() {
	c.outage.Store(1 << 62)
	c.origin.SetFault(func(r *http.Request) p2ptest.Fault {
		c.refused(r)
		return p2ptest.Fault{Status: http.StatusServiceUnavailable}
	})
	c.pause(1000, 4000)
	c.origin.SetFault(nil)
	c.outage.Store(time.Now().Add(excusedFor).UnixNano())
}

// recover waits until every node serves every file again.
func (c *chaos) recover() {
	c.settle(3 * healthyWithin)
	var tasks []func() error
	for _, n := range c.nodes {
		tasks = append(tasks, func() error {
			for i := range c.urls {
				for {
					err := c.readOnce(c.t.Context(), n, i, 0, min(1000, len(c.data[i])))
					if err == nil {
						break
					}
					if c.spent(i, 0, min(1000, len(c.data[i])), time.Now()) && !errors.Is(err, errWrong) {
						break
					}
					if errors.Is(err, errWrong) || time.Now().UnixNano() > c.outage.Load() {
						return fmt.Errorf("after the last fault, through %s: %w", n.Peer, err)
					}
					<-time.After(100 * time.Millisecond)
				}
			}
			return nil
		})
	}
	if err := all(tasks...); err != nil {
		c.t.Error(err)
	}
}

// usage reads what the process takes from /proc and from its profile.
func (p *process) usage() (u usage) {
	p.t.Helper()
	// What is garbage says nothing of growth.
	if res, err := http.Get(p.Admin + "/debug/pprof/heap?gc=1"); err == nil { //nolint:noctx // bounded by the test
		_ = res.Body.Close()
	}
	res, err := http.Get(p.Admin + "/debug/pprof/goroutine?debug=1") //nolint:noctx // bounded by the test
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	if m := regexp.MustCompile(`^goroutine profile: total (\d+)`).FindSubmatch(text); m != nil {
		u.goroutines, _ = strconv.ParseInt(string(m[1]), 10, 64)
	}
	proc := fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
	files, err := os.ReadDir(proc + "fd")
	if err != nil {
		p.t.Fatal(err)
	}
	u.files = int64(len(files))
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		p.t.Fatal(err)
	}
	if m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status); m != nil {
		u.memory, _ = strconv.ParseInt(string(m[1]), 10, 64)
		u.memory <<= 10
	}
	if u.goroutines == 0 || u.memory == 0 {
		p.t.Fatalf("usage of %s cannot be read: %+v", p.Peer, u)
	}
	return u
}

// watchEvery is how often a chaos test writes down what the nodes take.
const watchEvery = 30 * time.Second

// watch logs what the nodes take, in MiB: memory of their own, of files, and what
// Go has allocated of the former, and given back of it.
func (c *chaos) watch(after time.Duration) {
	var line strings.Builder
	for _, n := range c.nodes {
		fmt.Fprintf(&line, " %s", n.memory())
	}
	c.t.Logf("memory after %3.0f s (anonymous/of files/heap/given back):%s", after.Seconds(), line.String())
}

// memory describes what a process takes; "-" of one that does not answer.
func (p *process) memory() string {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return "-"
	}
	res, err := http.Get(p.Admin + "/debug/pprof/heap?debug=1") //nolint:noctx // bounded by the test
	if err != nil {
		return "-"
	}
	defer func() { _ = res.Body.Close() }()
	heap, err := io.ReadAll(res.Body)
	if err != nil {
		return "-"
	}
	field := func(text []byte, re string, unit int64) int64 {
		m := regexp.MustCompile(re).FindSubmatch(text)
		if m == nil {
			return -1
		}
		v, _ := strconv.ParseInt(string(m[1]), 10, 64)
		return v * unit >> 20
	}
	return fmt.Sprintf("%d/%d/%d/%d", field(status, `RssAnon:\s+(\d+) kB`, 1<<10), field(status, `RssFile:\s+(\d+) kB`, 1<<10),
		field(heap, `# HeapAlloc = (\d+)`, 1), field(heap, `# HeapReleased = (\d+)`, 1))
}

// usages returns what each process takes: the nodes, then the supernode.
func (c *chaos) usages() (out []usage) {
	for _, p := range c.processes() {
		out = append(out, p.usage())
	}
	return out
}

func (c *chaos) processes() (out []*process) {
	for _, n := range c.nodes {
		out = append(out, n.process)
	}
	return append(out, c.supernode)
}

// checkGrowth compares what the processes take, now that nobody reads, with what
// they took after the first reads.
func (c *chaos) checkGrowth(before []usage) {
	for i, p := range c.processes() {
		was, now := before[i], usage{}
		within := func() bool {
			now = p.usage()
			return now.goroutines <= was.goroutines*3/2+50 && now.files <= was.files*3/2+30 && now.memory <= was.memory*3/2
		}
		for limit := time.Now().Add(time.Minute); !within() && time.Now().Before(limit); {
			<-time.After(time.Second)
		}
		c.t.Logf("process %d: goroutines %d, then %d; files %d, then %d; memory %d MiB, then %d", i,
			was.goroutines, now.goroutines, was.files, now.files, was.memory>>20, now.memory>>20)
		if !within() {
			c.t.Errorf("process %d has grown", i)
		}
	}
}
