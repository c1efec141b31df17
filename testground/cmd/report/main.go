// Command report makes a page of tables and plots of the results of runs:
// report.md and SVG files.
//
//	go run ./testground/cmd/report -out report results
//
// Results are folders in which it looks for p2pnode.jsonl, as cmd/run and
// Testground leave them (those that Testground collects are to be unpacked).
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/p2pnode/p2pnode/testground/plan"
)

func main() {
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	fs := flag.NewFlagSet("report", flag.ContinueOnError)
	out := fs.String("out", "report", "folder for report.md and the plots")
	fs.Usage = func() {
		fmt.Fprintln(fs.Output(), "usage: report [flags] RESULTS…")
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() == 0 {
		return errors.New("name the folders with results")
	}
	var all plan.Results
	for _, dir := range fs.Args() {
		rs, err := plan.LoadResults(dir)
		if err != nil {
			return err
		}
		all = append(all, rs...)
	}
	runs := group(all)
	if len(runs) == 0 {
		return fmt.Errorf("no %s in %q", plan.ResultFile, fs.Args())
	}
	if err := os.MkdirAll(*out, 0o750); err != nil {
		return err
	}
	text, plots := page(runs)
	for name, svg := range plots {
		if err := os.WriteFile(filepath.Join(*out, name), svg, 0o600); err != nil {
			return err
		}
	}
	path := filepath.Join(*out, "report.md")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return err
	}
	fmt.Printf("%s: %d runs, %d plots\n", path, len(runs), len(plots))
	return nil
}
