package p2ptest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// Bytes returns n pseudo-random bytes that depend on the seed alone: every
// process that asks for the same seed gets the same file, and a longer one
// begins with the shorter one.
func Bytes(seed uint64, n int) []byte {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b) // never fails
	return b
}

// Eventually waits until cond holds, asking every few milliseconds, and fails
// the test if it does not within timeout. what is printed then, in the manner
// of fmt.Sprint.
func Eventually(t testing.TB, timeout time.Duration, cond func() bool, what ...any) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			if cond() {
				return
			}
			t.Fatalf("did not happen within %v: %s", timeout, fmt.Sprint(what...))
		}
	}
}
