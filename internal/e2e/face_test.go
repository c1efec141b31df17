package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// nginx serves a folder of files over plain HTTP, with one worker.
type nginx struct {
	URL string
	cmd *exec.Cmd
}

// startNginx skips the test where there is no nginx.
func startNginx(t testing.TB, root string) *nginx {
	t.Helper()
	bin, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("no nginx here to compare with: install nginx-light")
	}
	dir, port := t.TempDir(), freePorts(t, 1)[0]
	conf := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`daemon off; worker_processes 1; pid %[1]s/pid; error_log %[1]s/error.log;
user root;
events { worker_connections 4096; }
http {
	access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
	client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
	server { listen 127.0.0.1:%[2]s; root %[3]s; }
}
`, dir, port, root)
	if os.Getuid() != 0 {
		text = strings.Replace(text, "user root;\n", "", 1)
	}
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	n := &nginx{URL: "http://127.0.0.1:" + port, cmd: exec.Command(bin, "-p", dir, "-c", conf, "-e", filepath.Join(dir, "error.log"))}
	var stderr bytes.Buffer
	n.cmd.Stderr = &stderr
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = n.cmd.Process.Signal(syscall.SIGTERM)
		_ = n.cmd.Wait()
		if t.Failed() {
			t.Logf("nginx: %s", stderr.String())
		}
	})
	p2ptest.Eventually(t, 10*time.Second, func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	}, "nginx listens")
	return n
}

// processCPU returns the CPU time of a process and of its children that run.
func processCPU(t testing.TB, pid int) time.Duration {
	t.Helper()
	total := statCPU(t, pid)
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		t.Skipf("no CPU times of processes here: %v", err)
	}
	for child := range strings.FieldsSeq(string(children)) {
		if n, err := strconv.Atoi(child); err == nil {
			total += statCPU(t, n)
		}
	}
	return total
}

func statCPU(t testing.TB, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Skipf("no CPU times of processes here: %v", err)
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * time.Second / 100 // USER_HZ, which is 100 for programs on Linux
}

// peakMemory returns the most that a process had resident, in bytes.
func peakMemory(t testing.TB, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skipf("no memory of processes here: %v", err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Skip("no VmHWM in /proc here")
	return 0
}

// readRange reads a range and returns how many bytes came.
func readRange(client *http.Client, url string, off, n int64) (int64, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	got, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, res.Body, make([]byte, 64<<10))
	if err == nil && (got != n || res.StatusCode != http.StatusPartialContent) {
		err = fmt.Errorf("%s with %d bytes, want 206 with %d", res.Status, got, n)
	}
	return got, err
}

// BenchmarkBesideNginx reads the same warm file from a node's gateway and from
// nginx, in turns: whole over one connection, and in ranges of 4 KiB over 16.
// CPU is that of the serving processes alone.
func BenchmarkBesideNginx(b *testing.B) {
	const size = 64 << 20
	data := p2ptest.Bytes(21, size)
	root := b.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(root, "file"), data, 0o644), os.Chmod(root, 0o755)); err != nil {
		b.Fatal(err)
	}
	origin := p2ptest.NewOrigin(b)
	url := origin.Add("/file", data)
	server := startNginx(b, root)
	node := start(b, binary(b, ""), "daemon", "--listen", "/ip4/127.0.0.1/tcp/0", "--proxy", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--origin-allow", "127.0.0.0/8")
	if err := node.check(url, data, 0, 0); err != nil {
		b.Fatal(err)
	}
	sides := []struct {
		name, url string
		pid       int
	}{{"node", node.Proxy + "/url/" + url, node.cmd.Process.Pid}, {"nginx", server.URL + "/file", server.cmd.Process.Pid}}
	for _, c := range []struct {
		name           string
		length         int64
		clients, reads int
	}{{"whole", size, 1, 8}, {"4KiB", 4 << 10, 16, 500}} {
		b.Run(c.name, func(b *testing.B) {
			var took, cpu [2]time.Duration
			reads := 0
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: c.clients, DisableCompression: true}}
			defer client.CloseIdleConnections()
			for b.Loop() {
				reads += c.clients * c.reads
				for i, side := range sides {
					before, began := processCPU(b, side.pid), time.Now()
					if err := readMany(client, side.url, c.length, size, c.clients, c.reads); err != nil {
						b.Fatal(err)
					}
					took[i] += time.Since(began)
					cpu[i] += processCPU(b, side.pid) - before
				}
			}
			for i, side := range sides {
				bytes := float64(reads) * float64(c.length)
				if c.length == size {
					b.ReportMetric(bytes/1e6/took[i].Seconds(), side.name+"-MB/s")
					b.ReportMetric(cpu[i].Seconds()/(bytes/1e9), side.name+"-cpu-s/GB")
				} else {
					b.ReportMetric(float64(reads)/took[i].Seconds(), side.name+"-reads/s")
					b.ReportMetric(cpu[i].Seconds()*1e6/float64(reads), side.name+"-cpu-µs/read")
				}
			}
		})
	}
	if n := origin.Bytes("/file"); n != size {
		b.Errorf("the origin sent %d bytes: the reads were not warm", n)
	}
}

// readMany reads ranges of a file of size bytes, by several clients at once.
func readMany(client *http.Client, url string, length, size int64, clients, reads int) error {
	var wg sync.WaitGroup
	errs := make([]error, clients)
	for i := range clients {
		wg.Go(func() {
			for j := range reads {
				off := int64(i*reads+j) * 7919 * 512 % (size - length + 1)
				if _, err := readRange(client, url, off, length); err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// readAt asks for 8 MiB of a file from an offset on, more than sockets hold, reads
// 256 KiB of them and compares; first is called, always, when the first byte came.
func readAt(client *http.Client, url string, data []byte, off int64, first func()) error {
	n := min(int64(len(data))-off, 8<<20)
	once := sync.OnceFunc(first)
	defer once()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	buf := make([]byte, 64<<10)
	for pos := off; ; {
		k, err := res.Body.Read(buf)
		if !bytes.Equal(buf[:k], data[pos:pos+int64(k)]) {
			return fmt.Errorf("wrong bytes from %d on", pos)
		}
		if pos += int64(k); k > 0 {
			once()
		}
		if pos >= off+min(n, 256<<10) {
			return nil // the rest was never wanted
		}
		if err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", pos-off, n, err)
		}
	}
}

// TestThousandClients: a thousand clients at once, each with a connection of its
// own, get all that they ask for, and the daemon stays within 256 MiB.
func TestThousandClients(t *testing.T) {
	const clients, size, length = 1000, 64 << 20, 1 << 20
	data := p2ptest.Bytes(22, size)
	origin := p2ptest.NewOrigin(t)
	url := origin.Add("/file", data)
	node := start(t, binary(t, ""), "daemon", "--listen", "/ip4/127.0.0.1/tcp/0", "--proxy", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--origin-allow", "127.0.0.0/8")
	if err := node.check(url, data, 0, 0); err != nil {
		t.Fatal(err)
	}
	idle := peakMemory(t, node.cmd.Process.Pid)
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil { // a small one, so that what is not read stays with the daemon
			err = conn.(*net.TCPConn).SetReadBuffer(64 << 10)
		}
		return conn, err
	}
	client := &http.Client{Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: clients, DisableCompression: true}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	var wg, answered sync.WaitGroup
	var failed atomic.Int64
	answered.Add(clients)
	for i := range clients {
		wg.Go(func() {
			// None reads on before all have their first byte: they are in the
			// middle of an answer at the same time, with full buffers.
			if err := readAt(client, node.Proxy+"/url/"+url, data, int64(i)*length%size, func() { answered.Done(); answered.Wait() }); err != nil && failed.Add(1) < 5 {
				t.Error(err)
			}
			for j := range int64(2) {
				if _, err := readRange(client, node.Proxy+"/url/"+url, (int64(i)*length+j*12345)%(size-length), 64<<10); err != nil && failed.Add(1) < 5 {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	peak := peakMemory(t, node.cmd.Process.Pid)
	t.Logf("peak memory %d MiB, %d MiB before; %d reads failed", peak>>20, idle>>20, failed.Load())
	if peak > 256<<20 {
		t.Errorf("the daemon had %d MiB resident: want at most 256", peak>>20)
	}
	if n := origin.Bytes("/file"); n != size {
		t.Errorf("the origin sent %d bytes, want %d", n, size)
	}
}
