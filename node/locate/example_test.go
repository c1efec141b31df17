package locate_test

import (
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/node/locate"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

func ExampleMap_Sources() {
	supernode, seed := peer.ID("supernode"), peer.ID("seed")
	m := locate.New(locate.Config{Self: "reader", Supernodes: []peer.ID{supernode}})
	task, err := content.NewTask("https://origin.example/layer.tar", content.Filter{})
	if err != nil {
		fmt.Println(err)
		return
	}
	// What assignment.Signed.Open returned of a message from the supernode.
	m.Apply(assignment.Signed{Supernode: supernode}, assignment.Update{
		Cursor: assignment.Cursor{Supernode: supernode, Epoch: 1, Seq: 1},
		Issued: time.Now(),
		Assigns: []assignment.Assign{
			{Task: task.ID, URL: task.URL, Size: -1, Seeds: []peer.ID{seed}, Lease: time.Hour},
		},
	})
	for _, s := range m.Sources(nil, task.ID, 0, false, nil) {
		fmt.Println(string(s.Peer), s.Kind)
	}
	// Output: seed owner
}
