package plan

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Results are the lines of the instances of any number of runs.
type Results []Record

// LoadResults reads every ResultFile in and below a folder. A broken line is an
// error that names it; the last one of an instance that was killed may be.
func LoadResults(dir string) (Results, error) {
	var out Results
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() != ResultFile {
			return err
		}
		lines, err := loadFile(path)
		out = append(out, lines...)
		return err
	})
	return out, err
}

func loadFile(path string) (Results, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var out Results
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		var r Record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		out = append(out, r)
	}
	return out, lines.Err()
}

// Reads returns the reads of a phase, or of all where it is empty.
func (rs Results) Reads(phase string) []ReadRecord {
	var out []ReadRecord
	for _, r := range rs {
		if r.Read != nil && (phase == "" || r.Read.Phase == phase) {
			out = append(out, *r.Read)
		}
	}
	return out
}

// Checks returns the checks, by name; of several of a name the one that is
// furthest from its bound on the wrong side.
func (rs Results) Checks() map[string]CheckRecord {
	out := make(map[string]CheckRecord)
	for _, r := range rs {
		if r.Check == nil {
			continue
		}
		if old, ok := out[r.Check.Name]; !ok || r.Check.Got-r.Check.Bound > old.Got-old.Bound {
			out[r.Check.Name] = *r.Check
		}
	}
	return out
}

// Metric returns a metric's values, one of each instance that has it.
func (rs Results) Metric(name string) []float64 {
	var out []float64
	for _, r := range rs {
		if r.Metric != nil && r.Metric.Name == name {
			out = append(out, r.Metric.Value)
		}
	}
	return out
}
