package node

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/seed/store"
)

// purgedFile holds the sum of the revocations after which the store was purged
// last.
const purgedFile = "revocations.purged"

// obey makes the node forget what revoked peers signed, now and whenever a
// revocation comes: a supernode's assignments and pools, and the blocks of those
// who are seeds no more. It returns when ctx ends.
func (n *Node) obey(ctx context.Context) error {
	news := make(chan struct{}, 1)
	wake := func() {
		select {
		case news <- struct{}{}:
		default:
		}
	}
	n.member.revoked.Store(&wake)
	path := filepath.Join(n.cfg.DataDir, purgedFile)
	if text, err := os.ReadFile(path); err == nil && string(text) == strconv.FormatUint(n.member.Sum(), 16) || errors.Is(err, fs.ErrNotExist) && n.member.Sum() == 0 {
		n.forgetSupernodes() // the map may have heard them before
	} else {
		wake()
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-news:
		}
		sum := n.member.Sum()
		n.forgetSupernodes()
		if dropped, err := n.purge(ctx); err != nil {
			n.cfg.Logger.Warn("blocks that revoked peers signed could not all be dropped; a restart tries again", "err", err)
			continue
		} else if dropped > 0 {
			n.cfg.Logger.Info("dropped blocks that revoked peers signed", "blocks", dropped)
		}
		if err := writeFile(path, []byte(strconv.FormatUint(sum, 16))); err != nil {
			n.cfg.Logger.Warn("cannot note that revocations were obeyed", "err", err)
		}
	}
}

// forgetSupernodes makes the map forget the supernodes that are not believed.
func (n *Node) forgetSupernodes() {
	forgot := false
	for _, s := range n.supernodes {
		if !n.believes(s.ID) {
			n.seeds.Forget(s.ID)
			forgot = true
		}
	}
	if forgot {
		n.filters.adopt(n.seeds.FilterQuery)
		if err := n.saveSigners(n.seeds.Signers()); err != nil {
			n.cfg.Logger.Warn("cannot save the list of known signers", "err", err)
		}
	}
}

// purge drops all blocks whose signers are not trusted (any more), and returns how
// many those were.
func (n *Node) purge(ctx context.Context) (dropped int, err error) {
	trusted := make(map[peer.ID]bool)
	for f := range n.disk.Files() {
		some := false
		for i, end := int64(0), int64(len(f.Bitmap()))*8; i < end && ctx.Err() == nil; i++ {
			if !f.Has(i) {
				continue
			}
			rec, e := f.Record(i)
			if errors.Is(e, store.ErrNotFound) {
				continue // evicted meanwhile
			}
			ok, known := trusted[rec.Signer]
			if e == nil && !known {
				ok = rec.Signer == n.self || n.trustedSigner(rec.Signer)
				trusted[rec.Signer] = ok
			}
			if e != nil || ok {
				err = errors.Join(err, e)
				continue
			}
			if e := f.Drop(i); e != nil {
				err = errors.Join(err, e)
				continue
			}
			some = true
			dropped++
		}
		if some {
			n.files.Evicted(f.Key().Task)
		}
	}
	return dropped, errors.Join(err, ctx.Err())
}
