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
	"github.com/libp2p/go-libp2p/core/protocol"

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
// memory as those of a range read, and go to the same. each, where not nil, is
// called with every stretch that came, of up to MaxData bytes.
func raw(b *testing.B, e *ends, id protocol.ID, data, buf []byte, n int, each func(p []byte, off int64)) func() {
	e.sh.SetStreamHandler(id, func(s network.Stream) {
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
	s, err := e.ch.NewStream(context.Background(), e.source, id)
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
			p := buf[off%content.BlockSize:][:min(end-off, MaxData)]
			if _, err := io.ReadFull(s, p); err != nil {
				b.Fatal(err)
			}
			if each != nil {
				each(p, int64(off))
			}
		}
	}
}

// BenchmarkWarm reads warm ranges from the signer over TCP and TLS, beside the
// raw stream in interleaved rounds. Reported are medians: MB/s, µs of CPU of
// both ends a read, allocations, and the ratios to raw of the same round; leaf-µs
// is what verifying the leaves that hold the range costs by itself. cpu-ratio is
// to raw and that together; at 4 KiB it is to be at most 1.3.
//
// hashing-raw-cpu-ratio is to a raw stream whose reader verifies those leaves
// between two reads. With one reader on several processors that are otherwise
// idle that costs more than the sum: by the time the hash is done, the thread of
// the runtime that looked for work has gone to sleep, and the next request wakes
// it again (0.6 wakes a read more, of 10 to 20 µs each). -cpu 1, or a machine
// that is busy otherwise, shows what the work costs.
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
	plain := raw(b, e, rawProtocol, h.data, buf, size, nil)
	hashing := raw(b, e, rawProtocol+"/hashing", h.data, buf, size, func(p []byte, off int64) { h.verify(b, p, off) })
	ranged := ranged(b, e, h, buf, size)
	rounds := max(1, min(400, (64<<20)/size))
	var speed, speedRatio, cpuRead, cpuRaw, cpuRatio, hashingRatio, allocs []float64
	plain()
	hashing()
	ranged()
	leaf := leafCost(b, h, content.Range{Len: int64(size)})
	runtime.GC()
	micros := func(d time.Duration) float64 { return d.Seconds() * 1e6 / float64(rounds) }
	b.SetBytes(int64(size))
	for b.Loop() {
		w1, u1, _ := cost(b, rounds, plain)
		w2, u2, a2 := cost(b, rounds, ranged)
		_, u3, _ := cost(b, rounds, hashing)
		speed = append(speed, float64(size*rounds)/1e6/w2.Seconds())
		speedRatio = append(speedRatio, w1.Seconds()/w2.Seconds())
		cpuRead = append(cpuRead, micros(u2))
		cpuRaw = append(cpuRaw, micros(u1))
		cpuRatio = append(cpuRatio, micros(u2)/(micros(u1)+leaf))
		hashingRatio = append(hashingRatio, micros(u2)/micros(u3))
		allocs = append(allocs, a2/float64(rounds))
	}
	b.ReportMetric(median(speed), "MB/s")
	b.ReportMetric(median(speedRatio), "raw-throughput-ratio")
	b.ReportMetric(median(cpuRead), "cpu-µs/read")
	b.ReportMetric(median(cpuRaw), "raw-cpu-µs/read")
	b.ReportMetric(median(allocs), "allocs/read")
	b.ReportMetric(leaf, "leaf-µs")
	b.ReportMetric(median(cpuRatio), "cpu-ratio")
	b.ReportMetric(median(hashingRatio), "hashing-raw-cpu-ratio")
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
			m.verify(b, m.data[off:min(r.End(), off+MaxData)], off)
		}
	})
	return used.Seconds() * 1e6 / float64(n)
}

// verify verifies the bytes at off, or all of their leaf where they are a part.
func (m *memory) verify(b *testing.B, p []byte, off int64) {
	if len(p) < content.LeafSize {
		r := Widen(content.Range{Off: off, Len: int64(len(p))}, m.meta.Size)
		p, off = m.data[r.Off:r.End()], r.Off
	}
	i := off / content.BlockSize
	if !content.VerifyLeaves(p, m.outboards[i], off%content.BlockSize, m.seals[i].Root) {
		b.Fatal("leaf does not verify")
	}
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}
