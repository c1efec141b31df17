package node

import (
	"context"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/protocols/rangeread"
)

// counted counts as demand what a handler sends to other peers.
type counted struct {
	rangeread.Handler
	node *Node
}

// Serve implements rangeread.Handler.
func (c counted) Serve(ctx context.Context, from peer.ID, req rangeread.Request, a *rangeread.Answer) error {
	err := c.Handler.Serve(ctx, from, req, a)
	if n := a.Sent(); n > 0 {
		c.node.control.Served(req.Task, from, n)
	}
	return err
}
