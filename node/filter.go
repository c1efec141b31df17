package node

import (
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/p2pnode/p2pnode/internal/content"
)

// filterFile keeps the query filter of the swarm: what a node holds has the same
// name after a restart, also before a supernode answers.
const filterFile = "filter-query.json"

// maxFormerFilters bounds the filters that a seed still goes by for peers that
// have not heard of the present one; the oldest is forgotten.
const maxFormerFilters = 4

// filters is the query filter that decides the names of files: the one that the
// supernodes publish, else the node's own. It is safe for concurrent use.
type filters struct {
	own     content.Filter
	log     *slog.Logger
	current atomic.Pointer[content.Filter]

	mu     sync.Mutex       // guards the following, and the writing of current
	swarm  []string         // what the supernodes say, or said before the restart
	former []content.Filter // the latest first
}

// newFilters takes what filterFile holds for what the supernodes say until they do.
func newFilters(cfg Config) *filters {
	f := &filters{own: content.NewFilter(cfg.FilterQuery), log: cfg.Logger}
	f.current.Store(&f.own)
	text, err := os.ReadFile(filepath.Join(cfg.DataDir, filterFile))
	if errors.Is(err, os.ErrNotExist) {
		return f
	}
	if err == nil {
		err = f.load(text)
	}
	if err != nil {
		f.log.Warn("the swarm's query filter cannot be read, going on with this node's until a supernode answers", "err", err)
	}
	return f
}

// load takes in what save wrote.
func (f *filters) load(text []byte) error {
	var names []string
	if err := json.Unmarshal(text, &names); err != nil {
		return err
	}
	f.adopt(func() []string { return names })
	return nil
}

// Current returns the filter by which files are named. Its names are shared and
// not to be changed.
func (f *filters) Current() content.Filter { return *f.current.Load() }

// ByVersion returns the filter of a version; false where it is neither the present
// one nor one of the last few of this process.
func (f *filters) ByVersion(version uint32) (content.Filter, bool) {
	if now := f.Current(); now.Version == version {
		return now, true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, old := range f.former {
		if old.Version == version {
			return old, true
		}
	}
	return content.Filter{}, false
}

// Swarm returns what the supernodes say; nil where they say nothing.
func (f *filters) Swarm() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.swarm
}

// adopt takes in what the supernodes say, as now returns it, which several may ask
// at a time; no names: nothing. One that filters a credential is not used: files
// would be served to those who have none.
func (f *filters) adopt(now func() []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := now() // under mu: the last who adopts has asked last
	if slices.Equal(names, f.swarm) {
		return
	}
	f.swarm = names
	next := f.own
	switch bad := checkFilter(names); {
	case bad != nil:
		f.log.Warn("the swarm's filter-query is not used, so that nothing is shared with those who use it", "parameter", bad.Value, "reason", bad.Rule)
	case len(names) > 0:
		next = content.NewFilter(names)
	}
	if len(names) > 0 && len(f.own.Query) > 0 && next.Version != f.own.Version {
		f.log.Warn("filter-query is set on this node, and differs from the supernode's, which counts", "own", f.own.Query, "swarm", names)
	}
	old := f.Current()
	if next.Version == old.Version {
		return
	}
	f.former = append([]content.Filter{old}, f.former[:min(len(f.former), maxFormerFilters-1)]...)
	f.current.Store(&next)
	f.log.Info("files are named by another query filter from now on", "filter_query", next.Query)
}

// save keeps what the supernodes say over a restart.
func (f *filters) save(dataDir string, names []string) error {
	path := filepath.Join(dataDir, filterFile)
	if len(names) == 0 {
		if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	text, err := json.Marshal(names)
	if err != nil {
		return err
	}
	return writeFile(path, text)
}
