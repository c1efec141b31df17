package store

import lru "github.com/hashicorp/golang-lru/v2"

// recordCache keeps decoded records. It is cut into shards, each an LRU with a
// lock of its own, so that reads do not queue for one lock.
type recordCache [cacheShards]*lru.Cache[recordID, *Record]

const cacheShards = 16

// recordID names a block by the number that its file has in this process.
type recordID struct {
	file  uint64
	block int64
}

func newRecordCache(size int) *recordCache {
	c := new(recordCache)
	for i := range c {
		shard, err := lru.New[recordID, *Record](max(1, size/cacheShards))
		if err != nil {
			panic(err) // only a size below 1 is refused
		}
		c[i] = shard
	}
	return c
}

func (c *recordCache) shard(id recordID) *lru.Cache[recordID, *Record] {
	return c[(id.file+uint64(id.block))%cacheShards]
}

func (c *recordCache) get(id recordID) (*Record, bool) { return c.shard(id).Get(id) }

func (c *recordCache) add(id recordID, rec *Record) { c.shard(id).Add(id, rec) }

func (c *recordCache) remove(id recordID) { c.shard(id).Remove(id) }
