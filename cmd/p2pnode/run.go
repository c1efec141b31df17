package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/p2pnode/p2pnode/node"
	"github.com/spf13/cobra"
)

// Exit codes, as the package doc explains them.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// stopLimit is how long a daemon may take to stop after a signal; it leaves
// the process time to be gone within ten seconds.
const stopLimit = 9 * time.Second

// runner is what the daemon, the supernode and get run: a Node or a
// SupernodeNode.
type runner interface {
	// Run serves until ctx ends, and returns when all it started has ended.
	Run(ctx context.Context) error
	// Ready is closed once Run serves.
	Ready() <-chan struct{}
	// Info is what the ready line says; complete after Ready.
	Info() node.Info
}

// app is one run of the command: where it writes, what environment it sees,
// and what it starts. Tests replace the parts.
type app struct {
	stdout, stderr io.Writer
	env            func(key string) (string, bool)
	newNode        func(node.Config) (runner, error)
	newSupernode   func(node.SupernodeConfig) (runner, error)
	stopLimit      time.Duration
	superuser      bool // root has its data below /var/lib

	// entered is set once a command runs: what fails before is the command
	// line's fault.
	entered bool
}

// usageError is an error in a flag, key or argument: exit code 2.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// usagef makes a usageError.
func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// run runs one command line and returns its exit code. It returns when all
// that it started has ended, except a daemon that does not stop in time.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, env func(string) (string, bool)) int {
	a := &app{
		stdout: stdout, stderr: stderr, env: env, stopLimit: stopLimit, superuser: os.Getuid() == 0,
		newNode:      func(c node.Config) (runner, error) { return node.New(c) },
		newSupernode: func(c node.SupernodeConfig) (runner, error) { return node.NewSupernode(c) },
	}
	return a.run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	a.complain(err)
	var (
		usage *usageError
		field *node.FieldError
	)
	switch {
	case errors.As(err, &usage) || !a.entered, errors.As(err, &field) && !isMultiaddr(field.Field):
		return exitUsage
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitFailed
}

// complain writes an error down.
func (a *app) complain(err error) {
	fmt.Fprintln(a.stderr, "p2pnode: "+oneLine(err.Error())+hint(err))
}

// isMultiaddr reports whether a setting is a list of multiaddrs: one that
// cannot be used is a failure, as a port in use is, and not a wrong usage.
func isMultiaddr(setting string) bool {
	switch setting {
	case "listen", "supernode", "supernode-listen", "bootstrap":
		return true
	}
	return false
}

// root builds the tree of commands.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:                "p2pnode",
		Short:              "A cooperative cache for large immutable files",
		SilenceUsage:       true,
		SilenceErrors:      true,
		DisableSuggestions: true,
		PersistentPreRun:   func(*cobra.Command, []string) { a.entered = true },
	}
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%w: see %s --help", err, c.CommandPath())
	})
	root.AddCommand(a.daemonCmd(), a.supernodeCmd(), a.getCmd(), a.prefetchCmd(), a.importCmd(), a.unpinCmd(), a.idCmd(), a.statusCmd(), a.peersCmd(), a.doctorCmd(), a.seedsCmd(),
		a.configCmd(), a.mirrorCmd(), a.genCACmd(), a.swarmCmd(), a.versionCmd())
	root.InitDefaultCompletionCmd()
	completion, _, err := root.Find([]string{"completion"})
	if err == nil {
		// Else cobra answers a shell that it does not know with help and code 0.
		completion.RunE = func(*cobra.Command, []string) error {
			return usagef("completion wants a shell: bash, fish, powershell or zsh")
		}
	}
	root.InitDefaultHelpCmd()
	if help, _, err := root.Find([]string{"help"}); err == nil {
		show := help.Run
		// Else cobra answers a command that it does not know with code 0.
		help.RunE = func(c *cobra.Command, args []string) error {
			if _, rest, err := root.Find(args); err != nil || len(rest) > 0 {
				return usagef("help: no command %q: see p2pnode --help", strings.Join(args, " "))
			}
			show(c, args)
			return nil
		}
	}
	return root
}

// oneLine joins the lines of an error text, which may quote what others sent, and
// cleans them.
func oneLine(s string) string {
	lines := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' })
	for i := range lines {
		lines[i] = clean(strings.TrimSpace(lines[i]))
	}
	return strings.Join(lines, "; ")
}

// hint says what to do about an error of the operating system on a file, or
// nothing. The node itself says it about ports and locks.
func hint(err error) string {
	switch {
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EROFS):
		return ": check the permissions, or name a place that this user can write"
	case errors.Is(err, syscall.ENOSPC):
		return ": free space on that disk"
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EEXIST):
		return ": a file is in the way, remove it or name another directory"
	}
	return ""
}
