// Command run runs cases of the plan on this machine, with nothing but Go: no
// Testground daemon, no Docker.
//
//	go run ./testground/cmd/run -instances 64 -set size=16MiB -set uplink=50 cold-start fanout
//
// With -sync it is the sync service that Testground's runner local:exec needs.
//
// Results go to a folder for the report; see testground/README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/p2pnode/p2pnode/testground/plan"
	"github.com/p2pnode/p2pnode/testground/runner"
)

func main() {
	if plan.IsInstance() {
		plan.Main()
		return
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		if errors.Is(err, errUsage) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

// errUsage is wrapped by errors of flags and arguments.
var errUsage = errors.New("see -help")

// options are the flags.
type options struct {
	manifest, out string
	instances     int
	set           map[string]string
	verbose, sync bool
	cases         []string
}

func parse(args []string) (options, error) {
	o := options{set: make(map[string]string)}
	fs := flag.NewFlagSet("run", flag.ContinueOnError)
	fs.StringVar(&o.manifest, "manifest", "", "manifest.toml of the plan; default testground/manifest.toml, or that of this folder")
	fs.StringVar(&o.out, "out", "results", "folder for the results")
	fs.IntVar(&o.instances, "instances", 0, "instances of each case, 0 for the manifest's default; the first is the origin")
	fs.BoolVar(&o.verbose, "v", false, "print what instances say")
	fs.BoolVar(&o.sync, "sync", false, fmt.Sprintf("run no case, but the sync service for Testground's own runners, on port %d, until interrupted", runner.SyncPort))
	fs.Func("set", "a parameter as NAME=VALUE; may be repeated", func(s string) error {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return errors.New("want NAME=VALUE")
		}
		o.set[name] = value
		return nil
	})
	fs.Usage = func() {
		fmt.Fprintln(fs.Output(), "usage: run [flags] CASE…")
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		return o, fmt.Errorf("%w: %w", err, errUsage)
	}
	if o.cases = fs.Args(); (len(o.cases) == 0) != o.sync {
		if o.sync {
			return o, fmt.Errorf("-sync runs no cases: %w", errUsage)
		}
		return o, fmt.Errorf("no case is named: %w", errUsage)
	}
	if o.manifest == "" {
		o.manifest = "manifest.toml"
		if _, err := os.Stat("testground/manifest.toml"); err == nil {
			o.manifest = "testground/manifest.toml"
		}
	}
	return o, nil
}

func run(args []string) error {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.sync {
		port, end, err := runner.StartSync(runner.SyncPort)
		if err != nil {
			return err
		}
		defer end()
		fmt.Printf("sync service on port %d\n", port)
		<-ctx.Done()
		return nil
	}
	m, err := runner.LoadManifest(o.manifest)
	if err != nil {
		return err
	}
	if _, set := o.set["commit"]; !set {
		o.set["commit"] = commit(ctx, filepath.Dir(o.manifest))
	}
	var failed []string
	for _, name := range o.cases {
		if err := runCase(ctx, m, name, o); err != nil {
			fmt.Fprintf(os.Stderr, "FAILED  %s: %v\n", name, err)
			failed = append(failed, name)
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(failed, ", "))
	}
	return nil
}

// runCase runs one case and says where its results are.
func runCase(ctx context.Context, m runner.Manifest, name string, o options) error {
	c, err := m.Case(name)
	if err != nil {
		return err
	}
	params, err := c.Values(o.set)
	if err != nil {
		return err
	}
	n := o.instances
	if n == 0 {
		n = c.Instances.Default
	}
	if n < c.Instances.Min || n > c.Instances.Max {
		return fmt.Errorf("%d instances: case %s has from %d to %d", n, name, c.Instances.Min, c.Instances.Max)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r := runner.Run{
		Plan: m.Name, Case: name, ID: name + "-" + time.Now().UTC().Format("20060102T150405.000"), Binary: self,
		Instances: n, Params: params, OutDir: o.out,
	}
	if o.verbose {
		r.Log = func(s string) { fmt.Fprintln(os.Stderr, s) }
	}
	if limit, err := time.ParseDuration(params["timeout"]); err == nil {
		r.Limit = limit + time.Minute // instances end by themselves before
	}
	begun := time.Now()
	if err := r.Do(ctx); err != nil {
		return fmt.Errorf("%w\nwhat there is of results and logs is in %s", err, r.Outputs())
	}
	fmt.Printf("passed  %s with %d instances in %s: %s\n", name, n, time.Since(begun).Round(time.Millisecond), r.Outputs())
	return nil
}

// commit returns the tree's revision, with a plus sign where it was changed;
// empty where there is no git.
func commit(ctx context.Context, dir string) string {
	rev, err := exec.CommandContext(ctx, "git", "-C", dir, "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return ""
	}
	text := strings.TrimSpace(string(rev))
	if changed, err := exec.CommandContext(ctx, "git", "-C", dir, "status", "--porcelain").Output(); err != nil || len(changed) > 0 {
		text += "+"
	}
	return text
}
