package read

import "testing"

// TestBuffersAreBounded: of many readers only so many have a large buffer, small
// ranges take none, and what is given back is lent again.
func TestBuffersAreBounded(t *testing.T) {
	before := large.Load()
	var lent []*[]byte
	sizes := map[int]int{}
	for range 2 * maxLarge {
		b := getBuffer(1 << 20)
		sizes[len(*b)]++
		lent = append(lent, b)
	}
	if sizes[largeBuffer] != maxLarge-int(before) || sizes[smallBuffer] != maxLarge+int(before) {
		t.Errorf("lent %v, with %d before", sizes, before)
	}
	for _, b := range lent {
		putBuffer(b)
	}
	for _, n := range []int64{1, smallBuffer} {
		b := getBuffer(n)
		if len(*b) != smallBuffer {
			t.Errorf("%d bytes got a buffer of %d", n, len(*b))
		}
		putBuffer(b)
	}
	if n := large.Load(); n != before {
		t.Errorf("%d large buffers are lent, before %d", n, before)
	}
}
