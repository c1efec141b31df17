package node_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
)

// BenchmarkHTTP reads warm ranges through the gateway of a node, beside a plain
// net/http server that serves the same file from disk, in interleaved rounds.
// Reported are medians: MB/s of both, their ratio, and µs of CPU a request of
// client and server together.
func BenchmarkHTTP(b *testing.B) {
	const fileSize = 64 << 20
	data := p2ptest.Bytes(1, fileSize)
	origin := p2ptest.NewOrigin(b)
	url := origin.Add("/file", data)
	n := startNode(b, node.Config{Seed: true, OriginAllow: []string{"127.0.0.0/8"}})
	path := filepath.Join(b.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		b.Fatal(err)
	}
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) }))
	b.Cleanup(plain.Close)
	gateway := n.Info().Proxy + "/url/" + url
	get(b, gateway, 0, fileSize) // warm
	if n := origin.Bytes("/file"); n != fileSize {
		b.Fatalf("origin sent %d bytes", n)
	}
	for _, size := range []int64{4 << 10, 64 << 10, 1 << 20, fileSize} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			rounds := int(max(2, min(200, (64<<20)/size)))
			var speed, ratio, cpuNode, cpuPlain []float64
			b.SetBytes(size)
			for b.Loop() {
				w1, u1 := cost(b, rounds, func(i int) { get(b, plain.URL, int64(i)*size%fileSize, size) })
				w2, u2 := cost(b, rounds, func(i int) { get(b, gateway, int64(i)*size%fileSize, size) })
				speed = append(speed, float64(size)*float64(rounds)/1e6/w2.Seconds())
				ratio = append(ratio, w1.Seconds()/w2.Seconds())
				cpuNode = append(cpuNode, u2.Seconds()*1e6/float64(rounds))
				cpuPlain = append(cpuPlain, u1.Seconds()*1e6/float64(rounds))
			}
			b.ReportMetric(median(speed), "MB/s")
			b.ReportMetric(median(ratio), "plain-throughput-ratio")
			b.ReportMetric(median(cpuNode), "cpu-µs/read")
			b.ReportMetric(median(cpuPlain), "plain-cpu-µs/read")
		})
	}
	if n := origin.Bytes("/file"); n != fileSize {
		b.Fatalf("origin sent %d bytes: the reads were not warm", n)
	}
}

// BenchmarkCold reads whole cold files through a node that is no seed, from a
// seed that reads the origin meanwhile, beside a plain GET of the same origin.
// Reported are medians: MB/s, the ratio to the plain GET's, and ms of CPU of all
// (client, origin, both nodes) a MB. A first round is not counted: see BenchmarkFill.
func BenchmarkCold(b *testing.B) {
	const fileSize = 64 << 20
	data := p2ptest.Bytes(1, fileSize)
	origin := p2ptest.NewOrigin(b)
	s := startNode(b, node.Config{Seed: true, OriginAllow: []string{"127.0.0.0/8"}, Replicas: 1})
	r := startNode(b, node.Config{Supernodes: []string{s.Info().Supernode}, Replicas: 1})
	var speed, ratio, cpuCold, cpuPlain []float64
	i := 0
	round := func() (plainWall, plain, coldWall, cold time.Duration) {
		path := fmt.Sprintf("/file%d", i)
		i++
		url := origin.Add(path, data)
		plainWall, plain = cost(b, 1, func(int) { get(b, url, 0, fileSize) })
		coldWall, cold = cost(b, 1, func(int) { get(b, r.Info().Proxy+"/url/"+url, 0, fileSize) })
		if n := origin.Bytes(path); n != 2*fileSize {
			b.Fatalf("origin sent %d bytes", n)
		}
		return plainWall, plain, coldWall, cold
	}
	round()
	b.SetBytes(fileSize)
	for b.Loop() {
		w1, u1, w2, u2 := round()
		speed = append(speed, fileSize/1e6/w2.Seconds())
		ratio = append(ratio, w1.Seconds()/w2.Seconds())
		cpuCold = append(cpuCold, u2.Seconds()*1e3/(fileSize/1e6))
		cpuPlain = append(cpuPlain, u1.Seconds()*1e3/(fileSize/1e6))
	}
	b.ReportMetric(median(speed), "MB/s")
	b.ReportMetric(median(ratio), "plain-throughput-ratio")
	b.ReportMetric(median(cpuCold), "cpu-ms/MB")
	b.ReportMetric(median(cpuPlain), "plain-cpu-ms/MB")
}

// BenchmarkFill reads whole cold files from a seed with a bare range client, which
// verifies them, beside a plain GET of the same origin and beside the raw stream
// between two hosts, in interleaved rounds. Reported are medians: MB/s, ms of CPU
// of all ends a MB of each, and cpu-ratio, the fill's to that of the GET and the
// raw stream together; it is to be at most 1.6. The seed's part beside both is to
// hash, sign and store; disk-cpu-ratio is the same where the GET ends on the disk
// too, as curl -o does, in a file of its own.
//
// A first round is not counted: the node's buffers have no memory yet then, and to
// be given 30 to 70 MB of it costs up to a fifth more. And the plain GET alone
// costs 0.8 to 2.2 ms a MB, whether or not its two ends wake one another for each
// piece, which the machine decides: few rounds say little.
func BenchmarkFill(b *testing.B) {
	const fileSize = 64 << 20
	data := p2ptest.Bytes(1, fileSize)
	origin := p2ptest.NewOrigin(b)
	// Four files, so that memory and disk that were used before are used again.
	s := startNode(b, node.Config{Seed: true, OriginAllow: []string{"127.0.0.0/8"}, Replicas: 1, CacheSize: 4 * fileSize})
	reader := p2ptest.Hosts(b, 1)[0]
	seedInfo, err := peer.AddrInfoFromString(s.Info().Addrs[0])
	if err != nil {
		b.Fatal(err)
	}
	if err := reader.Connect(b.Context(), *seedInfo); err != nil {
		b.Fatal(err)
	}
	client := rangeread.NewClient(rangeread.ClientConfig{Host: reader, Trusted: func(peer.ID) bool { return true }})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- client.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-ended })
	rawRead := rawStream(b, data)
	var speed, ratio, diskRatio, cpuFill, cpuPlain, cpuRaw []float64
	dir := b.TempDir()
	perMB := func(d time.Duration) float64 { return d.Seconds() * 1e3 / (fileSize / 1e6) }
	i := 0
	round := func() (plain, disk, raw, wall, fill time.Duration) {
		path := fmt.Sprintf("/file%d", i)
		i++
		url := origin.Add(path, data)
		task, err := content.NewTask(url, content.Filter{})
		if err != nil {
			b.Fatal(err)
		}
		_, plain = cost(b, 1, func(int) { get(b, url, 0, fileSize) })
		saved := filepath.Join(dir, "saved")
		_, disk = cost(b, 1, func(int) { save(b, url, saved, fileSize) })
		if err := os.Remove(saved); err != nil {
			b.Fatal(err)
		}
		_, raw = cost(b, 1, func(int) { rawRead() })
		wall, fill = cost(b, 1, func(int) { readRange(b, client, seedInfo.ID, task, fileSize) })
		if n := origin.Bytes(path); n != 3*fileSize {
			b.Fatalf("origin sent %d bytes", n)
		}
		return plain, disk, raw, wall, fill
	}
	round()
	b.SetBytes(fileSize)
	for b.Loop() {
		plain, disk, raw, wall, fill := round()
		speed = append(speed, fileSize/1e6/wall.Seconds())
		ratio = append(ratio, fill.Seconds()/(plain+raw).Seconds())
		diskRatio = append(diskRatio, fill.Seconds()/(disk+raw).Seconds())
		cpuFill, cpuPlain, cpuRaw = append(cpuFill, perMB(fill)), append(cpuPlain, perMB(plain)), append(cpuRaw, perMB(raw))
	}
	b.ReportMetric(median(speed), "MB/s")
	b.ReportMetric(median(ratio), "cpu-ratio")
	b.ReportMetric(median(diskRatio), "disk-cpu-ratio")
	b.ReportMetric(median(cpuFill), "cpu-ms/MB")
	b.ReportMetric(median(cpuPlain), "plain-cpu-ms/MB")
	b.ReportMetric(median(cpuRaw), "raw-cpu-ms/MB")
}

// save downloads a file to the disk.
func save(b *testing.B, url, path string, size int64) {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		b.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	n, err := io.Copy(f, resp.Body)
	if err := errors.Join(err, f.Close()); err != nil || n != size {
		b.Fatalf("saved %d bytes: %v", n, err)
	}
}

// readRange reads a whole file from a peer.
func readRange(b *testing.B, client *rangeread.Client, from peer.ID, task content.Task, size int64) {
	b.Helper()
	body, err := client.Open(b.Context(), from, rangeread.Request{
		Task: task.ID, Range: content.Range{Len: size}, Origin: &rangeread.Origin{URL: task.URL, Size: -1},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = body.Close() }()
	buf, got := make([]byte, content.BlockSize), int64(0)
	for {
		p, err := body.Next(func(off int64, n int) []byte {
			at := off % content.BlockSize
			return buf[at : at+int64(n)]
		})
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			b.Fatal(err)
		}
		got += int64(len(p.Data))
	}
	if got != size {
		b.Fatalf("got %d bytes", got)
	}
}

// rawStream returns a function that reads data over one stream between two
// hosts: a request of 64 bytes, no protobuf, no verification.
func rawStream(b *testing.B, data []byte) func() {
	b.Helper()
	const id = "/p2pnode/test/raw"
	client, server := p2ptest.Pair(b)
	server.SetStreamHandler(id, func(s network.Stream) {
		req := make([]byte, 64)
		for {
			if _, err := io.ReadFull(s, req); err != nil {
				return
			}
			for part := range slices.Chunk(data, rangeread.MaxData) {
				if _, err := s.Write(part); err != nil {
					return
				}
			}
		}
	})
	s, err := client.NewStream(context.Background(), server.ID(), id)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Reset() })
	buf := make([]byte, rangeread.MaxData)
	return func() {
		if _, err := s.Write(make([]byte, 64)); err != nil {
			b.Fatal(err)
		}
		for range slices.Chunk(data, len(buf)) {
			if _, err := io.ReadFull(s, buf); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// startNode runs a node with an embedded supernode until the test ends, in a
// directory of its own where the configuration names none.
func startNode(t testing.TB, cfg node.Config) *node.Node {
	t.Helper()
	n, _ := startStoppable(t, cfg)
	return n
}

// startStoppable is startNode with a way to stop the node before the test ends.
func startStoppable(t testing.TB, cfg node.Config) (*node.Node, func()) {
	t.Helper()
	cfg.DataDir = cmp.Or(cfg.DataDir, t.TempDir())
	cfg.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
	cfg.Proxy, cfg.Admin = cmp.Or(cfg.Proxy, "127.0.0.1:0"), "127.0.0.1:0"
	n, err := node.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return n, run(t, n)
}

func get(t testing.TB, url string, off, size int64) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+size-1))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != size || resp.StatusCode != http.StatusPartialContent {
		t.Fatalf("status %d, %d of %d bytes: %v", resp.StatusCode, n, size, err)
	}
}

// cost is what n calls of do took: of the clock, and of this process's CPU.
func cost(b *testing.B, n int, do func(i int)) (wall, used time.Duration) {
	start, before := time.Now(), cpu(b)
	for i := range n {
		do(i)
	}
	return time.Since(start), cpu(b) - before
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}
