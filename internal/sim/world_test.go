package sim

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/marcopolo/simnet"
	"github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"
	"go.uber.org/fx"

	"github.com/p2pnode/p2pnode/node/host"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// A swarm in one process is a large heap of which little is garbage.
	debug.SetGCPercent(300)
	os.Exit(m.Run())
}

const (
	// linkDelay is the time of a packet from any host to any other.
	linkDelay = 50 * time.Millisecond
	// linkRate is what each host can send, and receive, in bits a second.
	linkRate = 100_000_000
	// never is the delay of a packet that is lost: worlds end before.
	never = 1000 * time.Hour
)

// world is a network of hosts in virtual time.
type world struct {
	t   testing.TB
	net *simnet.Simnet

	mu sync.Mutex
	// mu guards the following. side is by IP address: hosts of different sides
	// hear nothing of one another, those of a negative one hear nobody.
	side map[string]int
}

// newWorld returns a network that ends with the bubble it was made in.
func newWorld(t testing.TB) *world {
	w := &world{t: t, side: make(map[string]int)}
	w.net = &simnet.Simnet{LatencyFunc: w.latency, Logger: quiet()}
	w.net.Start()
	t.Cleanup(w.net.Close)
	return w
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (w *world) latency(p *simnet.Packet) time.Duration {
	from, to := p.From.(*net.UDPAddr).IP.String(), p.To.(*net.UDPAddr).IP.String()
	w.mu.Lock()
	defer w.mu.Unlock()
	if a, b := w.side[from], w.side[to]; a != b || a < 0 {
		return never
	}
	return linkDelay
}

// move puts a machine on a side of a partition; they begin on side 0.
func (w *world) move(m *machine, side int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.side[m.ip] = side
}

// apart reports whether two machines cannot hear one another.
func (w *world) apart(a, b *machine) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.side[a.ip] != w.side[b.ip] || w.side[a.ip] < 0
}

// machine is where a host runs, one after another: it keeps its key and its
// address.
type machine struct {
	w    *world
	key  crypto.PrivKey
	id   peer.ID
	ip   string
	sent *tally

	endpoint *simnet.SimConn // of the present host
}

// newMachine returns the n-th machine, n from 1 to 65,000. Its identity depends
// on n alone.
func (w *world) newMachine(n int) *machine {
	w.t.Helper()
	key, _, err := crypto.GenerateEd25519Key(keyBytes(n))
	if err != nil {
		w.t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	ip := net.IPv4(11, 0, byte(n>>8), byte(n)).String()
	return &machine{w: w, key: key, id: id, ip: ip, sent: newTally()}
}

// keyBytes is the randomness that the n-th key is made of.
func keyBytes(n int) io.Reader {
	var seed [32]byte
	copy(seed[:], strconv.Itoa(n))
	return rand.NewChaCha8(seed)
}

func (m *machine) addr() multiaddr.Multiaddr {
	return multiaddr.StringCast("/ip4/" + m.ip + "/udp/8000/quic-v1")
}

func (m *machine) info() peer.AddrInfo {
	return peer.AddrInfo{ID: m.id, Addrs: []multiaddr.Multiaddr{m.addr()}}
}

// newHost makes the product's own host on the simulated network.
func (m *machine) newHost(bootstrap []peer.AddrInfo, dhtServer bool) *host.Host {
	m.w.t.Helper()
	h, err := host.New(host.Config{
		Key: m.key, Listen: []multiaddr.Multiaddr{m.addr()}, AllowPublic: true, Bootstrap: bootstrap,
		DHTServer: dhtServer, Logger: quiet(),
		Options: []libp2p.Option{
			libp2p.QUICReuse(m.quic),
			libp2p.BandwidthReporter(m.sent),
			libp2p.DisableIdentifyAddressDiscovery(), // keeps a bubble from ever being idle
		},
	})
	if err != nil {
		m.w.t.Fatal(err)
	}
	return h
}

// quic has a host send its packets by the simulated network.
func (m *machine) quic(life fx.Lifecycle, reset quic.StatelessResetKey, token quic.TokenGeneratorKey) (*quicreuse.ConnManager, error) {
	cm, err := quicreuse.NewConnManager(reset, token,
		quicreuse.OverrideSourceIPSelector(func() (quicreuse.SourceIPSelector, error) { return m, nil }),
		quicreuse.OverrideListenUDP(func(_ string, addr *net.UDPAddr) (net.PacketConn, error) {
			link := simnet.LinkSettings{BitsPerSecond: linkRate}
			m.endpoint = m.w.net.NewEndpoint(addr, simnet.NodeBiDiLinkSettings{Uplink: link, Downlink: link})
			return m.endpoint, nil
		}))
	if err != nil {
		return nil, err
	}
	life.Append(fx.StopHook(cm.Close))
	return cm, nil
}

// PreferredSourceIPForDestination implements quicreuse.SourceIPSelector.
func (m *machine) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) {
	return net.ParseIP(m.ip), nil
}

// tally counts what a host writes to and reads from its streams, by protocol.
// The first bytes of a stream, which agree on the protocol, count for none.
type tally struct {
	metrics.Reporter // of which libp2p calls the four methods below alone

	mu sync.Mutex
	// mu guards the following.
	sent, received map[protocol.ID]volume
}

// volume is a number of writes or reads, and their bytes.
type volume struct{ calls, bytes int64 }

func newTally() *tally {
	return &tally{sent: make(map[protocol.ID]volume), received: make(map[protocol.ID]volume)}
}

func (*tally) LogSentMessage(int64) {}
func (*tally) LogRecvMessage(int64) {}

func (t *tally) LogSentMessageStream(n int64, p protocol.ID, _ peer.ID) { t.add(t.sent, n, p) }
func (t *tally) LogRecvMessageStream(n int64, p protocol.ID, _ peer.ID) { t.add(t.received, n, p) }

func (t *tally) add(to map[protocol.ID]volume, n int64, p protocol.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v := to[p]
	to[p] = volume{v.calls + 1, v.bytes + n}
}

// running is something that was started, to be stopped.
type running struct {
	cancel context.CancelFunc
	done   chan error
}

func start(run func(context.Context) error) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- run(ctx) }()
	return r
}

// stop ends it in the regular way and returns its error.
func (r *running) stop() error {
	r.cancel()
	return <-r.done
}
