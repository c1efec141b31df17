package e2e

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

const fileSize = 64 << 20

// coldReaders makes 20 readers, five a daemon: whole files and overlapping
// ranges.
func coldReaders(s *swarm, url string, data []byte) []func() error {
	r := rand.New(rand.NewPCG(1, 2))
	var readers []func() error
	for i := range 20 {
		d := s.daemons[i%len(s.daemons)]
		off, end := int64(0), int64(0)
		if i >= 8 {
			off = r.Int64N(fileSize - 1)
			end = off + 1 + r.Int64N(fileSize-off)
		}
		readers = append(readers, func() error { return d.check(url, data, off, end) })
	}
	return readers
}

// TestColdReaders: 20 cold readers through four daemons cost the origin each
// byte exactly once.
func TestColdReaders(t *testing.T) {
	origin := p2ptest.NewOrigin(t)
	data := p2ptest.Bytes(1, fileSize)
	url := origin.Add("/file", data)
	s := newSwarm(t, binary(t, ""), 4, 2)
	if err := all(coldReaders(s, url, data)...); err != nil {
		t.Fatal(err)
	}
	if n := origin.Bytes("/file"); n != fileSize {
		t.Errorf("origin sent %d bytes of body, want %d; %d requests", n, fileSize, origin.Requests("/file"))
	}
	if n := origin.MaxCopies("/file"); n != 1 {
		t.Errorf("origin sent a byte %d times", n)
	}
	t.Logf("%d requests to the origin", origin.Requests("/file"))
}

// TestColdReadersUnshared is the negative control of TestColdReaders: a build
// in which every reader fills for himself must be found out.
func TestColdReadersUnshared(t *testing.T) {
	if testing.Short() {
		t.Skip("negative control: skipped with -short")
	}
	origin := p2ptest.NewOrigin(t)
	data := p2ptest.Bytes(1, fileSize)
	url := origin.Add("/file", data)
	s := newSwarm(t, binary(t, "p2pnode_unshared"), 4, 2)
	if err := all(coldReaders(s, url, data)...); err != nil {
		t.Fatal(err)
	}
	if n := origin.Bytes("/file"); n <= fileSize {
		t.Errorf("origin sent %d bytes: the count does not notice that flights are not shared", n)
	} else {
		t.Logf("without shared flights the origin sent %.2f times the file", float64(n)/fileSize)
	}
}

// TestSupernodeKilled: reads go on without the supernode.
func TestSupernodeKilled(t *testing.T) {
	origin := p2ptest.NewOrigin(t)
	warm, cold := p2ptest.Bytes(1, 8<<20), p2ptest.Bytes(2, 8<<20)
	warmURL, coldURL := origin.Add("/warm", warm), origin.Add("/cold", cold)
	s := newSwarm(t, binary(t, ""), 4, 2)
	if err := s.daemons[0].check(warmURL, warm, 0, 0); err != nil {
		t.Fatal(err)
	}
	s.supernode.kill()
	var readers []func() error
	for _, d := range s.daemons {
		readers = append(readers,
			func() error { return d.check(warmURL, warm, 0, 0) }, func() error { return d.check(coldURL, cold, 0, 0) },
			func() error { return d.check(warmURL, warm, 1000, 5000000) }, func() error { return d.check(coldURL, cold, 7, 4000000) })
	}
	start := time.Now()
	if err := all(readers...); err != nil {
		t.Fatal(err)
	}
	// What a read would wait for is at least one heartbeat or dial timeout.
	if d := time.Since(start); d > 4*time.Second {
		t.Errorf("16 reads took %s: something waits for the supernode", d)
	}
	for _, path := range []string{"/warm", "/cold"} {
		if n := origin.Bytes(path); n != 8<<20 {
			t.Errorf("origin sent %d bytes of %s, want %d", n, path, 8<<20)
		}
	}
}

// faultSetup starts a swarm that knows a file, and returns a daemon that is no
// seed of it and one that is.
func faultSetup(t *testing.T) (origin *p2ptest.Origin, url string, data []byte, reader, victim *process) {
	t.Helper()
	origin = p2ptest.NewOrigin(t)
	data = p2ptest.Bytes(3, fileSize)
	url = origin.Add("/file", data)
	s := newSwarm(t, binary(t, ""), 4, 2)
	victim = s.seedOf(url, data)
	seeds := victim.tasks(t)[0].Seeds
	if len(seeds) != 2 {
		t.Fatalf("seeds %v, want 2", seeds)
	}
	for _, d := range s.daemons {
		if d.Peer != seeds[0] && d.Peer != seeds[1] {
			reader = d
		}
	}
	return origin, url, data, reader, victim
}

// fault reads the file while fault happens to the first seed in mid-stream, and
// returns how long after it the read ended.
func fault(t *testing.T, happen func(victim *process)) {
	origin, url, data, reader, victim := faultSetup(t)
	origin.SetRate(32 << 20)
	done := make(chan error, 1)
	before := origin.Bytes("/file")
	go func() { done <- reader.check(url, data, 0, 0) }()
	p2ptest.Eventually(t, 10*time.Second, func() bool { return origin.Bytes("/file")-before > fileSize/4 }, "mid-stream")
	happen(victim)
	at := time.Now()
	origin.SetRate(0)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	took := time.Since(at)
	t.Logf("ended %s after the fault; the origin sent %.2f times the file", took.Round(time.Millisecond), float64(origin.Bytes("/file"))/fileSize)
	if took > 2*time.Second {
		t.Errorf("the read ended %s after the fault, want at most 2 s", took)
	}
}

// TestSeedKilled: a seed dies in mid-stream, the client's one GET ends right.
func TestSeedKilled(t *testing.T) {
	fault(t, func(victim *process) { victim.kill() })
}

// TestSeedStopped: a seed stops in mid-stream, its connections stay open.
func TestSeedStopped(t *testing.T) {
	fault(t, func(victim *process) { victim.signal(syscall.SIGSTOP) })
}

// TestSigterm: a daemon that is told to stop says goodbye at once, while it
// still serves: it is no member any more, the other lets it out of the pool, and
// its last reader gets the whole file.
func TestSigterm(t *testing.T) {
	origin := p2ptest.NewOrigin(t)
	data := p2ptest.Bytes(6, 4<<20)
	url := origin.Add("/file", data)
	s := newSwarm(t, binary(t, ""), 2, 1)
	leaving, stays := s.daemons[0], s.daemons[1]
	origin.Stall()
	done := make(chan error, 1)
	go func() { done <- leaving.check(url, data, 0, 0) }()
	p2ptest.Eventually(t, 10*time.Second, func() bool { return origin.Running("/file") > 0 }, "a reader at the origin")
	leaving.signal(syscall.SIGTERM)
	p2ptest.Eventually(t, 10*time.Second, func() bool {
		var st struct{ Members []struct{ Peer string } }
		s.supernode.admin(t, "/v1/status", &st)
		return len(st.Members) == 1 && st.Members[0].Peer == stays.Peer
	}, "the supernode heard no goodbye while a read was under way")
	origin.Resume()
	if err := <-done; err != nil {
		t.Error(err)
	}
	p2ptest.Eventually(t, 15*time.Second, func() bool { return len(stays.status(t).Pool) == 1 }, "who left is still in the pool")
	select {
	case err := <-leaving.wait:
		leaving.wait = nil
		if err != nil {
			t.Errorf("exit: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the daemon does not end")
	}
}

// TestSlowOrigin: slow is not dead. An origin whose first byte takes 5 s is
// asked once.
func TestSlowOrigin(t *testing.T) {
	origin := p2ptest.NewOrigin(t)
	data := p2ptest.Bytes(4, 1<<20)
	url := origin.Add("/file", data)
	origin.SetFirstByteDelay(5 * time.Second)
	s := newSwarm(t, binary(t, ""), 4, 2)
	var readers []func() error
	for _, d := range s.daemons {
		readers = append(readers, func() error { return d.check(url, data, 0, 0) })
	}
	if err := all(readers...); err != nil {
		t.Fatal(err)
	}
	if n := origin.Requests("/file"); n != 1 {
		t.Errorf("the slow origin got %d requests, want 1", n)
	}
}

// TestRestartWithoutOrigin: all are killed and restarted, the origin is gone.
func TestRestartWithoutOrigin(t *testing.T) {
	origin := p2ptest.NewOrigin(t)
	data := p2ptest.Bytes(5, fileSize)
	url := origin.Add("/file", data)
	s := newSwarm(t, binary(t, ""), 4, 2)
	// Only one daemon reads: the others have what they own, or nothing.
	if err := s.daemons[1].check(url, data, 0, 0); err != nil {
		t.Fatal(err)
	}
	s.supernode.kill()
	for _, d := range s.daemons {
		d.kill()
	}
	origin.Close()
	s.supernode.restart()
	for _, d := range s.daemons {
		d.restart()
	}
	var readers []func() error
	for _, d := range s.daemons {
		readers = append(readers, func() error { return d.check(url, data, 0, 0) })
	}
	if err := all(readers...); err != nil {
		t.Fatal(err)
	}
}

// TestFlippedByte: bytes that change on disk are never delivered.
func TestFlippedByte(t *testing.T) {
	origin := p2ptest.NewOrigin(t)
	data := p2ptest.Bytes(6, 4<<20)
	url := origin.Add("/file", data)
	s := newSwarm(t, binary(t, ""), 2, 2)
	for _, d := range s.daemons {
		if err := d.check(url, data, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	victim := s.daemons[0]
	files, err := filepath.Glob(filepath.Join(victim.dir, "data", "data", "*", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("data files %v: %v", files, err)
	}
	f, err := os.OpenFile(files[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for _, off := range []int64{0, 1<<20 + 5, 4<<20 - 1} {
		if _, err := f.WriteAt([]byte{data[off] ^ 1}, off); err != nil {
			t.Fatal(err)
		}
		if err := victim.check(url, data, off, off+1); err != nil {
			t.Error(err)
		}
	}
	if err := victim.check(url, data, 0, 0); err != nil {
		t.Error(err)
	}
}

// fresh are the arguments of a daemon that no supernode knows: the one that it
// names is dead. It may not read the origin.
func fresh(dead *process) []string {
	return []string{
		"daemon", "--listen", "/ip4/127.0.0.1/tcp/0", "--proxy", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--seed=false",
		"--supernode", dead.Addrs[0], "--log-level", "debug", "--origin-fallback=false",
	}
}

// TestDHT: a new daemon, every supernode and the seed that it would ask dead,
// and a peer that is no seed to join through: the DHT names the seed that has
// the file.
func TestDHT(t *testing.T) {
	origin := p2ptest.NewOrigin(t)
	data := p2ptest.Bytes(7, 8<<20)
	url := origin.Add("/file", data)
	bin := binary(t, "")
	s := newSwarm(t, bin, 2, 1)
	if err := s.daemons[0].check(url, data, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.daemons[1].check(url, data, 0, 0); err != nil {
		t.Fatal(err)
	}
	elected := s.daemons[0].tasks(t)[0].Seeds
	first, second := s.daemons[0], s.daemons[1]
	if elected[0] != first.Peer {
		first, second = second, first
	}
	bridge := start(t, bin, fresh(s.supernode)...)
	s.supernode.kill()
	origin.Close()
	reader := start(t, bin, append(fresh(s.supernode), "--bootstrap", bridge.Addrs[0])...)
	first.kill()
	p2ptest.Eventually(t, 10*time.Second, func() bool { return len(reader.status(t).Pool) == 2 }, "pool from a neighbour")
	if err := reader.check(url, data, 0, 0); err != nil {
		t.Fatal(err)
	}
	if n := reader.metric(t, "p2pnode_read_provider_reads_total"); n == 0 {
		t.Errorf("the DHT named nobody: the bytes came otherwise (seed %s)", second.Peer)
	}
}

// TestSeedMoved: a new daemon, every supernode dead, a peer that is no seed to
// join through, and a seed at another address than the pool says: the DHT knows
// where it is.
func TestSeedMoved(t *testing.T) {
	origin := p2ptest.NewOrigin(t)
	data := p2ptest.Bytes(8, 8<<20)
	url := origin.Add("/file", data)
	bin := binary(t, "")
	s := newSwarm(t, bin, 1, 2)
	seed := s.daemons[0]
	if err := seed.check(url, data, 0, 0); err != nil {
		t.Fatal(err)
	}
	bridge := start(t, bin, fresh(s.supernode)...)
	s.supernode.kill()
	origin.Close()
	seed.kill()
	for i, a := range seed.args {
		if a == "--listen" {
			seed.args[i+1] = "/ip4/127.0.0.1/tcp/0"
		}
	}
	seed.args = append(seed.args, "--bootstrap", bridge.Addrs[0])
	seed.restart()
	p2ptest.Eventually(t, 20*time.Second, func() bool { return seed.status(t).Connected >= 1 }, "the seed rejoins")
	reader := start(t, bin, append(fresh(s.supernode), "--bootstrap", bridge.Addrs[0])...)
	if err := reader.check(url, data, 0, 0); err != nil {
		t.Fatal(err)
	}
}
