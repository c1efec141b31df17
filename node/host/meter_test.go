package host

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestMeter: a relay that is limited carries 8 MiB a second, over all circuits,
// after 4 MiB at once; the other policies do not slow it down.
func TestMeter(t *testing.T) {
	for policy, want := range map[RelayData]time.Duration{"": 2 * time.Second, RelayLimited: 2 * time.Second, RelayUnlimited: 0, RelayOff: 0} {
		t.Run(string(policy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMeter(nil, policy)
				start := time.Now()
				done := make(chan struct{})
				const circuits, each = 4, (4 + 2*8) << 20 / 4
				for range circuits {
					go func() {
						for n := 0; n < each; n += relayBuffer {
							m.BytesTransferred(relayBuffer)
						}
						done <- struct{}{}
					}()
				}
				for range circuits {
					<-done
				}
				if took := time.Since(start); took < want || took > want+10*time.Millisecond {
					t.Errorf("20 MiB in %v, want %v", took, want)
				}
			})
		})
	}
}

// TestMeterEnds: a relay that closes does not wait for its rate.
func TestMeterEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(nil, RelayLimited)
		start := time.Now()
		close(m.ended)
		for range 100 {
			m.BytesTransferred(relayBurst)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("waited %v", took)
		}
	})
}
