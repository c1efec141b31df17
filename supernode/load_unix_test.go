//go:build unix

package supernode_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/heartbeat"
	beatpb "github.com/p2pnode/p2pnode/protocols/heartbeat/pb"
	"github.com/p2pnode/p2pnode/protocols/report"
	reportpb "github.com/p2pnode/p2pnode/protocols/report/pb"
	"github.com/p2pnode/p2pnode/supernode"
)

// pipeHost is a host whose protocols are reached by pipes instead of
// connections.
type pipeHost struct {
	host.Host
	mu sync.Mutex
	// mu guards the following.
	handlers map[protocol.ID]network.StreamHandler
}

func (h *pipeHost) SetStreamHandler(id protocol.ID, f network.StreamHandler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.handlers[id] = f
}

func (h *pipeHost) RemoveStreamHandler(id protocol.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.handlers, id)
}

func (h *pipeHost) handler(id protocol.ID) network.StreamHandler {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.handlers[id]
}

// pipeStream is the supernode's end of a stream over a pipe.
type pipeStream struct {
	network.Stream
	pipe net.Conn
	conn pipeConn
}

type pipeConn struct {
	network.Conn
	from peer.ID
}

func (c pipeConn) RemotePeer() peer.ID                   { return c.from }
func (s *pipeStream) Conn() network.Conn                 { return s.conn }
func (s *pipeStream) Scope() network.StreamScope         { return &network.NullScope{} }
func (s *pipeStream) Read(b []byte) (int, error)         { return s.pipe.Read(b) }
func (s *pipeStream) Write(b []byte) (int, error)        { return s.pipe.Write(b) }
func (s *pipeStream) Close() error                       { return s.pipe.Close() }
func (s *pipeStream) Reset() error                       { return s.pipe.Close() }
func (s *pipeStream) SetDeadline(t time.Time) error      { return s.pipe.SetDeadline(t) }
func (s *pipeStream) SetReadDeadline(t time.Time) error  { return s.pipe.SetReadDeadline(t) }
func (s *pipeStream) SetWriteDeadline(t time.Time) error { return s.pipe.SetWriteDeadline(t) }

// crowd is many peers that beat and report to one supernode over pipes.
type crowd struct {
	b       *testing.B
	ids     []peer.ID
	beats   []net.Conn
	reports []net.Conn
	seq     uint64
	rng     *rand.Rand
}

const (
	crowdPeriod = 5 * time.Second
	// crowdReports is how many peers report in a period.
	crowdReports = 1000
	crowdTasks   = 20_000
	crowdWorkers = 8
)

func newCrowd(b *testing.B, h *pipeHost, n int) *crowd {
	c := &crowd{b: b, rng: rand.New(rand.NewPCG(1, 2))}
	open := func(id protocol.ID, from peer.ID) net.Conn {
		near, far := net.Pipe()
		go h.handler(id)(&pipeStream{pipe: far, conn: pipeConn{from: from}})
		return near
	}
	for i := range n {
		id := peer.ID(binary.BigEndian.AppendUint64(append([]byte("\x00\x24\x08\x01\x12\x20"), make([]byte, 24)...), c.rng.Uint64()))
		c.ids = append(c.ids, id)
		c.beats = append(c.beats, open(heartbeat.Protocol, id))
		if i%(n/crowdReports) == 0 {
			c.reports = append(c.reports, open(report.Protocol, id))
		}
	}
	return c
}

func (c *crowd) close() {
	for _, conn := range slices.Concat(c.beats, c.reports) {
		conn.Close()
	}
}

func encodeFrame(b *testing.B, m proto.Message) []byte {
	var buf bytes.Buffer
	if _, err := protodelim.MarshalTo(&buf, m); err != nil {
		b.Fatal(err)
	}
	return buf.Bytes()
}

func (c *crowd) beat(i int) []byte {
	addr := multiaddr.StringCast(fmt.Sprintf("/ip4/10.%d.%d.%d/tcp/65000", i>>16, i>>8&255, i&255))
	return encodeFrame(c.b, &beatpb.Beat{
		Session: 1, Seq: c.seq, Addrs: [][]byte{addr.Bytes()}, Site: fmt.Sprint("site-", i%100), Seed: i%10 == 0,
		Capacity: 64 << 30, Free: 1 << 30, Version: "1.0.0", Load: &beatpb.Load{Uploads: 1, UploadRate: 1 << 20},
	})
}

// report is of one task that grows and was read by 16 peers.
func (c *crowd) report() []byte {
	n := c.rng.IntN(crowdTasks)
	task := binary.BigEndian.AppendUint64(make([]byte, 24, 32), uint64(n))
	var readers []uint64
	for range 16 {
		readers = append(readers, report.Fingerprint(c.ids[c.rng.IntN(len(c.ids))]))
	}
	slices.Sort(readers)
	return encodeFrame(c.b, &reportpb.Report{
		Session: 1, Seq: c.seq,
		Held: []*reportpb.Held{{
			Task: task, Url: fmt.Appendf(nil, "https://origin.example/files/%d", n), Generation: bytes.Repeat([]byte{1}, 16),
			Size: proto.Uint64(64 << 20), Present: []byte{0xff, byte(c.seq)},
		}},
		Demand: []*reportpb.Demand{{Task: task, Bytes: 16 << 20, Readers: slices.Compact(readers)}},
	})
}

// exchange writes a message to each pipe and reads the answers, spread over a
// span of time.
func (c *crowd) exchange(pipes []net.Conn, messages [][]byte, span time.Duration) {
	var workers sync.WaitGroup
	for w := range crowdWorkers {
		workers.Go(func() {
			tick := time.NewTicker(max(span/100, time.Microsecond))
			defer tick.Stop()
			mine := len(pipes)/crowdWorkers/100 + 1
			answer := make([]byte, 1024)
			for n, i := 0, w; i < len(pipes); n, i = n+1, i+crowdWorkers {
				if span > 0 && n%mine == 0 {
					<-tick.C
				}
				if _, err := pipes[i].Write(messages[i]); err != nil {
					c.b.Errorf("write: %v", err)
					return
				}
				if err := readFrame(pipes[i], answer); err != nil {
					c.b.Errorf("read: %v", err)
					return
				}
			}
		})
	}
	workers.Wait()
}

// readFrame reads one frame of less than 16 KiB.
func readFrame(r io.Reader, into []byte) error {
	n, shift := 0, 0
	for {
		if _, err := io.ReadFull(r, into[:1]); err != nil {
			return err
		}
		n |= int(into[0]&0x7f) << shift
		if shift += 7; into[0] < 0x80 {
			break
		}
	}
	_, err := io.ReadFull(r, into[:n])
	return err
}

// period is one heartbeat period of all; it returns the CPU time that it took.
func (c *crowd) period(span time.Duration) time.Duration {
	c.seq++
	var beats, reports [][]byte
	for i := range c.beats {
		beats = append(beats, c.beat(i))
	}
	for range c.reports {
		reports = append(reports, c.report())
	}
	c.b.StartTimer()
	cpu := cpuTime(c.b)
	var both sync.WaitGroup
	both.Go(func() { c.exchange(c.beats, beats, span) })
	both.Go(func() { c.exchange(c.reports, reports, span) })
	both.Wait()
	c.b.StopTimer()
	return cpuTime(c.b) - cpu
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func memory() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse+m.StackInuse) / (1 << 20)
}

// BenchmarkTenThousandPeers runs the supernode as it is, but for connections:
// each peer has a heartbeat stream and beats once in 5 s of real time; in the
// same 5 s a tenth of them report a task of 20,000 with 16 readers each. The
// peers' ends run in the same process and are in the figures: %core is the CPU
// time of all in percent of one core, MiB what the peers added to heap and
// stacks, with 10,000 pipes and handlers in it.
func BenchmarkTenThousandPeers(b *testing.B) {
	const peers = 10_000
	real := p2ptest.Hosts(b, 1)[0]
	h := &pipeHost{Host: real, handlers: make(map[protocol.ID]network.StreamHandler)}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	ps, err := pubsub.NewGossipSub(ctx, real)
	if err != nil {
		b.Fatal(err)
	}
	s, err := supernode.New(supernode.Config{
		Host: h, PubSub: ps, Key: real.Peerstore().PrivKey(real.ID()), MaxPeers: peers, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	p2ptest.Eventually(b, 5*time.Second, func() bool {
		return h.handler(heartbeat.Protocol) != nil && h.handler(report.Protocol) != nil
	}, "serving")
	before := memory()
	c := newCrowd(b, h, peers)
	c.period(0) // all join
	b.ResetTimer()
	b.StopTimer()
	var used time.Duration
	for range b.N {
		used += c.period(crowdPeriod)
	}
	b.ReportMetric(100*float64(used)/float64(b.Elapsed()), "%core")
	b.ReportMetric(float64(used.Microseconds())/float64(b.N)/(peers+crowdReports), "µs-cpu/message")
	b.ReportMetric(memory()-before, "MiB")
	if got := len(s.Status().Members); got != peers || b.Failed() {
		b.Fatalf("%d members of %d", got, peers)
	}
	b.ReportMetric(float64(s.Status().TaskCount), "tasks")
	c.close()
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
