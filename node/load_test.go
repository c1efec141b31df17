package node

import (
	"testing"
	"time"
)

// TestPace: bytes a second since the last measurement, however often it is asked.
func TestPace(t *testing.T) {
	var p pace
	start := time.Unix(1000, 0)
	for _, c := range []struct {
		name           string
		after          time.Duration
		sent, received int64
		up, down       int64
	}{
		{"the first", 0, 5000, 7000, 0, 0},
		{"too soon", paceOver / 2, 9000, 9000, 0, 0},
		{"two seconds", 2 * time.Second, 9000, 8000, 2000, 500},
		{"again at once", 2 * time.Second, 9500, 8000, 2000, 500},
		{"idle but for what came then", 12 * time.Second, 9500, 8000, 50, 0},
		{"idle", 17 * time.Second, 9500, 8000, 0, 0},
	} {
		if up, down := p.measure(start.Add(c.after), c.sent, c.received); up != c.up || down != c.down {
			t.Errorf("%s: %d up, %d down, want %d and %d", c.name, up, down, c.up, c.down)
		}
	}
}
