// Package frametest pins what protocols put on the wire: vectors in testdata,
// which tests compare with what they encode and fuzz targets start from. It is
// for tests alone.
package frametest

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Path is where each protocol keeps its vectors: a name and hexadecimal digits
// a line.
const Path = "testdata/vectors.txt"

var update = flag.Bool("update-vectors", false, "write testdata/vectors.txt anew: only for a new protocol ID")

// Vector is one message, encoded.
type Vector struct {
	Name  string
	Bytes []byte
}

// Check compares the vectors with those of testdata, one subtest each. A
// difference means that the wire has changed, which needs a new protocol ID.
func Check(t *testing.T, got []Vector) {
	t.Helper()
	if *update {
		write(t, got)
	}
	want := Read(t)
	if len(want) != len(got) {
		t.Errorf("%d vectors in %s, want the %d encoded ones", len(want), Path, len(got))
	}
	byName := make(map[string][]byte, len(want))
	for _, v := range want {
		byName[v.Name] = v.Bytes
	}
	for _, v := range got {
		t.Run(v.Name, func(t *testing.T) {
			if !bytes.Equal(v.Bytes, byName[v.Name]) {
				t.Errorf("encoded\n%x\nin %s\n%x", v.Bytes, Path, byName[v.Name])
			}
		})
	}
}

// Read returns the vectors of testdata.
func Read(t testing.TB) []Vector {
	t.Helper()
	b, err := os.ReadFile(filepath.FromSlash(Path))
	if err != nil {
		t.Fatal(err)
	}
	var out []Vector
	for line := range strings.Lines(string(b)) {
		name, digits, ok := strings.Cut(strings.TrimSpace(line), " ")
		raw, err := hex.DecodeString(digits)
		if !ok || err != nil {
			t.Fatalf("%s: line %q: want a name and hexadecimal digits: %v", Path, line, err)
		}
		out = append(out, Vector{name, raw})
	}
	return out
}

func write(t *testing.T, vs []Vector) {
	t.Helper()
	var b strings.Builder
	for _, v := range vs {
		fmt.Fprintf(&b, "%s %x\n", v.Name, v.Bytes)
	}
	path := filepath.FromSlash(Path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Count returns the value of a counter or gauge, summed over its labels; 0 where
// the registry has none of that name.
func Count(t testing.TB, reg prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}
