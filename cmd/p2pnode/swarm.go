package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/p2pnode/p2pnode/node"
	"github.com/p2pnode/p2pnode/node/admin"
)

// swarmCmd is what an operator does with the swarm key.
func (a *app) swarmCmd() *cobra.Command {
	command := &cobra.Command{
		Use: "swarm", Short: "Make a closed swarm, and let machines into it",
		Long: `Make a closed swarm, and let machines into it. Its key is needed for these
commands alone: keep it away from the machines of the swarm.`,
		Args: noArgs, RunE: func(*cobra.Command, []string) error {
			return usagef("swarm wants a command: init, id, token or revoke")
		},
	}
	command.AddCommand(a.swarmInitCmd(), a.swarmIDCmd(), a.swarmTokenCmd(), a.swarmRevokeCmd())
	return command
}

// swarmDir declares --swarm-dir and returns what checks and reads it.
func (a *app) swarmDir(command *cobra.Command) (dir *string, fill func() error) {
	dir = command.Flags().String("swarm-dir", a.dataDir("p2pnode-swarm"), "`directory` of the swarm key")
	return dir, func() error {
		if _, err := a.fill(command); err != nil {
			return err
		}
		if *dir == "" {
			return usagef("name the directory of the swarm key with --swarm-dir")
		}
		return nil
	}
}

func (a *app) swarmInitCmd() *cobra.Command {
	command := &cobra.Command{
		Use: "init", Short: "Make a swarm key", Args: noArgs,
		Long: `Make a swarm key, swarm.key, and print the swarm's public identity. Who has the
key decides who is a member. One that is there is not replaced.`,
	}
	dir, fill := a.swarmDir(command)
	command.RunE = func(*cobra.Command, []string) error {
		if err := fill(); err != nil {
			return err
		}
		id, err := node.InitSwarm(*dir)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%w: that swarm may have members: name another --swarm-dir", err)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.stdout, id)
		return err
	}
	return command
}

func (a *app) swarmIDCmd() *cobra.Command {
	command := &cobra.Command{Use: "id", Short: "Print the swarm's public identity", Args: noArgs}
	dir, fill := a.swarmDir(command)
	command.RunE = func(*cobra.Command, []string) error {
		if err := fill(); err != nil {
			return err
		}
		id, err := node.SwarmIdentity(*dir)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.stdout, id)
		return err
	}
	return command
}

// uses is a flag value: a number of machines, or many.
type uses uint32

// Set parses a whole number above 0, or many.
func (v *uses) Set(s string) error {
	if s == "many" {
		*v = 0
		return nil
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is neither a whole number above 0 nor many", s)
	}
	*v = uses(n)
	return nil
}

func (v *uses) String() string {
	if *v == 0 {
		return "many"
	}
	return strconv.FormatUint(uint64(*v), 10)
}

// Type is the value's name in the help text.
func (*uses) Type() string { return "number|many" }

func (a *app) swarmTokenCmd() *cobra.Command {
	command := &cobra.Command{
		Use: "token", Short: "Make a join secret", Args: noArgs,
		Long: `Make a join secret, for the --join of a daemon or a supernode, and print it alone
on stdout. With --role reader or seed a daemon exchanges it at a supernode for a
certificate. Several supernodes count --uses together, by the members that connect to them.
With --role supernode it is made for one --peer, whose certificate it is.`,
	}
	cfg := node.TokenConfig{}
	n := uses(1)
	f := command.Flags()
	f.StringVar(&cfg.Role, "role", "seed", "reader (reads, and shares what it has read), seed (also reads origins for others) or supernode")
	f.StringVar(&cfg.Peer, "peer", "", "`ID` of the supernode, as p2pnode id prints it; for --role supernode")
	f.Var(&n, "uses", "how many machines may use it")
	f.DurationVar(&cfg.Expires, "expires", 0, "how long it can be used (default 24h); of a supernode how long it is one (default a year)")
	f.DurationVar(&cfg.Lifetime, "lifetime", node.DefaultLifetime, "how long a certificate lives; nodes renew theirs")
	dir, fill := a.swarmDir(command)
	command.RunE = func(*cobra.Command, []string) error {
		if err := fill(); err != nil {
			return err
		}
		cfg.Uses = uint32(n)
		s, err := node.NewJoinSecret(*dir, cfg)
		if err != nil {
			return err
		}
		if s.Token != "" {
			fmt.Fprintf(a.stderr, "p2pnode: token %s of swarm %s, until %s\n", s.Token, s.Swarm, s.Expires.UTC().Format(time.RFC3339))
		}
		_, err = fmt.Fprintln(a.stdout, s.Secret)
		return err
	}
	return command
}

func (a *app) swarmRevokeCmd() *cobra.Command {
	var before string
	command := &cobra.Command{
		Use: "revoke PEER|TOKEN", Short: "Take back a membership, or all got with a token",
		Long: `Take back the membership of a peer, or of all who joined with a token. It prints a
revocation, which one supernode has to be told: p2pnode supernode revoke.
Members hear of it within a heartbeat. Without --before the peer, or the token,
is out for good.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("%s wants one peer ID or token ID", cmd.CommandPath())
			}
			return nil
		},
	}
	command.Flags().StringVar(&before, "before", "", "only certificates issued before this `time`, such as 2026-11-23T12:00:00Z: what was cleaned since may join anew")
	dir, fill := a.swarmDir(command)
	command.RunE = func(_ *cobra.Command, args []string) error {
		if err := fill(); err != nil {
			return err
		}
		var at time.Time
		if before != "" {
			var err error
			if at, err = time.Parse(time.RFC3339, before); err != nil {
				return usagef("--before %q is no time: write one like 2026-11-23T12:00:00Z", before)
			}
		}
		text, err := node.Revoke(*dir, args[0], at)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.stdout, text)
		return err
	}
	return command
}

// supernodeRevokeCmd tells a running supernode of a revocation.
func (a *app) supernodeRevokeCmd() *cobra.Command {
	var dataDir string
	command := &cobra.Command{
		Use: "revoke REVOCATION", Short: "Spread a revocation that swarm revoke has made",
		Long: `Spread a revocation that swarm revoke has made. The supernode keeps it and tells
its members with each heartbeat. Supernodes do not tell one another: tell all.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("%s wants one revocation, as `p2pnode swarm revoke` prints it", cmd.CommandPath())
			}
			return nil
		},
	}
	command.Flags().StringVar(&dataDir, "data-dir", a.dataDir("p2pnode-supernode"), "data `directory` of the supernode")
	command.RunE = func(cmd *cobra.Command, args []string) error {
		set, err := a.fill(cmd)
		if err == nil {
			err = set.needDataDir(dataDir)
		}
		if err != nil {
			return err
		}
		running, err := findDaemon(cmd.Context(), dataDir)
		if err != nil {
			return err
		}
		return tellSupernode(cmd.Context(), running, "/v1/revocations", admin.RevokeRequest{Revocation: args[0]}, "no supernode of a closed swarm")
	}
	return command
}
