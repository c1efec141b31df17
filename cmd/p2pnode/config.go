package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/p2pnode/p2pnode/node"
)

func (a *app) configCmd() *cobra.Command {
	config := &cobra.Command{Use: "config", Short: "Look at a daemon's configuration", Args: noArgs, RunE: func(*cobra.Command, []string) error {
		return usagef("config wants a command: check")
	}}
	config.AddCommand(a.configCheckCmd())
	return config
}

func (a *app) configCheckCmd() *cobra.Command {
	var (
		d           daemonSettings
		url, method string
		file        size
	)
	command := &cobra.Command{
		Use:   "check",
		Short: "Check a daemon's configuration, and say what it does with a URL",
		Long: `Check a daemon's configuration: it takes the daemon's flags, variables and file,
and says the first thing that is wrong. With --url it prints the file's name in
the swarm and which rule takes a request for it. The name is made with these
settings' filter-query, before which a supernode's counts.`,
		Args: noArgs,
	}
	f := command.Flags()
	d.bind(a, f)
	f.StringVar(&url, "url", "", "`URL` to decide on")
	f.StringVar(&method, "method", "GET", "`method` of the request")
	f.Var(&file, "size", "size of the file, for rules that ask for it")
	markLocal(command, "url", "method", "size")
	command.RunE = func(cmd *cobra.Command, _ []string) error {
		set, err := a.fill(cmd)
		if err == nil {
			err = set.needDataDir(d.dataDir)
		}
		if err != nil {
			return err
		}
		cfg, err := d.config(nil)
		if err != nil {
			return err
		}
		if err := cfg.WithMembership().Validate(); err != nil {
			return set.explain(err)
		}
		if url == "" {
			fmt.Fprintf(a.stdout, "the configuration is good, with %d rules\n", len(cfg.Rules))
			return nil
		}
		known := int64(-1)
		if cmd.Flags().Changed("size") {
			known = int64(file)
		}
		verdict, err := cfg.Judge(strings.ToUpper(method), url, known)
		if err != nil {
			return usagef("url: %w", err)
		}
		a.printVerdict(verdict, len(cfg.Rules))
		return nil
	}
	return command
}

// printVerdict writes what a configuration makes of a URL.
func (a *app) printVerdict(v node.Verdict, rules int) {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	rule := "none takes it"
	if v.Rule >= 0 {
		rule = fmt.Sprintf("%d of %d", v.Rule+1, rules)
	}
	if v.BySize {
		rule += ", if the file has the size it asks for: give --size"
	}
	fmt.Fprintf(w, "task\t%s\nurl\t%s\nrule\t%s\naction\t%s\n", v.Task, v.TaskURL, rule, v.Decision.Action)
	if v.Decision.Fresh > 0 {
		fmt.Fprintf(w, "fresh\t%s\n", v.Decision.Fresh)
	}
	if v.Decision.Prefetch != "" {
		fmt.Fprintf(w, "prefetch\t%s\n", v.Decision.Prefetch)
	}
	if v.Decision.Private != "" {
		fmt.Fprintf(w, "private\t%s\n", v.Decision.Private)
	}
	_ = w.Flush() // stdout is gone, then
}
