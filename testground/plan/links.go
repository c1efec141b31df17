package plan

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/testground/sdk-go/network"
	"github.com/testground/sdk-go/run"
	sdk "github.com/testground/sdk-go/runtime"
	tgsync "github.com/testground/sdk-go/sync"

	"github.com/p2pnode/p2pnode/testground/link"
)

// shapeLinks shapes this instance's uplink, by Testground's sidecar where there
// is one, else in user space. It returns what it did and the link in user
// space, which shapes nothing where the kernel does.
func shapeLinks(ctx context.Context, env *sdk.RunEnv, ic *run.InitContext, mbit float64, latency time.Duration, loss float64) (Links, *link.Link, error) {
	done := Links{By: "nobody", UplinkMbit: mbit, LatencyMs: ms(latency), LossPct: loss}
	if env.TestSidecar {
		// All instances call it, asked for or not: it is a barrier.
		err := ic.NetClient.ConfigureNetwork(ctx, &network.Config{
			Network: network.DefaultDataNetwork, Enable: true, RoutingPolicy: network.AllowAll,
			CallbackState: tgsync.State("shaped"),
			Default: network.LinkShape{
				Bandwidth: uint64(mbit * 1e6), // bits a second, whatever its comment says
				Latency:   latency, Loss: float32(loss),
			},
		})
		if err != nil {
			return done, nil, fmt.Errorf("shape the link: %w", err)
		}
		if mbit > 0 || latency > 0 || loss > 0 {
			done.By = "kernel"
		}
		return done, link.New(link.Shape{}), nil
	}
	var missing []string
	if mbit > 0 || latency > 0 {
		done.By = "user-space"
	}
	if loss > 0 {
		missing = append(missing, fmt.Sprintf("loss of %g %%: this runner has no sidecar, and user space cannot lose packets of TCP", loss))
	}
	done.NotApplied = strings.Join(missing, "; ")
	return done, link.New(link.Shape{Rate: int64(mbit * 1e6), Latency: latency}), nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
