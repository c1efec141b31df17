package e2e

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"testing"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// peakMemory returns the most memory that a process has had, in bytes (VmHWM of
// proc(5)).
func (p *process) peakMemory() int64 {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(text)
	if m == nil {
		p.t.Fatalf("no VmHWM in %s", text)
	}
	kib, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		p.t.Fatal(err)
	}
	return kib << 10
}

// TestManyReadersMemory: 1,000 readers of one cold file at once, through one
// daemon, which reads it from the origin meanwhile: every byte is right, leaves
// the origin once, and the daemon takes at most 256 MiB.
func TestManyReadersMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads the memory of a process from Linux's /proc")
	}
	const readers, size, bound = 1000, 256 << 20, 256 << 20
	origin := p2ptest.NewOrigin(t)
	data := p2ptest.Bytes(21, size)
	url := origin.Add("/file", data)
	d := start(t, binary(t, ""), "daemon", "--listen", "/ip4/127.0.0.1/tcp/0", "--proxy", "127.0.0.1:0", "--admin", "127.0.0.1:0",
		"--origin-allow", "127.0.0.0/8")
	idle := d.peakMemory()
	origin.Stall() // until all have asked
	client := d.client()
	r := rand.New(rand.NewPCG(1, 2))
	var reads []func() error
	for range readers {
		off := r.Int64N(size - 2<<20)
		end := off + 1 + r.Int64N(2<<20)
		reads = append(reads, func() error {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
			if err != nil {
				return err
			}
			req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, end-1))
			resp, err := client.Do(req)
			if err != nil {
				return err
			}
			defer func() { _ = resp.Body.Close() }()
			return compare(resp.Body, data[off:end])
		})
	}
	done := make(chan error, 1)
	go func() { done <- all(reads...) }()
	p2ptest.Eventually(t, readyWithin, func() bool { return d.metric(t, "p2pnode_proxy_in_flight_requests") >= readers }, "all have asked")
	origin.Resume()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := origin.MaxCopies("/file"); n != 1 {
		t.Errorf("a byte left the origin %d times", n)
	}
	peak := d.peakMemory()
	t.Logf("peak memory %d MiB, idle %d MiB; %d MiB from the origin", peak>>20, idle>>20, origin.Bytes("/file")>>20)
	if peak > bound {
		t.Errorf("the daemon took %d MiB, want at most %d", peak>>20, bound>>20)
	}
}

// compare reads r to its end, without keeping what it read.
func compare(r io.Reader, want []byte) error {
	buf := make([]byte, 32<<10)
	for at := 0; ; {
		n, err := r.Read(buf)
		if n > len(want)-at || !bytes.Equal(buf[:n], want[at:at+n]) {
			return fmt.Errorf("wrong bytes behind byte %d of %d", at, len(want))
		}
		at += n
		switch {
		case err == io.EOF && at == len(want):
			return nil
		case err != nil:
			return fmt.Errorf("after %d of %d bytes: %w", at, len(want), err)
		}
	}
}
