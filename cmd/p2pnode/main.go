// Command p2pnode is a node of a cooperative cache for large immutable files:
// the daemon, a supernode, and the commands that talk to them.
//
// It turns flags, environment and a YAML file into a Config, runs what the
// Config says, and does nothing else. A setting is one word in three places:
// the flag --cache-size, the variable P2PNODE_CACHE_SIZE and the key
// cache-size; flags win over variables, variables over the file, the file over
// the defaults.
//
// Results go to stdout, one JSON line when a daemon is ready; logs and errors
// go to stderr, an error as one line that says what failed and what to do.
// Exit codes:
//
//	0    done
//	1    failed: also a multiaddr that cannot be used, a port that is taken, a
//	     directory that is locked or cannot be written
//	2    an unknown flag, key or argument, and a wrong value of any other one
//	130  interrupted
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends the context; a second one ends the process.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr, os.LookupEnv))
}
