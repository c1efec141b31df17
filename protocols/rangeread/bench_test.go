//go:build unix

package rangeread

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

const rawProtocol = "/p2pnode/test/raw"

// cpu returns the CPU time of this process, which holds both ends.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cost is what n rounds of do took: of the clock, of both ends' CPU, and of
// allocations.
func cost(b *testing.B, n int, do func()) (wall, used time.Duration, allocs float64) {
	var m1, m2 runtime.MemStats
	runtime.ReadMemStats(&m1)
	start, before := time.Now(), cpu(b)
	for range n {
		do()
	}
	wall, used = time.Since(start), cpu(b)-before
	runtime.ReadMemStats(&m2)
	return wall, used, float64(m2.Mallocs - m1.Mallocs)
}

// place moves over a file of size bytes in steps of n.
type place struct{ off, n, size int }

func (p *place) next() int {
	at := p.off
	if p.off += p.n; p.off+p.n > p.size {
		p.off = 0
	}
	return at
}

// raw is one pooled stream on the same two hosts: a 64-byte request and an
// n-byte answer, no protobuf, no verification. The bytes come from the same
// memory as those of a range read, and go to the same.
func raw(b *testing.B, e *ends, data, buf []byte, n int) func() {
	e.sh.SetStreamHandler(rawProtocol, func(s network.Stream) {
		req, at := make([]byte, 64), place{n: n, size: len(data)}
		for {
			if _, err := io.ReadFull(s, req); err != nil {
				return
			}
			for rest := data[at.next():][:n]; len(rest) > 0; rest = rest[min(len(rest), MaxData):] {
				if _, err := s.Write(rest[:min(len(rest), MaxData)]); err != nil {
					return
				}
			}
		}
	})
	s, err := e.ch.NewStream(context.Background(), e.source, rawProtocol)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Reset() })
	req, at := make([]byte, 64), place{n: n, size: len(data)}
	return func() {
		if _, err := s.Write(req); err != nil {
			b.Fatal(err)
		}
		off := at.next()
		for end := off + n; off < end; off += min(end-off, MaxData) {
			if _, err := io.ReadFull(s, buf[off%content.BlockSize:][:min(end-off, MaxData)]); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkWarm reads warm ranges from the signer over TCP and TLS, beside the
// raw stream in interleaved rounds. Reported are medians: MB/s, µs of CPU of
// both ends a read, allocations, and the ratios to raw; leaf-µs is what
// verifying the leaves that hold the range costs by itself. cpu-ratio is to raw
// and that together; at 4 KiB it is to be at most 1.3. With one reader on several
// processors that are otherwise idle, threads of the runtime that look for work
// count as CPU, the longer the more a read takes; -cpu 1 shows what the work costs.
func BenchmarkWarm(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20, 64 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) { benchmarkWarm(b, size) })
	}
}

func benchmarkWarm(b *testing.B, size int) {
	h := new(memory)
	e := serve(b, h, "")
	key, id := p2ptest.Key(b)
	*h = *newMemory(b, max(8<<20, int64(size)), key, id)
	// The source is the signer: the authenticated channel stands for the
	// signature, as on most reads.
	for i := range h.seals {
		h.seals[i].Signer = e.source
	}
	buf := make([]byte, content.BlockSize+MaxData)
	plain := raw(b, e, h.data, buf, size)
	ranged := ranged(b, e, h, buf, size)
	rounds := max(1, min(400, (64<<20)/size))
	var speed, speedRatio, cpuRead, cpuRaw, allocs []float64
	plain()
	ranged()
	runtime.GC()
	b.SetBytes(int64(size))
	for b.Loop() {
		w1, u1, _ := cost(b, rounds, plain)
		w2, u2, a2 := cost(b, rounds, ranged)
		speed = append(speed, float64(size*rounds)/1e6/w2.Seconds())
		speedRatio = append(speedRatio, w1.Seconds()/w2.Seconds())
		cpuRead = append(cpuRead, u2.Seconds()*1e6/float64(rounds))
		cpuRaw = append(cpuRaw, u1.Seconds()*1e6/float64(rounds))
		allocs = append(allocs, a2/float64(rounds))
	}
	leaf := leafCost(b, h, content.Range{Len: int64(size)})
	b.ReportMetric(median(speed), "MB/s")
	b.ReportMetric(median(speedRatio), "raw-throughput-ratio")
	b.ReportMetric(median(cpuRead), "cpu-µs/read")
	b.ReportMetric(median(cpuRaw), "raw-cpu-µs/read")
	b.ReportMetric(median(allocs), "allocs/read")
	b.ReportMetric(leaf, "leaf-µs")
	b.ReportMetric(median(cpuRead)/(median(cpuRaw)+leaf), "cpu-ratio")
}

// ranged returns a function that reads the next n bytes of the file.
func ranged(b *testing.B, e *ends, h *memory, buf []byte, n int) func() {
	at := place{n: n, size: len(h.data)}
	into := func(off int64, n int) []byte { return buf[off%content.BlockSize:][:n] }
	ctx, cancel := context.WithCancel(context.Background()) // as a client's request has
	b.Cleanup(cancel)
	return func() {
		req := h.request(int64(at.next()), int64(n))
		req.Small = n < content.LeafSize
		req.Epoch, req.Seq = 1764000000000, 1000
		body, err := e.client.Open(ctx, e.source, req)
		if err != nil {
			b.Fatal(err)
		}
		for {
			if _, err = body.Next(into); err != nil {
				break
			}
		}
		if err != io.EOF { //nolint:errorlint // bare by contract
			b.Fatal(err)
		}
		_ = body.Close()
	}
}

// leafCost is the CPU in µs to verify the leaves of a range.
func leafCost(b *testing.B, m *memory, r content.Range) float64 {
	r = Widen(r, m.meta.Size)
	n := max(3, min(1000, 1<<24/int(r.Len)))
	_, used, _ := cost(b, n, func() {
		for off := r.Off; off < r.End(); off += MaxData {
			i := off / content.BlockSize
			p := m.data[off:min(r.End(), off+MaxData)]
			if !content.VerifyLeaves(p, m.outboards[i], off%content.BlockSize, m.seals[i].Root) {
				b.Fatal("leaf does not verify")
			}
		}
	})
	return used.Seconds() * 1e6 / float64(n)
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}
