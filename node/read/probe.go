package read

import (
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
)

// maxProbes bounds the probes that run, and those that wait.
const maxProbes = 16

// probe asks whether a peer that failed is back.
type probe struct {
	peer peer.ID
	task content.TaskID
}

// Run probes peers until ctx ends. Without it a peer that failed once is asked
// only when all others have failed.
func (r *Filler) Run(ctx context.Context) error {
	var g errgroup.Group
	g.SetLimit(maxProbes)
	for {
		select {
		case <-ctx.Done():
			return g.Wait()
		case p := <-r.probes:
			g.Go(func() error {
				r.probe(ctx, p)
				return nil
			})
		}
	}
}

// probe asks for a header alone: any answer shows that the peer lives.
func (r *Filler) probe(ctx context.Context, p probe) {
	start := time.Now()
	body, err := r.cfg.Client.Open(ctx, p.peer, rangeread.Request{Task: p.task, NoFill: true})
	var answer *rangeread.Error
	switch {
	case err == nil:
		_, _ = body.Next(nil) // END
		_ = body.Close()
	case errors.As(err, &answer):
	case ctx.Err() != nil:
		return
	default:
		r.cfg.Health.Failure(p.peer)
		return
	}
	r.cfg.Health.Success(p.peer, time.Since(start))
}
