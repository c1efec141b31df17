package origin

import (
	"math/rand/v2"
	"time"
)

// Limits bound what a failing origin is asked. What succeeds costs nothing. The
// zero value works.
type Limits struct {
	// Attempts is how many requests in a row one Get or Head makes without
	// getting on. Default 3.
	Attempts int
	// RetryDelay is the mean wait before the second attempt; it doubles with
	// each, up to 5 s, and is spread by half. Default 200 ms.
	RetryDelay time.Duration
	// BlockFailures is how many requests for one block of one task may fail in
	// a Period, whoever asks. Requests on their way count, so that no more than
	// that are on their way at once for a block. Default 4.
	BlockFailures int
	// OriginFailures is how many requests to one origin may fail at once, and
	// again in each Period; ten that succeed make good for one. Default 64.
	OriginFailures int
	// Period of the two above. Default 1 minute.
	Period time.Duration
	// MaxRetryAfter cuts the Retry-After of a 429 or 503. Up to a tenth is
	// added to it, so that not all come back at once. Default 5 minutes.
	MaxRetryAfter time.Duration
	// BreakAfter is how many connections in a row, within a Period, must fail
	// before an origin counts as out of reach. Default 5.
	BreakAfter int
	// BreakFor is for how long it is then not tried; it doubles up to a minute
	// while trials fail, and is spread by a quarter. Default 5 s.
	BreakFor time.Duration
	// MinRate is the slowest body that is waited for, in bytes a second of
	// waiting, over Config.ProgressTimeout. Default 1024.
	MinRate int
	// Blocks, Tasks and Origins bound the tables, which forget what was used
	// least recently. Defaults 4096, 1024 and 1024; less than 1 MiB in all.
	Blocks, Tasks, Origins int
}

func (l Limits) withDefaults() Limits {
	orDefault(&l.Attempts, 3)
	orDefault(&l.RetryDelay, 200*time.Millisecond)
	orDefault(&l.BlockFailures, 4)
	orDefault(&l.OriginFailures, 64)
	orDefault(&l.Period, time.Minute)
	orDefault(&l.MaxRetryAfter, 5*time.Minute)
	orDefault(&l.BreakAfter, 5)
	orDefault(&l.BreakFor, 5*time.Second)
	orDefault(&l.MinRate, 1<<10)
	orDefault(&l.Blocks, 4096)
	orDefault(&l.Tasks, 1024)
	orDefault(&l.Origins, 1024)
	return l
}

const (
	maxRetryDelay = 5 * time.Second
	maxBreak      = time.Minute
	// progress is how many bytes more of a block make a request no failure.
	progress = 64 << 10
	// patience is how long an origin may be silent before a reader who leaves
	// counts as a failure: otherwise readers who leave early and come again
	// would ask an origin that hangs without end.
	patience = time.Second
	// severalTasks is how many tasks of one origin must have been told to wait
	// before all are.
	severalTasks = 3
	// maxBlocks is for how many blocks of one request the budgets care: fills
	// ask for a stripe at most.
	maxBlocks = 16
	// goodFor is the part of a failure that a success makes good.
	goodFor = 0.1
)

// hold is how long an origin is left alone that asked for d.
func (l Limits) hold(d time.Duration) time.Duration {
	d = min(d, l.MaxRetryAfter)
	return d + rand.N(d/10+1)
}

// spread returns d, up to a quarter more or less.
func spread(d time.Duration) time.Duration {
	return d - d/4 + rand.N(d/2+1)
}
