//go:build linux

package netlab_test

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/netlab"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// TestRelayRestarts: the supernode, which is the only relay, is killed and
// started again; nodes that nobody reaches but through it are reached again.
func TestRelayRestarts(t *testing.T) {
	needLab(t)
	const within = 15 * time.Second
	w := newWorld(t)
	data := p2ptest.Bytes(72, 8<<20)
	url := w.add("/file", data)
	seed := w.daemon(w.Place("a", netlab.Symmetric))
	reader := w.daemon(w.Place("b", netlab.Symmetric), "--seed=false")
	seed.until(20*time.Second, "a reservation", func(s status) bool { return len(s.Pool) == 1 && len(s.Network.Relays) == 1 })
	if _, err := seed.read(url, data, readWithin); err != nil {
		t.Fatal(err)
	}
	reader.until(30*time.Second, "a way to the seed", func(s status) bool { _, ok := s.to(seed.Peer); return ok })
	w.supernode.kill()
	reader.until(time.Minute, "the loss of the way", func(s status) bool { _, ok := s.to(seed.Peer); return !ok })
	w.supernode.launch()
	back := time.Now()
	reader.until(within, "the way back", func(s status) bool { p, ok := s.to(seed.Peer); return ok && p.How == "relayed" })
	t.Logf("reachable again %v after the relay's start", time.Since(back))
	source, err := reader.read(url, data, readWithin)
	if err != nil || source != "peer" {
		t.Errorf("read from %q: %v", source, err)
	}
	if took := time.Since(back); took > 2*within {
		t.Errorf("read %v after the relay's start", took)
	}
}

// moves is how often a node moves in a test, and is read from or reads at once.
const moves = 3

// TestAddressChanges: a seed behind NAT gets another address on its LAN, and with
// it another on the public segment; it goes on without a restart. Who reads from
// it at once gets the bytes, if somewhat later, and so does its own client.
func TestAddressChanges(t *testing.T) {
	needLab(t)
	w := newWorld(t)
	site := w.NAT("site", netlab.PortPreserving)
	at := site.Host("a")
	seed := w.daemon(at)
	reader := w.daemon(w.Place("b", netlab.Public), "--seed=false")
	files := w.held(seed, 1+moves)
	reader.until(30*time.Second, "a way to the seed", func(s status) bool { _, ok := s.to(seed.Peer); return ok })
	files[0].readFromPeer(reader)
	for i := range moves {
		own := w.file(90 + i)
		site.Readdress(at, 77+i)
		moved := time.Now()
		client := make(chan error, 1)
		go func() {
			_, err := seed.read(own.url, own.data, readWithin)
			client <- err
		}()
		took := files[1+i].readFromPeer(reader)
		if err := <-client; err != nil {
			t.Errorf("move %d: the moved node's own client: %v", i, err)
		}
		both := time.Since(moved)
		seed.until(30*time.Second, "the new address", func(s status) bool {
			for _, a := range s.Addrs {
				if strings.HasPrefix(a, "/ip4/"+at.IP+"/") {
					return len(s.Network.Relays) > 0
				}
			}
			return false
		})
		announced := time.Since(moved)
		reader.until(45*time.Second, "the way to the moved seed", func(s status) bool { p, ok := s.to(seed.Peer); return ok && p.How != "relayed" })
		t.Logf("move %d: read in %v, its own client served by %v, announced by %v, a direct way by %v", i, took, both, announced, time.Since(moved))
	}
}

// TestReaderMoves: a reader behind NAT gets another address, and its clients read
// on at once.
func TestReaderMoves(t *testing.T) {
	needLab(t)
	w := newWorld(t)
	seed := w.daemon(w.Place("a", netlab.Public))
	home := w.NAT("home", netlab.PortPreserving)
	at := home.Host("b")
	reader := w.daemon(at, "--seed=false")
	files := w.held(seed, 1+moves)
	files[0].readFromPeer(reader)
	for i := range moves {
		home.Readdress(at, 77+i)
		t.Logf("move %d: read in %v", i, files[1+i].readFromPeer(reader))
	}
}

// TestMDNSFollows: a node that gets another address on its LAN announces that one
// to its neighbours within seconds.
func TestMDNSFollows(t *testing.T) {
	needLab(t)
	w := newWorld(t)
	site := w.NAT("site", netlab.PortPreserving)
	at, neighbour := site.Host("a"), site.Host("b")
	var heard net.PacketConn
	if err := neighbour.Do(func() error {
		dev, err := net.InterfaceByName(neighbour.Dev)
		if err == nil {
			heard, err = net.ListenMulticastUDP("udp4", dev, &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 5353})
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer heard.Close()
	w.daemon(at)
	hears := func(within time.Duration) time.Duration {
		t.Helper()
		began, packet := time.Now(), make([]byte, 64<<10)
		_ = heard.SetReadDeadline(began.Add(within))
		for {
			n, _, err := heard.ReadFrom(packet)
			if err != nil {
				t.Fatalf("%s is not announced in %v: %v", at.IP, within, err)
			}
			if bytes.Contains(packet[:n], []byte("dnsaddr=/ip4/"+at.IP+"/")) {
				return time.Since(began)
			}
		}
	}
	hears(30 * time.Second)
	for i := range moves {
		site.Readdress(at, 77+i)
		t.Logf("move %d: announced in %v", i, hears(10*time.Second))
	}
}

// file is one of the origin.
type file struct {
	url  string
	data []byte
}

func (w *world) file(n int) file {
	data := p2ptest.Bytes(uint64(n), 4<<20)
	return file{w.add(fmt.Sprintf("/file%d", n), data), data}
}

// held returns so many files that a node holds.
func (w *world) held(seed *process, n int) (files []file) {
	w.t.Helper()
	for i := range n {
		f := w.file(70 + i)
		if _, err := seed.read(f.url, f.data, readWithin); err != nil {
			w.t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// readFromPeer reads the file, which a peer must send, and returns how long that
// took.
func (f file) readFromPeer(reader *process) time.Duration {
	reader.t.Helper()
	began := time.Now()
	source, err := reader.read(f.url, f.data, readWithin)
	if err != nil || source != "peer" {
		reader.t.Errorf("read from %q after %v: %v", source, time.Since(began), err)
	}
	return time.Since(began)
}
