package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/node/admin"
	"github.com/p2pnode/p2pnode/node/prefetch"
)

// transfers carries out what the admin API is asked to bring in.
type transfers struct{ *prefetch.Prefetcher }

// Prefetch implements admin.Transfers.
func (t transfers) Prefetch(ctx context.Context, r admin.PrefetchRequest, progress func(done, total int64)) (admin.Transfer, error) {
	got, err := t.Fetch(ctx, prefetch.Request(r), progress)
	return admin.Transfer(got), err
}

// Unpin implements admin.Transfers.
func (t transfers) Unpin(r admin.PrefetchRequest) (int64, error) {
	return t.Prefetcher.Unpin(prefetch.Request(r))
}

// Import implements admin.Transfers.
func (t transfers) Import(ctx context.Context, r admin.ImportRequest, progress func(done, total int64)) (admin.Transfer, error) {
	got, err := t.Prefetcher.Import(ctx, prefetch.Import(r), progress)
	return admin.Transfer(got), err
}

func (n *Node) newTransfers() transfers {
	return transfers{prefetch.New(prefetch.Config{
		Self: n.self, Files: n.files, Map: n.seeds, Peers: n.client, Health: n.seeds, Filter: n.filters.Current, Logger: n.cfg.Logger,
	})}
}

// touched hears of the files that clients read, where they are wanted whole.
func (n *Node) touched() func(url string, task content.TaskID) {
	if n.background == nil {
		return nil
	}
	return n.background.Add
}

// spoolDir is where imports wait for the check of their digests, in the data
// directory, beside the blocks that they become.
const spoolDir = "import"

// openSpool empties the spool of what a killed process has left in it.
func openSpool(dataDir string) (string, error) {
	dir := filepath.Join(dataDir, spoolDir)
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("empty %s: %w", dir, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make %s: %w", dir, err)
	}
	return dir, nil
}
