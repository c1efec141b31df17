package locate

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/libp2p/go-libp2p/core/peer"
)

// maxSigners bounds the remembered signers; the one that was named in a pool
// longest ago goes, and blocks that it signed are fetched again.
const maxSigners = 65_536

// signers is the set of peers that were ever in a pool.
type signers struct {
	mu  sync.RWMutex // guards the following
	set *simplelru.LRU[peer.ID, struct{}]
}

func newSigners() *signers {
	set, err := simplelru.NewLRU[peer.ID, struct{}](maxSigners, nil)
	if err != nil {
		panic("locate: " + err.Error()) // the bound is positive
	}
	return &signers{set: set}
}

func (s *signers) has(id peer.ID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.set.Contains(id)
}

func (s *signers) add(ids []peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		s.set.Add(id, struct{}{})
	}
}

// replace leaves these and no others.
func (s *signers) replace(ids []peer.ID) {
	s.mu.Lock()
	s.set.Purge()
	s.mu.Unlock()
	s.add(ids)
}

// list returns all, the one that goes next first.
func (s *signers) list() []peer.ID {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.set.Keys()
}
