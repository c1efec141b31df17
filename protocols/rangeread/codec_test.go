package rangeread

import (
	"bytes"
	"testing"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// writes keeps what was written, and how much at a time.
type writes struct {
	all   bytes.Buffer
	sizes []int
}

func (w *writes) Write(p []byte) (int, error) {
	w.sizes = append(w.sizes, len(p))
	return w.all.Write(p)
}

// TestSpillFillsFrames: all but the end of a long answer is written in whole
// frames of the muxer, and what is written is what one flush would.
func TestSpillFillsFrames(t *testing.T) {
	data := p2ptest.Bytes(1, 10*MaxData)
	send := func(w *writes, after func(*frameWriter) error) {
		t.Helper()
		fw := &frameWriter{w: w}
		fw.take()
		defer fw.release()
		for at := 0; at < len(data); at += MaxData {
			p, _, err := fw.data(MaxData)
			if err != nil {
				t.Fatal(err)
			}
			copy(p, data[at:])
			if err := after(fw); err != nil {
				t.Fatal(err)
			}
		}
		if err := fw.end(); err != nil {
			t.Fatal(err)
		}
	}
	var whole, spilled writes
	send(&whole, (*frameWriter).flush)
	send(&spilled, (*frameWriter).spill)
	if !bytes.Equal(whole.all.Bytes(), spilled.all.Bytes()) {
		t.Error("the bytes differ")
	}
	for i, n := range spilled.sizes[:len(spilled.sizes)-1] {
		if n%muxerFrame != 0 {
			t.Errorf("write %d of %d: %d bytes", i, len(spilled.sizes), n)
		}
	}
}
