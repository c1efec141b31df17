package main

import "testing"

// short are parameters that make a case quick: heartbeats twice as often, and
// waits that are multiples of them.
func short(set map[string]string) map[string]string {
	out := map[string]string{"beat": "500ms"}
	for k, v := range set {
		out[k] = v
	}
	return out
}

func TestLatency(t *testing.T) {
	rs, err := runCase(t, "latency", instances, short(map[string]string{"size": "16MiB"}))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(rs.Reads("small")); n != (instances-2)*100 {
		t.Errorf("%d small reads, want 100 at each of %d nodes", n, instances-2)
	}
	mustCheck(t, rs, "supernode messages a read", "origin bytes")
}

func TestChurn(t *testing.T) {
	for _, death := range []string{"reset", "silent"} {
		t.Run(death, func(t *testing.T) {
			rs, err := runCase(t, "churn", instances, short(map[string]string{"death": death, "up": "1s", "down": "500ms", "duration": "4s"}))
			if err != nil {
				t.Fatal(err)
			}
			deaths := 0.0
			for _, n := range rs.Metric("deaths") {
				deaths += n
			}
			if deaths < 2 || len(rs.Reads("churn")) < 10 {
				t.Errorf("%g deaths, %d reads: that is no churn", deaths, len(rs.Reads("churn")))
			}
			mustCheck(t, rs, "origin bytes")
		})
	}
}

func TestSupernodeOutage(t *testing.T) {
	rs, err := runCase(t, "supernode-outage", instances, short(map[string]string{"outage": "2500ms"}))
	if err != nil {
		t.Fatal(err)
	}
	for _, phase := range []string{"before", "outage", "late in the outage", "back"} {
		if n := len(rs.Reads(phase)); n != instances-1 {
			t.Errorf("%d reads %s, want %d", n, phase, instances-1)
		}
	}
	if n := len(rs.Metric("supernodes_back")); n != 1 {
		t.Errorf("the supernodes came back %d times, want once", n)
	}
	mustCheck(t, rs, "origin bytes")
}

func TestSeedLoss(t *testing.T) {
	rs, err := runCase(t, "seed-loss", instances, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(rs.Metric("deaths")); n != 1 {
		t.Errorf("%d seeds died, want 1", n)
	}
	if n := len(rs.Reads("loss")); n != instances-2 {
		t.Errorf("%d reads, want %d", n, instances-2)
	}
	mustCheck(t, rs, "origin bytes", "copies of one byte")
}

func TestEdgeSites(t *testing.T) {
	rs, err := runCase(t, "edge-sites", instances, map[string]string{"nodes": "4", "crossings": "1.1"})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(rs.Metric("site_copies_later")); n != instances-1 {
		t.Errorf("%d sites, want %d", n, instances-1)
	}
	mustCheck(t, rs, "site crossings", "origin bytes")
}

func TestManyTasks(t *testing.T) {
	rs, err := runCase(t, "many-tasks", instances, map[string]string{"reads": "200"})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[int]bool)
	for _, r := range rs.Reads("zipf") {
		seen[r.File] = true
	}
	// More than the caches of all nodes hold.
	if held := (instances - 1) * 64; len(seen) < held {
		t.Errorf("%d tasks were read, fewer than the %d that fit into all caches", len(seen), held)
	}
	mustCheck(t, rs, "cache", "origin bytes")
}
