package sim

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"

	"github.com/p2pnode/p2pnode/protocols/heartbeat"
)

// gossip is a model of GossipSub in a large swarm: node 0 is the supernode, to
// which all others are connected, and each other node is connected to some
// more. Modelled are meshes, eager pushes, the lazy gossip of each second, links
// with a delay and a rate, and pushes that are lost in full queues.
type gossip struct {
	random *rand.Rand
	params pubsub.GossipSubParams
	// flood has the publisher push to everybody it is connected to.
	flood bool
	// lost is the part of the pushes that are lost, check what a node does before
	// it passes a message on.
	lost  float64
	check time.Duration

	nodes  []gossipNode
	topics int
	events eventQueue
	now    time.Duration
	made   int // events so far; orders those of the same time

	sizes []int             // of the messages
	topic []int             // of the messages
	have  [][]time.Duration // by message and node; 0 for not yet
	known func(message, node int)
	// fetched counts the messages that a node had to fetch from the supernode.
	fetched int
}

// gossipNode is one host.
type gossipNode struct {
	linked []int32 // all that it is connected to
	// others are the topics that it does not follow; nil: none.
	others []bool
	mesh   [][]int32     // by topic
	phase  time.Duration // of its heartbeat
	rate   float64       // of its uplink, bytes a second
	free   time.Duration // when the uplink has sent all that is queued
	sent   volume
	got    volume
}

// What happens at a node besides the arrival of a message.
const (
	gossipBeat  int32 = -1 // GossipSub's heartbeat
	controlBeat int32 = -2 // the answer to a heartbeat to the supernode
)

// event is a message that arrives, or one of the above.
type event struct {
	at       time.Duration
	order    int
	message  int32
	to, from int32
	asked    bool // from is asked for the message by to, which has not got it yet
}

type eventQueue []event

// Len, Less, Swap, Push and Pop are for container/heap.
func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *eventQueue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	*q = (*q)[:last]
	return e
}

func (g *gossip) add(e event) {
	g.made++
	e.order = g.made
	heap.Push(&g.events, e)
}

// form grafts meshes as heartbeats do: who has fewer than Dlo asks for as many as
// make D, and who has Dhi refuses. The supernode only publishes: it is in no
// mesh.
func (g *gossip) form() {
	for i := range g.nodes {
		g.nodes[i].mesh = make([][]int32, g.topics)
	}
	for topic := range g.topics {
		for range 10 {
			for _, i := range g.random.Perm(len(g.nodes)) {
				if i != 0 && g.nodes[i].follows(topic) {
					g.graft(i, topic)
				}
			}
		}
	}
}

// graft fills the mesh of one node.
func (g *gossip) graft(i, topic int) {
	n := &g.nodes[i]
	if len(n.mesh[topic]) >= g.params.Dlo {
		return
	}
	for _, k := range g.random.Perm(len(n.linked)) {
		j := n.linked[k]
		other := &g.nodes[j]
		if j == 0 || !other.follows(topic) || slices.Contains(n.mesh[topic], j) || len(other.mesh[topic]) >= g.params.Dhi {
			continue
		}
		n.mesh[topic] = append(n.mesh[topic], j)
		other.mesh[topic] = append(other.mesh[topic], int32(i))
		if len(n.mesh[topic]) == g.params.D {
			return
		}
	}
}

func (n *gossipNode) follows(topic int) bool { return n.others == nil || !n.others[topic] }

// followers returns those of some nodes that follow a topic.
func (g *gossip) followers(all []int32, topic int) []int32 {
	if g.topics == 1 {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(i int32) bool { return !g.nodes[i].follows(topic) })
}

// publish has the supernode publish a message of some bytes to a topic at a time,
// and returns its number.
func (g *gossip) publish(at time.Duration, topic, size int) int {
	m := len(g.sizes)
	g.sizes, g.topic = append(g.sizes, size), append(g.topic, topic)
	g.have = append(g.have, make([]time.Duration, len(g.nodes)))
	g.add(event{at: at, message: int32(m), to: 0, from: 0})
	return m
}

// run goes on until the given time.
func (g *gossip) run(until time.Duration) {
	for i := range g.nodes {
		g.add(event{at: g.nodes[i].phase, message: gossipBeat, to: int32(i)})
		g.add(event{at: g.period(g.random.Float64()), message: controlBeat, to: int32(i)})
	}
	for len(g.events) > 0 && g.events[0].at <= until {
		e := heap.Pop(&g.events).(event)
		g.now = e.at
		switch {
		case e.message == gossipBeat:
			g.beat(int(e.to))
			e.at += g.params.HeartbeatInterval
			g.add(e)
		case e.message == controlBeat:
			g.repair(e.to)
			e.at += g.period(1)
			g.add(e)
		case e.asked && g.have[e.message][e.to] == 0:
			g.push(int(e.message), int(e.from), e.to, g.now, false)
			if e.from == 0 {
				g.fetched++
			}
		case !e.asked:
			g.arrive(int(e.message), int(e.to), int(e.from))
		}
	}
	g.now = until
}

// period returns a part of the time between two heartbeats to the supernode.
func (g *gossip) period(part float64) time.Duration {
	return time.Duration(part * (0.9 + 0.2*g.random.Float64()) * float64(heartbeat.DefaultInterval))
}

// repair is what a node does when the answer to its heartbeat shows that it
// lacks something: it gives gossip some time and fetches the rest.
func (g *gossip) repair(i int32) {
	for m := range g.sizes {
		if g.have[m][0] == 0 || g.have[m][i] != 0 || !g.nodes[i].follows(g.topic[m]) {
			continue
		}
		wait := 300*time.Millisecond + time.Duration(g.random.Int64N(int64(heartbeat.DefaultInterval/5)))
		g.add(event{at: g.now + wait + linkDelay, message: int32(m), to: i, asked: true})
	}
}

// arrive takes in a message, and passes it on if it is new.
func (g *gossip) arrive(m, at, from int) {
	n := &g.nodes[at]
	if at != from {
		n.got.calls++
		n.got.bytes += int64(g.sizes[m])
	}
	if g.have[m][at] != 0 {
		return
	}
	g.have[m][at] = g.now
	if g.known != nil && at != 0 {
		g.known(m, at)
	}
	to := n.mesh[g.topic[m]]
	if at == 0 {
		to = g.followers(n.linked, g.topic[m])
		if !g.flood {
			to = g.some(to, g.params.D)
		}
	}
	for _, j := range to {
		if int(j) != from {
			g.push(m, at, j, g.now+g.check, g.random.Float64() < g.lost)
		}
	}
}

// push sends a message over a link.
func (g *gossip) push(m, from int, to int32, at time.Duration, lost bool) {
	if lost {
		return
	}
	n := &g.nodes[from]
	n.free = max(n.free, at) + time.Duration(float64(g.sizes[m])/n.rate*float64(time.Second))
	n.sent.calls++
	n.sent.bytes += int64(g.sizes[m])
	g.add(event{at: n.free + linkDelay, message: int32(m), to: to, from: int32(from)})
}

// beat has a node tell some outside of its mesh what it has of late; they ask
// for what they lack.
func (g *gossip) beat(i int) {
	window := time.Duration(g.params.HistoryGossip) * g.params.HeartbeatInterval
	n := &g.nodes[i]
	if i == 0 && g.flood {
		return // who floods keeps no fan-out, and gossips of nothing
	}
	for m := range g.sizes {
		at := g.have[m][i]
		if at == 0 || g.now-at > window {
			continue
		}
		mesh, linked := n.mesh[g.topic[m]], g.followers(n.linked, g.topic[m])
		outside := len(linked) - len(mesh)
		told := g.some(linked, max(g.params.Dlazy, int(g.params.GossipFactor*float64(outside))))
		for _, j := range told {
			if j != 0 && g.have[m][j] == 0 && !slices.Contains(mesh, j) {
				g.add(event{at: g.now + 2*linkDelay, message: int32(m), from: int32(i), to: j, asked: true}) // it is told, and asks
			}
		}
	}
}

// some returns up to k of all, at random.
func (g *gossip) some(all []int32, k int) []int32 {
	if k >= len(all) {
		return all
	}
	out := make([]int32, 0, k)
	for _, i := range g.random.Perm(len(all))[:k] {
		out = append(out, all[i])
	}
	return out
}
