package node

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/node/limits"
)

// Uplink bounds what a node sends and gets beyond its site: to and from peers
// elsewhere, and from origins. It is of one node: those of a site that share an
// uplink share its rate by what each is given.
type Uplink struct {
	// Rate is in bytes a second, each way; 0 is no bound, else at least 16 KiB.
	// Readers keep to it as well: they wait.
	Rate int64
	// NoBackground has files of which a part was read (Config.Fill, rules with
	// prefetch) not be brought in whole.
	NoBackground bool
	// Schedule has other bounds for times of the day; of several the first counts.
	Schedule []Window
}

// Window is a time of the day, by the machine's own time zone.
type Window struct {
	// Days are those on which it begins; none for all.
	Days []time.Weekday
	// From and To are since midnight, whole minutes, less than a day. Where To is not behind From
	// it ends on the next day.
	From, To time.Duration
	// Rate is that of Uplink; negative for no bound.
	Rate int64
	// NoBackground is that of Uplink.
	NoBackground bool
}

// Bounds are what an Uplink says of a moment.
type Bounds struct {
	Rate         int64 // bytes a second, 0 for no bound
	NoBackground bool
}

// At returns the bounds at a time, in its own zone.
func (u Uplink) At(t time.Time) Bounds {
	for _, w := range u.Schedule {
		if w.covers(t) {
			return Bounds{max(w.Rate, 0), w.NoBackground}
		}
	}
	return Bounds{u.Rate, u.NoBackground}
}

func (u Uplink) now() Bounds { return u.At(time.Now()) }

// covers reports whether a time is in the window.
func (w Window) covers(t time.Time) bool {
	at := time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute
	on := func(day time.Weekday) bool { return len(w.Days) == 0 || slices.Contains(w.Days, day) }
	if w.From < w.To {
		return on(t.Weekday()) && at >= w.From && at < w.To
	}
	return at >= w.From && on(t.Weekday()) || at < w.To && on((t.Weekday()+6)%7) // it began the day before
}

func checkUplink(u Uplink) *FieldError {
	const field = "uplink"
	rate := func(r int64) *FieldError {
		if r != 0 && r < limits.MinBytes || r > 1e15 {
			return &FieldError{field, strconv.FormatInt(r, 10), fmt.Sprintf("as a rate must be from %d bytes a second", limits.MinBytes)}
		}
		return nil
	}
	if err := rate(u.Rate); err != nil {
		return err
	}
	for _, w := range u.Schedule {
		for _, at := range []time.Duration{w.From, w.To} {
			if at < 0 || at >= 24*time.Hour || at%time.Minute != 0 {
				return &FieldError{field, at.String(), "as a time of the day must be a whole minute from 00:00 to 23:59"}
			}
		}
		if err := rate(max(w.Rate, 0)); err != nil {
			return err
		}
	}
	return nil
}

// followSchedule sets the bounds of the uplink whenever its schedule has others,
// until ctx ends. What was set otherwise meanwhile, by the admin API, holds until
// then.
func (n *Node) followSchedule(ctx context.Context) error {
	last := n.cfg.Uplink.now() // set by wire, or about to change
	n.limits.SetUplink(last.Rate)
	for nextMinute(ctx) == nil {
		if b := n.cfg.Uplink.now(); b != last {
			last = b
			n.limits.SetUplink(b.Rate)
			n.cfg.Logger.Info("the uplink has other bounds", "bytes_per_second", b.Rate, "background", !b.NoBackground)
		}
	}
	return nil
}

// backgroundTurn waits until files may be brought in whole.
func (n *Node) backgroundTurn(ctx context.Context) error {
	for n.cfg.Uplink.now().NoBackground {
		if err := nextMinute(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// slowDown is read.FillerConfig.Pace.
func (n *Node) slowDown(ctx context.Context, from peer.ID, size int) error {
	return n.limits.Down(ctx, from, size)
}

// nextMinute waits for the clock's next minute.
func nextMinute(ctx context.Context) error {
	now := time.Now()
	t := time.NewTimer(now.Truncate(time.Minute).Add(time.Minute).Sub(now))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
