package read

import (
	"context"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed"
)

// maxRefers is how often a fill goes where it is referred; after that it asks
// whom it would have asked.
const maxRefers = 4

// referred takes the peers that a busy source named; false where none of them is
// of use.
func (f *fill) referred(holders []peer.AddrInfo) bool {
	if f.refers++; f.refers > maxRefers {
		return false
	}
	f.holders = f.holders[:0]
	for _, h := range holders {
		if h.ID == f.cfg.Self || f.tried(h.ID) || f.unheld[h.ID] || slices.Contains(f.dead, h.ID) || slices.Contains(f.job.Path, h.ID) || f.cfg.Health.Doubtful(h.ID) {
			continue
		}
		f.cfg.Providers.Met(h)
		f.holders = append(f.holders, h.ID)
	}
	return len(f.holders) > 0
}

// mustNotFollow reports whether this node is to ask the source again, instead of
// those to whom it referred: a seed of the task, to which the others turn when
// that source is gone. If it followed one of them, it would have to refuse them.
func (f *fill) mustNotFollow() bool {
	if !f.cfg.Map.IsSeed(f.job.Task.ID) {
		return false
	}
	f.refers++
	return f.refers <= maxRefers
}

// nextHolder returns the next peer to which a source referred. It is asked for
// what it has.
func (f *fill) nextHolder() (peer.ID, bool) {
	if _, known := f.job.Meta(); !known {
		f.holders = nil
	}
	for len(f.holders) > 0 {
		p := f.holders[0]
		f.holders = f.holders[1:]
		if !f.tried(p) && !f.unheld[p] && !slices.Contains(f.dead, p) {
			f.metrics.fromHolders.Inc()
			f.holder = p
			return p, true
		}
	}
	f.holder = ""
	return "", false
}

// learn asks the source that referred for what file it is, where that is not
// known: holders are no seeds, and only what is signed is taken from them.
func (f *fill) learn(ctx context.Context, p peer.ID) error {
	if _, known := f.job.Meta(); known {
		return nil
	}
	f.ask(p)
	body, err := f.cfg.Client.Open(ctx, p, f.request(p, content.Range{}, false))
	if err != nil {
		return f.peerFailed(ctx, p, err)
	}
	defer func() { _ = body.Close() }()
	if body.Header.Size < 0 {
		f.holders = nil // its bytes come from the head alone
		return nil
	}
	if f.ours(body.Header.Meta) {
		f.job.AskHeld("") // before anybody can see what this job brings
		f.holders = nil
	}
	return f.begin(seed.Found{Meta: body.Header.Meta, CacheControl: body.Header.CacheControl, Age: body.Header.Age, Private: body.Header.Private})
}
