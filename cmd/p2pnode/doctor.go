package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/spf13/cobra"

	"github.com/p2pnode/p2pnode/node"
)

func (a *app) doctorCmd() *cobra.Command {
	var (
		dataDir string
		raw     bool
	)
	command := &cobra.Command{
		Use:   "doctor [PEER]",
		Short: "Explain how a running daemon is reached, and what to do about it",
		Long: `Explain how a running daemon is reached: what its NAT does, its relays, whether
UDP passes, when and how soon its supernodes answered, its clock beside theirs,
its disk, and the MTU to them; of a PEER, how it is connected, and why not
directly. Exits with 1 where something is to be done.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("unexpected argument %q: doctor takes one peer ID", args[1])
			}
			return nil
		},
	}
	command.Flags().StringVar(&dataDir, "data-dir", a.dataDir("p2pnode"), "data `directory` of the daemon")
	toggleVar(command.Flags(), &raw, "json", false, "print the findings as JSON")
	markLocal(command, "json")
	command.RunE = func(cmd *cobra.Command, args []string) error {
		set, err := a.fill(cmd)
		if err == nil {
			err = set.needDataDir(dataDir)
		}
		if err != nil {
			return err
		}
		var to peer.ID
		if len(args) == 1 {
			if to, err = peer.Decode(args[0]); err != nil {
				return usagef("%q is no peer ID: %w", args[0], err)
			}
		}
		daemon, err := findDaemon(cmd.Context(), dataDir)
		if err != nil {
			return err
		}
		body, err := adminGet(cmd.Context(), daemon, "/v1/status")
		if err != nil {
			return err
		}
		var status node.Status
		if err := json.Unmarshal(body, &status); err != nil {
			return fmt.Errorf("read %s/v1/status: %w", daemon.Admin, err)
		}
		return a.findings(node.Diagnose(status, node.ThisMachine(status), to), raw)
	}
	return command
}

// findings prints what was found; problems are an error.
func (a *app) findings(all []node.Finding, raw bool) error {
	problems := 0
	for _, f := range all {
		if f.Problem {
			problems++
		}
	}
	if raw {
		text, err := json.Marshal(all)
		if err == nil {
			err = a.printJSON(text)
		}
		if err != nil {
			return err
		}
	} else {
		for _, f := range all {
			mark := "ok "
			if f.Problem {
				mark = "!! "
			}
			fmt.Fprintf(a.stdout, "%s %-12s %s\n", mark, f.Check, clean(f.Says))
			if f.Do != "" {
				fmt.Fprintf(a.stdout, "    %-12s %s\n", "", clean(f.Do))
			}
		}
	}
	switch problems {
	case 0:
		return nil
	case 1:
		return errors.New("one problem: see above what to do")
	}
	return fmt.Errorf("%d problems: see above what to do", problems)
}
