package node

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/p2pnode/p2pnode/protocols/heartbeat"
)

// poolWait is how long a node that starts waits for a pool before it counts as
// ready without one.
const poolWait = 5 * time.Second

// reachWait is how long a read for a client of this node looks for sources that
// it has lost: a peer that moved is connected again within three seconds, mostly.
const reachWait = 10 * time.Second

// emptyPoolWait is how long after a supernode's first answer a node waits for
// its pool: a swarm without seeds has none.
const emptyPoolWait = 500 * time.Millisecond

// Ready is closed once Run serves and the node has a seed pool, or has tried to
// get one for 5 s.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Run serves until ctx ends or a part fails, then says goodbye to the supernodes
// and drains: the faces first, the swarm after them, the store last. It returns when all has ended; nil where
// ctx ended it.
func (n *Node) Run(ctx context.Context) error {
	defer n.close()
	if err := n.info.announce(n.cfg.DataDir); err != nil {
		return err
	}
	defer withdraw(n.cfg.DataDir)
	n.loadSigners()
	// The swarm's parts outlive the faces, which still read through them.
	swarm, stopSwarm := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSwarm()
	parts, swarm := errgroup.WithContext(swarm)
	supernode, stopSupernode := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSupernode()
	supernodeParts, supernode := errgroup.WithContext(supernode)
	if n.embedded != nil {
		supernodeParts.Go(func() error { return n.embedded.run(supernode) })
	}
	faces, facesCtx := errgroup.WithContext(ctx)
	if n.background != nil {
		parts.Go(func() error { return n.background.Run(swarm) })
	}
	for _, run := range n.swarmParts() {
		parts.Go(func() error { return run(swarm) })
	}
	for _, run := range n.faces() {
		faces.Go(func() error { return run(facesCtx) })
	}
	faces.Go(func() error { // a part of the swarm that fails ends the faces too
		select {
		case <-facesCtx.Done():
			return nil
		case <-swarm.Done():
		case <-supernode.Done():
		}
		return errors.New("a part of the node has failed")
	})
	for _, h := range n.files.Current() {
		n.provide(h)
	}
	parts.Go(func() error { return n.keepPools(swarm) })
	parts.Go(func() error { n.becomeReady(swarm); return nil })
	defer context.AfterFunc(facesCtx, n.control.Leave)()
	err := faces.Wait()
	stopSwarm()
	if e := parts.Wait(); e != nil {
		err = e
	}
	stopSupernode()
	if e := supernodeParts.Wait(); e != nil {
		err = e
	}
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}

// swarmParts are what runs below the faces.
func (n *Node) swarmParts() []func(context.Context) error {
	parts := []func(context.Context) error{
		n.server.Run, n.client.Run, n.filler.Run, n.providers.Run, n.control.Run, n.disk.Run, n.announce,
		func(ctx context.Context) error {
			return n.host.Run(ctx, func() []peer.AddrInfo { return wanted(n.seeds.Pool(), n.host.Met(), n.self, n.supernodes) })
		},
	}
	if len(n.cfg.Uplink.Schedule) > 0 {
		parts = append(parts, n.followSchedule)
	}
	if n.infersSite() {
		parts = append(parts, n.settle)
	}
	if n.member != nil {
		parts = append(parts, func(ctx context.Context) error { return n.member.run(ctx, n.host, n.supernodes) }, n.obey)
	}
	return parts
}

// becomeReady closes ready when it is time.
func (n *Node) becomeReady(ctx context.Context) {
	defer func() {
		if ctx.Err() == nil {
			close(n.ready)
		}
	}()
	deadline := time.NewTimer(poolWait)
	defer deadline.Stop()
	look := time.NewTicker(emptyPoolWait / 10)
	defer look.Stop()
	var answered time.Time
	for {
		select {
		case <-n.control.Ready():
			return
		case now := <-look.C:
			if answered.IsZero() && n.answered() {
				answered = now
			}
			if !answered.IsZero() && now.Sub(answered) > emptyPoolWait {
				n.cfg.Logger.Info("the swarm has no seeds yet")
				return
			}
		case <-deadline.C:
			n.cfg.Logger.Warn("no supernode answers yet: serving without a seed pool, and trying on")
			return
		case <-ctx.Done():
			return
		}
	}
}

// answered reports whether a supernode has acknowledged a heartbeat.
func (n *Node) answered() bool {
	for _, s := range n.control.Status() {
		if s.Epoch != 0 {
			return true
		}
	}
	return false
}

func (n *Node) readyError() error {
	select {
	case <-n.ready:
		return nil
	default:
		return errors.New("no seed pool yet")
	}
}

// close ends what open made, in the other direction.
func (n *Node) close() {
	if n.files != nil {
		_ = n.files.Close()
	}
	if n.origin != nil {
		n.origin.CloseIdle()
	}
	if n.host != nil {
		logClose(n.cfg, "host", n.host.Close())
	}
	if n.embedded != nil {
		logClose(n.cfg, "supernode", n.embedded.host.Close())
	}
	for _, l := range []net.Listener{n.proxyListener, n.adminListener} {
		if l != nil {
			_ = l.Close() // its server may have closed it
		}
	}
	if n.disk != nil {
		logClose(n.cfg, "store", n.disk.Close())
	}
}

func logClose(cfg Config, part string, err error) {
	if err != nil {
		cfg.Logger.Warn("part did not close well", "part", part, "err", err)
	}
}

// beat is what supernodes are told of this node.
func (n *Node) beat() heartbeat.Beat {
	return heartbeat.Beat{
		Addrs: n.announced(), Reachability: n.reachability(), Site: n.standsAt().name, Seed: n.cfg.Seed, Version: n.cfg.Version,
		Capacity: n.disk.Capacity(), Free: n.disk.Free(), Load: n.load(time.Now()),
	}
}
