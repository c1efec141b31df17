package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/p2pnode/p2pnode/testground/plan"
)

// page writes the report, and the plots it shows by their file's name.
func page(runs []*oneRun) ([]byte, map[string][]byte) {
	var b bytes.Buffer
	plots := make(map[string][]byte)
	fmt.Fprintf(&b, "# Runs of the plan p2pnode\n\n")
	runTable(&b, runs)
	for _, r := range runs {
		fmt.Fprintf(&b, "\n## %s, %d instances\n\nRun `%s`.\n\n", r.name, r.n, r.id)
		checks(&b, r)
		reads(&b, r)
		figures(&b, r)
		if name, svg := completion(r); svg != nil {
			plots[name] = svg
			fmt.Fprintf(&b, "\n![completion times](%s)\n", name)
		}
		if name, svg := latencies(r); svg != nil {
			plots[name] = svg
			fmt.Fprintf(&b, "\n![first bytes](%s)\n", name)
		}
	}
	if svg := originPlot(runs); svg != nil {
		plots["origin.svg"] = svg
		fmt.Fprintf(&b, "\n## The origin against the number of readers\n\n![bytes of the origin](origin.svg)\n")
	}
	return b.Bytes(), plots
}

// runTable says what ran where, with which links.
func runTable(b *bytes.Buffer, runs []*oneRun) {
	fmt.Fprintln(b, "| case | instances | date (UTC) | commit | shaped by | node uplink, origin uplink, delay, loss | not applied | machine |")
	fmt.Fprintln(b, "|---|---|---|---|---|---|---|---|")
	for _, r := range runs {
		missing := r.node.NotApplied
		if missing == "" {
			missing = "nothing"
		}
		fmt.Fprintf(b, "| %s | %d | %s | %s | nodes: %s, origin: %s | %s, %s, %s ms, %s %% | %s | %s |\n", r.name, r.n,
			r.begun.Format("2006-01-02 15:04"), r.commit, r.node.By, r.origin.By, rateText(r.node.UplinkMbit), rateText(r.origin.UplinkMbit),
			number(r.node.LatencyMs), number(r.node.LossPct), missing, r.machine)
	}
}

func rateText(mbit float64) string {
	if mbit == 0 {
		return "no limit"
	}
	return number(mbit) + " Mbit/s"
}

// checks lists the invariants.
func checks(b *bytes.Buffer, r *oneRun) {
	failed := 0
	for _, read := range r.Reads("") {
		if read.Err != "" {
			failed++
		}
	}
	fmt.Fprintln(b, "| invariant | seen | bound | |")
	fmt.Fprintln(b, "|---|---|---|---|")
	fmt.Fprintf(b, "| failed or wrong reads | %d of %d | 0 | %s |\n", failed, len(r.Reads("")), verdict(failed == 0))
	all := r.Checks()
	for _, name := range byName(all) {
		c := all[name]
		fmt.Fprintf(b, "| %s | %s %s | %s | %s |\n", name, number(c.Got), c.Unit, number(c.Bound), verdict(c.OK))
	}
}

func verdict(ok bool) string {
	if ok {
		return "holds"
	}
	return "**broken**"
}

// reads has the percentiles of each phase, by the source of the first byte.
func reads(b *bytes.Buffer, r *oneRun) {
	fmt.Fprintln(b, "\n| reads, by source of the first byte | n | first byte p50 | p90 | p99 | whole p50 | p90 | p99 | longest |")
	fmt.Fprintln(b, "|---|---|---|---|---|---|---|---|---|")
	for _, phase := range r.phases() {
		bySource := make(map[string][]plan.ReadRecord)
		for _, read := range r.Reads(phase) {
			bySource["all"] = append(bySource["all"], read)
			if read.Source != "" {
				bySource[read.Source] = append(bySource[read.Source], read)
			}
		}
		for _, source := range byName(bySource) {
			f, w := sorted(bySource[source], first), sorted(bySource[source], whole)
			fmt.Fprintf(b, "| %s: %s | %d |", phase, source, len(f))
			for _, q := range []float64{0.5, 0.9, 0.99} {
				fmt.Fprintf(b, " %s ms |", number(percentile(f, q)))
			}
			for _, q := range []float64{0.5, 0.9, 0.99, 1} {
				fmt.Fprintf(b, " %s ms |", number(percentile(w, q)))
			}
			fmt.Fprintln(b)
		}
	}
}

// figures has the metrics of the instances.
func figures(b *bytes.Buffer, r *oneRun) {
	values := make(map[string][]float64)
	units := make(map[string]string)
	for _, line := range r.Results {
		if line.Metric != nil {
			values[line.Metric.Name] = append(values[line.Metric.Name], line.Metric.Value)
			units[line.Metric.Name] = line.Metric.Unit
		}
	}
	if len(values) == 0 {
		return
	}
	fmt.Fprintln(b, "\n| figure | instances | least | median | most | sum |")
	fmt.Fprintln(b, "|---|---|---|---|---|---|")
	for _, name := range byName(values) {
		v := values[name]
		slices.Sort(v)
		fmt.Fprintf(b, "| %s, %s | %d | %s | %s | %s | %s |\n", strings.ReplaceAll(name, "_", " "), units[name], len(v),
			number(v[0]), number(percentile(v, 0.5)), number(v[len(v)-1]), number(r.sum(name)))
	}
	if bound := r.bound(); bound > 0 && r.name == "fanout" {
		last := percentile(sorted(r.Reads("cold"), whole), 1)
		fmt.Fprintf(b, "\nThe last reader had the file after %s ms, %s times the bound max(F/us, F/dmin, NF/(us+Σu)) of %s ms.\n",
			number(last), number(last/bound), number(bound))
	}
}

// completion plots the share of readers that have finished against time.
func completion(r *oneRun) (string, []byte) {
	if r.name != "fanout" && r.name != "cold-start" {
		return "", nil
	}
	p := plot{title: fmt.Sprintf("%s, %d readers", r.name, len(r.Reads("cold"))), x: "ms since the read began", y: "share of the readers"}
	p.cdf("whole", sorted(r.Reads("cold"), whole))
	p.cdf("first byte", sorted(r.Reads("cold"), first))
	if bound := r.bound(); bound > 0 && r.name == "fanout" {
		p.vertical("bound", bound)
	}
	return r.id + "-completion.svg", p.svg()
}

// latencies plots the distribution of first bytes by source.
func latencies(r *oneRun) (string, []byte) {
	if r.name == "fanout" || r.name == "cold-start" {
		return "", nil
	}
	bySource := make(map[string][]plan.ReadRecord)
	for _, read := range r.Reads("") {
		if read.Source != "" && read.Phase != "warm" && read.Phase != "probe" {
			bySource[read.Source] = append(bySource[read.Source], read)
		}
	}
	p := plot{title: r.name + ", first bytes", x: "ms", y: "share of the reads", logX: true}
	for _, source := range byName(bySource) {
		p.cdf("from "+source, sorted(bySource[source], first))
	}
	return r.id + "-latency.svg", p.svg()
}

// originPlot plots what the origin sent against the number of readers, for the
// cases where all read one file.
func originPlot(runs []*oneRun) []byte {
	p := plot{title: "bytes of the origin in copies of what it was asked for", x: "readers", y: "copies", fromZero: true}
	most := 0.0
	for _, name := range []string{"cold-start", "fanout"} {
		var points [][2]float64
		for _, r := range runs {
			unique := r.sum("origin_unique_bytes")
			if r.name != name || unique == 0 {
				continue
			}
			readers := float64(len(r.Reads("cold")))
			points = append(points, [2]float64{readers, r.sum("origin_bytes") / unique})
			most = max(most, readers)
		}
		p.points(name, points)
	}
	if most == 0 {
		return nil
	}
	p.line("each byte once", [][2]float64{{0, 1}, {most, 1}})
	return p.svg()
}
