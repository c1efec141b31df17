package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pnode/p2pnode/node/admin"
	"github.com/p2pnode/p2pnode/supernode"
	"github.com/spf13/cobra"
)

// orderCmds are the orders to a running supernode about one peer.
func (a *app) orderCmds() []*cobra.Command {
	return []*cobra.Command{
		a.orderCmd("cordon", supernode.Cordon, "Give a peer no new duties; it keeps those it has",
			"%s gets no new duties\n"),
		a.orderCmd("drain", supernode.Drain, "Take all duties from a peer; it goes on serving what it holds",
			"%s is no seed any more, once the others have its duties\n"),
		a.orderCmd("uncordon", "", "Take back cordon or drain",
			"%s gets duties like any other\n"),
	}
}

func (a *app) orderCmd(name string, order supernode.Order, short, done string) *cobra.Command {
	var dataDir string
	command := &cobra.Command{
		Use: name + " PEER", Short: short,
		Long: short + `.
The supernode keeps the order over restarts. Where there are several, each elects
the seeds of its own tasks: give the order to all of them.`,
		Args: onePeer,
	}
	command.Flags().StringVar(&dataDir, "data-dir", a.dataDir("p2pnode-supernode"), "data `directory` of the supernode, or of the daemon that embeds it")
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
		message := admin.OrderRequest{Peer: args[0], Order: string(order)}
		if err := tellSupernode(cmd.Context(), running, "/v1/orders", message, "no supernode and has none in it"); err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.stdout, done, args[0])
		return err
	}
	return command
}

// onePeer wants one argument, a peer ID.
func onePeer(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef("%s wants one peer ID: see %s --help", cmd.CommandPath(), cmd.CommandPath())
	}
	if _, err := peer.Decode(args[0]); err != nil {
		return usagef("%q is no peer ID: `p2pnode status` of the supernode lists them", args[0])
	}
	return nil
}

// tellSupernode posts a message, as JSON, to the admin face of a supernode. none
// is what a process is that knows no such path.
func tellSupernode(ctx context.Context, to running, path string, message any, none string) error {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	body, err := json.Marshal(message)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.page(path), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask %s: %w", to.Admin, err)
	}
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: to.transport()}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the supernode: %w", err)
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return fmt.Errorf("%s is %s: --data-dir names one", to.Admin, none)
	default:
		return refusal(res)
	}
}
