package main

import (
	"flag"
	"strings"
	"testing"
)

var strict = flag.Bool("strict", false, "hold the origin to one copy of each byte even where a node got no processor for a second")

// once are the parameters of the strict bound where it is asked for.
func once() map[string]string {
	if *strict {
		return map[string]string{"copies": "1"}
	}
	return nil
}

// instances of a case in these tests: one has the origin and the supernodes.
const instances = 8

func TestColdStart(t *testing.T) {
	rs, err := runCase(t, "cold-start", instances, once())
	if err != nil {
		t.Fatal(err)
	}
	if n := len(rs.Reads("cold")); n != instances-1 {
		t.Errorf("%d reads, want %d", n, instances-1)
	}
	mustCheck(t, rs, "origin bytes")
}

func TestFanout(t *testing.T) {
	rs, err := runCase(t, "fanout", instances, once())
	if err != nil {
		t.Fatal(err)
	}
	var bytes, fromOrigin int64
	for _, r := range rs.Reads("cold") {
		bytes += r.Len
		fromOrigin += r.Origin
	}
	if want := int64(instances-1) * 4 << 20; bytes != want {
		t.Errorf("the nodes read %d bytes, want %d", bytes, want)
	}
	if fromOrigin > 4<<20 {
		t.Errorf("%d bytes came from the origin by the readers' own account, more than the file has", fromOrigin)
	}
	mustCheck(t, rs, "origin bytes")
}

// TestControls runs cases that must fail, each for its own reason: a run that
// cannot fail proves nothing.
func TestControls(t *testing.T) {
	for name, c := range map[string]struct {
		set  map[string]string
		want string
	}{
		"a wrong byte":            {map[string]string{"fault": "corrupt"}, "byte 2097152 is wrong"},
		"an origin that refuses":  {map[string]string{"fault": "refuse"}, "read of file 0"},
		"a bound that is too low": {map[string]string{"copies": "0.5"}, "invariant broken: origin bytes"},
		"a bad parameter":         {map[string]string{"size": "big"}, `parameter size="big"`},
		"no time":                 {map[string]string{"timeout": "1ms"}, "longer than 1ms"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := runCase(t, "fanout", instances, c.set)
			if err == nil {
				t.Fatal("the run passed")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("the run failed by %v, want %q in it", err, c.want)
			}
		})
	}
}

// TestLinksSaid: what a runner cannot do to a link stands in the results of
// every instance, and what it does is done.
func TestLinksSaid(t *testing.T) {
	rs, err := runCase(t, "cold-start", 3, map[string]string{"latency": "25ms", "loss": "1"})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, r := range rs {
		if r.Run == nil {
			continue
		}
		n++
		if l := r.Run.Links; l.By != "user-space" || l.LatencyMs != 25 || !strings.Contains(l.NotApplied, "loss of 1 %") {
			t.Errorf("instance %d has links %+v", r.Instance, l)
		}
	}
	if n != 3 {
		t.Errorf("%d instances say how their links are, want 3", n)
	}
	peer := 0
	for _, r := range rs.Reads("cold") {
		if r.Source == "peer" {
			peer++
			if r.FirstMs < 50 {
				t.Errorf("the first byte came from a peer in %.1f ms over a round trip of 50 ms", r.FirstMs)
			}
		}
	}
	t.Logf("%d of the reads were from peers", peer)
}
