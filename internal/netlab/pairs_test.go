//go:build linux

package netlab_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/netlab"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

const (
	// pairBytes is the size of the file that each pair reads.
	pairBytes = 64 << 20
	// punchWithin is how soon port-preserving pairs are connected directly.
	punchWithin = 3 * time.Second
	// settleWithin is how long a pair is watched for a direct connection: longer
	// than the three attempts.
	settleWithin = 15 * time.Second
)

// pair is a seed at one place and a reader at another.
type pair struct{ seed, reader netlab.Kind }

// telling are the pairs that CI runs; P2PNODE_LAB=all runs all.
var telling = []pair{
	{netlab.Public, netlab.Symmetric},
	{netlab.PortPreserving, netlab.Public},
	{netlab.PortPreserving, netlab.PortPreserving},
	{netlab.Symmetric, netlab.Symmetric},
	{netlab.FullCone, netlab.Symmetric},
	{netlab.UDPBlocked, netlab.PortPreserving},
}

// row is what was seen of a pair.
type row struct {
	pair
	path
	contact time.Duration // from the reader's start to its first connection to the seed
	read    time.Duration
	source  string
}

// needLab skips a long lab unless it is asked for.
func needLab(t *testing.T) string {
	t.Helper()
	which := os.Getenv("P2PNODE_LAB")
	if which == "" {
		t.Skip("a lab of minutes: .ci/run lab runs it, as root")
	}
	if err := netlab.Usable(); err != nil {
		t.Fatalf("P2PNODE_LAB is set: %v", err)
	}
	return which
}

// TestPairs: for every pair of places a reader gets 64 MiB from a seed, and
// those behind port-preserving NATs punch through. With P2PNODE_LAB=all it takes
// all pairs and writes the table of docs/nat.md.
func TestPairs(t *testing.T) {
	which := needLab(t)
	pairs := telling
	if which == "all" {
		pairs = nil
		for _, a := range netlab.Kinds {
			for _, b := range netlab.Kinds {
				pairs = append(pairs, pair{a, b})
			}
		}
	}
	data := p2ptest.Bytes(71, pairBytes)
	var rows []row
	for _, p := range pairs {
		t.Run(fmt.Sprintf("%s from %s", p.reader, p.seed), func(t *testing.T) {
			r := runPair(t, p, data)
			t.Logf("%s %s (%s) direct after %d ms, first contact %v, read in %v", r.How, r.Transport, r.LastError, r.DirectAfterMs, r.contact, r.read)
			if r.source != "peer" {
				t.Errorf("the first byte came from %q, want the peer", r.source)
			}
			both := func(k netlab.Kind) bool { return p.seed == k && p.reader == k }
			if both(netlab.PortPreserving) && (r.How != "punched" || r.DirectAfterMs > punchWithin.Milliseconds()) {
				t.Errorf("%s after %d ms (%s), want a hole within %v", r.How, r.DirectAfterMs, r.LastError, punchWithin)
			}
			if (p.seed == netlab.Public || p.reader == netlab.Public) && r.How != "direct" {
				t.Errorf("%s, want a direct connection: one of the two is public", r.How)
			}
			rows = append(rows, r)
		})
	}
	if which == "all" && !t.Failed() {
		if err := writeTable(rows); err != nil {
			t.Error(err)
		}
	}
}

func runPair(t *testing.T, p pair, data []byte) row {
	w := newWorld(t)
	url := w.add("/file", data)
	seed := w.daemon(w.Place("a", p.seed))
	natted := p.seed != netlab.Public && p.seed != netlab.FullCone
	seed.until(20*time.Second, "the seed's way to be reached", func(s status) bool {
		return len(s.Pool) == 1 && (!natted || len(s.Network.Relays) > 0)
	})
	if _, err := seed.read(url, data, readWithin); err != nil {
		t.Fatalf("the seed reads: %v", err)
	}
	place := w.Place("b", p.reader)
	began := time.Now()
	reader := w.daemon(place, "--seed=false")
	reader.until(30*time.Second, "a way to the seed", func(s status) bool { _, ok := s.to(seed.Peer); return ok })
	r := row{pair: p, contact: time.Since(began)}
	began = time.Now()
	var err error
	if r.source, err = reader.read(url, data, readWithin); err != nil {
		t.Fatalf("read: %v", err)
	}
	r.read = time.Since(began)
	for {
		s, err := reader.status()
		if err != nil {
			t.Fatal(err)
		}
		r.path, _ = s.to(seed.Peer)
		r.seedPath(seed, reader)
		if r.DirectAfterMs >= 0 || time.Since(began) > settleWithin {
			break
		}
		wait(100 * time.Millisecond)
	}
	if n := w.origin.Bytes("/file"); n != pairBytes {
		t.Errorf("the origin sent %d bytes, want %d", n, pairBytes)
	}
	return r
}

// Marks of the table in docs/nat.md.
const tableBegins, tableEnds = "<!-- pairs: written by make nat-table -->\n", "<!-- end of pairs -->\n"

// writeTable puts the rows into docs/nat.md.
func writeTable(rows []row) error {
	file := filepath.Join("..", "..", "docs", "nat.md")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(text), tableBegins)
	_, tail, ok2 := strings.Cut(rest, tableEnds)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no marks for the table", file)
	}
	var b strings.Builder
	b.WriteString("| seed | reader | connected | after first contact | 64 MiB |\n|---|---|---|---|---|\n")
	slices.SortStableFunc(rows, func(x, y row) int {
		return slices.Index(netlab.Kinds, x.seed) - slices.Index(netlab.Kinds, y.seed)
	})
	for _, r := range rows {
		how, after := r.How+", "+r.Transport, "at once"
		switch {
		case r.How == "relayed":
			after = "-"
		case r.DirectAfterMs > 0:
			after = (time.Duration(r.DirectAfterMs) * time.Millisecond).String()
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | right, %.1f s |\n", r.seed, r.reader, how, after, r.read.Seconds())
	}
	return os.WriteFile(file, []byte(head+tableBegins+b.String()+tableEnds+tail), 0o644) //nolint:gosec // a page of the repository
}

// seedPath adds what the seed says of the attempts, who is the one to begin.
func (r *row) seedPath(seed, reader *process) {
	if s, err := seed.status(); err == nil && r.LastError == "" {
		back, _ := s.to(reader.Peer)
		r.LastError = back.LastError
	}
}
