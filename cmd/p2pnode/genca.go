package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/p2pnode/p2pnode/node"
	"github.com/spf13/cobra"
)

func (a *app) genCACmd() *cobra.Command {
	var dataDir string
	command := &cobra.Command{
		Use:   "gen-ca [HOST...]",
		Short: "Make the certificate authority for --intercept",
		Long: `Make the certificate authority with which a daemon opens the HTTPS of the hosts
of its --intercept: ca.pem, which the proxy's clients have to trust, and ca.key,
which stays on this machine. Where hosts are listed (names, *.name, addresses)
it can vouch for no others but names below them, whoever gets hold of the key: list them.
An authority that is there is not replaced.`,
	}
	command.Flags().StringVar(&dataDir, "data-dir", a.dataDir("p2pnode"), "`directory` for the two files, the daemon's own")
	command.RunE = func(cmd *cobra.Command, hosts []string) error {
		set, err := a.fill(cmd)
		if err == nil {
			err = set.needDataDir(dataDir)
		}
		if err != nil {
			return err
		}
		cert, key, err := node.GenerateCA(dataDir, hosts)
		switch {
		case errors.Is(err, fs.ErrExist):
			return fmt.Errorf("%w: an authority is there, which clients may trust: move its two files away, or name another --data-dir", err)
		case errors.Is(err, node.ErrHost):
			return usagef("%w", err)
		case err != nil:
			return err
		}
		fmt.Fprintf(a.stdout, "%s: for the clients to trust\n%s: for the daemon alone\n", cert, key)
		if len(hosts) == 0 {
			fmt.Fprintln(a.stderr, "p2pnode: this authority can vouch for any host: list the hosts to limit it")
		}
		return nil
	}
	return command
}
