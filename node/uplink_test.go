package node

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/node/limits"
)

// TestUplinkAt: which bounds hold at which time.
func TestUplinkAt(t *testing.T) {
	const kib = 1 << 10
	weekdays := []time.Weekday{time.Monday, time.Tuesday, time.Wednesday, time.Thursday, time.Friday}
	u := Uplink{Rate: 100 * kib, NoBackground: true, Schedule: []Window{
		{Days: weekdays, From: 8 * time.Hour, To: 18 * time.Hour, Rate: 50 * kib, NoBackground: true},
		{Days: []time.Weekday{time.Saturday}, From: 22 * time.Hour, To: 6 * time.Hour, Rate: -1},
		{From: 23 * time.Hour, To: 23 * time.Hour, Rate: 200 * kib}, // all day, for what is left of Sunday
	}}
	u.Schedule[2].Days = []time.Weekday{time.Sunday}
	for at, want := range map[string]Bounds{
		"Mon 07:59": {200 * kib, false}, // since Sunday 23:00
		"Mon 08:00": {50 * kib, true},
		"Mon 17:59": {50 * kib, true},
		"Mon 18:00": {200 * kib, false},
		"Mon 23:00": {100 * kib, true},
		"Fri 18:00": {100 * kib, true},
		"Sat 21:59": {100 * kib, true},
		"Sat 22:00": {0, false},
		"Sun 05:59": {0, false},
		"Sun 06:00": {100 * kib, true},
		"Sun 23:00": {200 * kib, false},
	} {
		clock, err := time.Parse("Mon 15:04", at)
		if err != nil {
			t.Fatal(err)
		}
		var day time.Weekday
		for day.String()[:3] != at[:3] {
			day++
		}
		// 2 January 2000 was a Sunday.
		moment := time.Date(2000, 1, 2+int(day), clock.Hour(), clock.Minute(), 30, 0, time.UTC)
		if got := u.At(moment); got != want {
			t.Errorf("%s: %+v, want %+v", at, got, want)
		}
	}
	if got := (Uplink{}).At(time.Now()); got != (Bounds{}) {
		t.Errorf("without bounds: %+v", got)
	}
}

func TestUplinkIsChecked(t *testing.T) {
	good := []Uplink{{}, {Rate: 16 << 10}, {Schedule: []Window{{To: 23*time.Hour + 59*time.Minute, Rate: -1}}}}
	bad := []Uplink{
		{Rate: 1}, {Rate: -1}, {Schedule: []Window{{To: 24 * time.Hour}}}, {Schedule: []Window{{From: -time.Minute}}},
		{Schedule: []Window{{From: time.Second}}}, {Schedule: []Window{{Rate: 100}}},
	}
	for _, u := range good {
		if err := checkUplink(u); err != nil {
			t.Errorf("%+v: %v", u, err)
		}
	}
	for _, u := range bad {
		if checkUplink(u) == nil {
			t.Errorf("%+v is taken", u)
		}
	}
}

// TestFollowSchedule: the bounds change with the clock, and what is for the
// background waits for its time.
func TestFollowSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		midnight := time.Now().Local() // time begins at midnight of UTC
		at := func(d time.Duration) time.Duration {
			return (time.Duration(midnight.Hour())*time.Hour + time.Duration(midnight.Minute())*time.Minute + d) % (24 * time.Hour)
		}
		n := &Node{limits: limits.New(nil, func(peer.ID) bool { return false })}
		n.cfg.Logger = slog.New(slog.DiscardHandler)
		n.cfg.Uplink = Uplink{Rate: 1 << 20, NoBackground: true, Schedule: []Window{{From: at(10 * time.Minute), To: at(20 * time.Minute), Rate: 5 << 20}}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- n.followSchedule(ctx) }()
		start := time.Now()
		if err := n.backgroundTurn(ctx); err != nil || time.Since(start) != 10*time.Minute {
			t.Errorf("the background's turn came after %v: %v", time.Since(start), err)
		}
		for _, c := range []struct {
			after time.Duration
			rate  float64
		}{{11 * time.Minute, 5 << 20}, {19*time.Minute + 59*time.Second, 5 << 20}, {20*time.Minute + time.Second, 1 << 20}} {
			time.Sleep(c.after - time.Since(start))
			if l := n.limits.Limits(); l.Up != c.rate || l.Down != c.rate {
				t.Errorf("after %v: %v up, %v down, want %v", c.after, l.Up, l.Down, c.rate)
			}
		}
		time.AfterFunc(time.Minute, cancel)
		if err := n.backgroundTurn(ctx); err == nil {
			t.Error("the background has its turn after the window")
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
