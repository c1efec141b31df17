package proxy_test

import (
	"context"
	"fmt"
	"net"

	"github.com/p2pnode/p2pnode/node/proxy"
)

// swarmless is an Opener without a swarm: everything passes through.
type swarmless struct{}

func (swarmless) Open(context.Context, proxy.Request) (proxy.File, error) {
	return nil, proxy.ErrPassThrough
}

func Example() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	h := proxy.New(proxy.Config{
		Opener: swarmless{},
		Self:   func(hostport string) bool { return hostport == ln.Addr().String() },
	})
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // a daemon's ends with SIGTERM
	fmt.Println(proxy.NewServer(h, ln).Run(ctx))
	// Output: <nil>
}
