package plan

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// Params are the parameters of a run. The manifest has the defaults, so none is
// missing: a case that asks for one that its manifest lacks fails.
type Params struct {
	values map[string]string
	asked  map[string]bool
	errs   []error
}

func newParams(values map[string]string) *Params {
	return &Params{values: values, asked: make(map[string]bool)}
}

// text returns a parameter as it was given.
func (p *Params) text(name string) string {
	p.asked[name] = true
	v, ok := p.values[name]
	if !ok {
		p.errs = append(p.errs, fmt.Errorf("parameter %s is missing: the manifest names its default", name))
	}
	return strings.TrimSpace(v)
}

// parse reads a parameter with f.
func parse[T any](p *Params, name, want string, f func(string) (T, error)) T {
	text := p.text(name)
	v, err := f(text)
	if err != nil {
		p.errs = append(p.errs, fmt.Errorf("parameter %s=%q: want %s", name, text, want))
	}
	return v
}

// Int returns a whole number, 0 or more.
func (p *Params) Int(name string) int {
	return parse(p, name, "a whole number, 0 or more", func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err == nil && n < 0 {
			err = errors.New("negative")
		}
		return n, err
	})
}

// Float returns a number, 0 or more.
func (p *Params) Float(name string) float64 {
	return parse(p, name, "a number, 0 or more", func(s string) (float64, error) {
		v, err := strconv.ParseFloat(s, 64)
		if err == nil && !(v >= 0) {
			err = errors.New("negative")
		}
		return v, err
	})
}

// Size returns a number of bytes, such as 64KiB.
func (p *Params) Size(name string) int64 {
	return parse(p, name, "a size such as 64KiB", func(s string) (int64, error) {
		n, err := humanize.ParseBytes(s)
		return int64(min(n, 1<<62)), err
	})
}

// Duration returns a time, such as 50ms.
func (p *Params) Duration(name string) time.Duration {
	return parse(p, name, "a time such as 50ms", time.ParseDuration)
}

// OneOf returns one of a few words.
func (p *Params) OneOf(name string, words ...string) string {
	return parse(p, name, "one of "+strings.Join(words, ", "), func(s string) (string, error) {
		for _, w := range words {
			if s == w {
				return s, nil
			}
		}
		return "", errors.New("unknown")
	})
}

// Err returns what was wrong with the parameters asked for so far.
func (p *Params) Err() error { return errors.Join(p.errs...) }

// common are the parameters that every case has.
type common struct {
	Size       int64         // of a file
	Random     uint64        // seed of all randomness
	Seeds      int           // how many nodes may be seeds; 0 is all
	Replicas   int           // seeds of a task
	Readers    int           // how many nodes read; 0 is all
	Sites      int           // labels that nodes are spread over; 0 is none
	Cache      int64         // of a node
	Beat       time.Duration // heartbeats
	Supernodes int
	Copies     float64       // bound on the origin's bytes, in copies of what was asked for
	Timeout    time.Duration // of the whole run
	Fault      string        // the origin's, for runs that must fail
	Uplink     float64       // of a node, in Mbit/s; 0 is no limit
	OriginUp   float64       // of the origin, in Mbit/s
	Latency    time.Duration // of each link
	Loss       float64       // of each link, in per cent
	Commit     string        // "" is that of the build
	LogLevel   string
	PoolLimit  time.Duration // until all nodes know all seeds
}

func readCommon(p *Params) common {
	return common{
		Size: p.Size("size"), Random: uint64(p.Int("rand")), Seeds: p.Int("seeds"), Replicas: p.Int("replicas"),
		Readers: p.Int("readers"), Sites: p.Int("sites"), Cache: p.Size("cache"), Beat: p.Duration("beat"),
		Supernodes: p.Int("supernodes"), Copies: p.Float("copies"), Timeout: p.Duration("timeout"),
		Fault:  p.OneOf("fault", "none", "corrupt", "refuse"),
		Uplink: p.Float("uplink"), OriginUp: p.Float("origin_uplink"), Latency: p.Duration("latency"), Loss: p.Float("loss"),
		Commit: p.text("commit"), LogLevel: p.OneOf("log", "debug", "info", "warn", "error"), PoolLimit: 60 * time.Second,
	}
}
