package control_test

import (
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/assignment"
	"github.com/p2pnode/p2pnode/supernode"
)

// A peer that cannot be elected is told of the shards that it uses, and of no
// other; when it begins to use one it gets what was assigned in it before. Who may
// be elected knows all.
func TestShards(t *testing.T) {
	const shards = 16
	b := newBossWith(t, newKey(t), "/ip4/127.0.0.1/tcp/0", supernode.Config{Shards: shards})
	supernodes := []peer.AddrInfo{b.info}
	seeds := []*node{newNodeAs(t, "", true, supernodes)}
	seeds = append(seeds, newNodeAs(t, "", true, supernodes, seeds...))
	reader := newNodeAs(t, "", false, supernodes, seeds...)
	everybody := append(slices.Clone(seeds), reader)
	poolIs(t, 5*time.Second, everybody, hostIDs(seeds))
	joined := func(shard int) bool {
		return slices.Contains(reader.ps.GetTopics(), assignment.ShardTopic("", shards, shard))
	}

	seeds[0].hold(heldTask(0x11))
	seeds[0].hold(heldTask(0x22))
	assigned(t, seeds, heldTask(0x11).Task)
	assigned(t, seeds, heldTask(0x22).Task)
	reader.m.Sources(nil, heldTask(0x1f).Task, 0, false, nil)
	assigned(t, everybody, heldTask(0x11).Task) // of before
	p2ptest.Eventually(t, 5*time.Second, func() bool { return joined(1) }, "the topic of the shard is not joined")
	seeds[1].hold(heldTask(0x23))
	assigned(t, seeds, heldTask(0x23).Task)
	seeds[1].hold(heldTask(0x12))
	assigned(t, everybody, heldTask(0x12).Task)
	for _, i := range []byte{0x22, 0x23} {
		if entry(reader, heldTask(i).Task) != nil {
			t.Errorf("the reader was told of task %x", i)
		}
	}
	if joined(2) || len(reader.m.Follows().Shards(shards)) != 1 {
		t.Errorf("the reader follows shards %v, and topics %v", reader.m.Follows().Shards(shards), reader.ps.GetTopics())
	}
	for i, n := range seeds {
		if n.m.Follows() != nil {
			t.Errorf("seed %d does not follow all", i)
		}
	}

	reader.hold(heldTask(0x24)) // what is held is used
	for _, i := range []byte{0x22, 0x23, 0x24, 0x12} {
		assigned(t, everybody, heldTask(i).Task)
	}
	if got := reader.m.Follows().Shards(shards); !slices.Equal(got, []int{1, 2}) {
		t.Errorf("the reader follows shards %v", got)
	}
}
