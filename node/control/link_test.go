package control

import (
	"testing"
	"time"
)

// TestQuickestAnswer: a supernode's RTT and clock are those of the quickest of its
// last answers; older ones are forgotten, and one that does not tell its clock
// has none.
func TestQuickestAnswer(t *testing.T) {
	now := time.Now()
	l := &link{Control: &Control{cfg: Config{Interval: time.Second}}}
	if s := l.status(now); s.RTTMs != 0 || s.ClockMs != nil {
		t.Errorf("before there was an answer: %+v", s)
	}
	hear := func(a answer) {
		l.answers[l.answered%answersKept] = a
		l.answered++
		l.at = now
	}
	want := func(rtt, ahead float64, timed bool) {
		t.Helper()
		s := l.status(now)
		if s.RTTMs != rtt || (s.ClockMs != nil) != timed || timed && *s.ClockMs != ahead {
			t.Errorf("%+v, want %v ms, clock %v ms ahead", s, rtt, ahead)
		}
	}
	hear(answer{rtt: 3 * time.Millisecond, ahead: -time.Second, timed: true})
	want(3, -1000, true)
	hear(answer{rtt: 9 * time.Millisecond, ahead: 5 * time.Second, timed: true})
	want(3, -1000, true)
	for range answersKept - 1 {
		hear(answer{rtt: 10 * time.Millisecond, ahead: time.Second / 2, timed: true})
	}
	want(9, 5000, true)
	hear(answer{rtt: time.Millisecond})
	want(1, 0, false)
}
