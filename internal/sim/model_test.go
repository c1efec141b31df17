package sim

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/node/locate"
	"github.com/p2pnode/p2pnode/protocols/assignment"
	assignmentpb "github.com/p2pnode/p2pnode/protocols/assignment/pb"
	"github.com/p2pnode/p2pnode/protocols/heartbeat"
	heartbeatpb "github.com/p2pnode/p2pnode/protocols/heartbeat/pb"
	"github.com/p2pnode/p2pnode/supernode"
)

var overload = flag.Bool("overload", false, "TestModel floods 100 new files/s to 10,000 peers too")

const (
	// modelTime is how long new files are reported.
	modelTime = 10 * time.Second
	// modelBatch is how often a supernode publishes.
	modelBatch = 200 * time.Millisecond
	// perUpdate is how many assignments a supernode puts into one update.
	perUpdate = 32
	// modelMaps is how many of the peers keep a real map.
	modelMaps = 20
	// verifyTime is what it takes to check a signature, applyTime to take in an
	// assignment, as measured (see assignment.Signed.Open, locate.Map.Apply).
	verifyTime = 68 * time.Microsecond
	applyTime  = 5 * time.Microsecond
	// modelShards is the number of shards where there are several, modelUses how many
	// of them each peer uses that is not in the pool.
	modelShards, modelUses = 16, 2
	// floodPeers is the most peers to which a supernode floods, as in node/host.
	floodPeers = 2048
	// gossipWrap is what GossipSub puts around a message: topic, author, number,
	// signature.
	gossipWrap = 170
)

// TestModel runs 1,000 and 10,000 peers through the model and prints what the
// control plane costs them.
func TestModel(t *testing.T) {
	t.Parallel()
	var table strings.Builder
	fmt.Fprintln(&table, "  peers  files/s  flood   50 % know   99 % know    all know   fetched   supernode sends     peer gets")
	ids := modelIDs(t, 10_000)
	for _, n := range []int{100, 1000, 10_000} {
		if raced && n > 100 || testing.Short() && n > 1000 {
			t.Logf("%d peers are left out: in short runs and under the race detector", n)
			continue
		}
		for _, rate := range []int{10, 100} {
			for _, flood := range []bool{true, false} {
				if flood && n*rate > 100_000 && !*overload {
					continue // 10 s for what is known not to work
				}
				m := newModel(t, ids[:n+1], flood, 1)
				m.act(rate)
				fmt.Fprintln(&table, m.row(rate))
				m.check(rate)
			}
		}
		if n > floodPeers {
			m := newModel(t, ids[:n+1], false, modelShards)
			m.act(10)
			fmt.Fprintf(&table, "%s in %d shards; who follows %d of them %.1f kB/s\n", m.row(10), modelShards, modelUses, m.got(len(m.pool)+1))
			m.check(10)
		}
	}
	beat, ack := heartbeatSizes()
	period := heartbeat.DefaultInterval.Seconds()
	fmt.Fprintf(&table, "idle: a heartbeat of %d bytes and an answer of %d each %v: %.0f B/s a peer; at the supernode of 10,000 peers %.0f messages/s and %.0f kB/s in, %.0f kB/s out",
		beat, ack, heartbeat.DefaultInterval, float64(beat+ack)/period, 10_000/period, 10*float64(beat)/period, 10*float64(ack)/period)
	t.Log("\n" + table.String())
}

// model is a swarm with one supernode, of which elections, updates and some
// maps are real.
type model struct {
	t      *testing.T
	random *rand.Rand
	gossip *gossip
	n      int
	key    crypto.PrivKey
	self   peer.ID
	pool   []assignment.Member
	seq    uint64
	shards int
	sums   []assignment.HashSum // by shard

	maps    map[int]*locate.Map // by node
	batches [][]opened          // by message
	// reported is when each file was reported, published which message it is in.
	reported  []time.Duration
	published []int
}

// opened is an update with its signed form.
type opened struct {
	assignment.Signed
	assignment.Update
}

// modelIDs returns the IDs of the supernode and of n peers.
func modelIDs(t *testing.T, n int) []peer.ID {
	t.Helper()
	ids := make([]peer.ID, n+1)
	for i := range ids {
		key, _, err := crypto.GenerateEd25519Key(keyBytes(i + 1))
		if err != nil {
			t.Fatal(err)
		}
		if ids[i], err = peer.IDFromPrivateKey(key); err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

// newModel takes the IDs of the supernode, the first, and of the peers. Their
// number is the seed of its randomness.
func newModel(t *testing.T, ids []peer.ID, flood bool, shards int) *model {
	t.Helper()
	n := len(ids) - 1
	m := &model{t: t, n: n, shards: shards, sums: make([]assignment.HashSum, shards), random: rand.New(rand.NewPCG(uint64(n), 4)), self: ids[0], maps: make(map[int]*locate.Map)}
	var err error
	if m.key, _, err = crypto.GenerateEd25519Key(keyBytes(1)); err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= min(n, assignment.MaxPool); i++ {
		addr := multiaddr.StringCast(fmt.Sprintf("/ip4/192.0.2.%d/udp/65000/quic-v1", i%256))
		m.pool = append(m.pool, assignment.Member{ID: ids[i], Addrs: []multiaddr.Multiaddr{addr}, Weight: 1})
	}
	m.link(ids, flood)
	for i := 1; i <= modelMaps; i++ {
		node := i * n / modelMaps
		m.maps[node] = locate.New(locate.Config{Self: ids[node], Supernodes: []peer.ID{m.self}})
	}
	return m
}

// link connects everybody to the supernode, to the first four of Rank(own ID,
// pool), and to four others that are not in the pool, as nodes do.
func (m *model) link(ids []peer.ID, flood bool) {
	params := pubsub.DefaultGossipSubParams()
	params.Dlo, params.HistoryLength, params.HistoryGossip = 4, 10, 5 // as in node/host
	g := &gossip{
		random: m.random, params: params, flood: flood, lost: 0.01, check: 2 * verifyTime, nodes: make([]gossipNode, m.n+1),
		known: m.apply, topics: m.shards,
	}
	index := make(map[peer.ID]int32, len(m.pool))
	members := make([]content.Member, len(m.pool))
	for i, p := range m.pool {
		members[i] = content.Member{ID: p.ID, Weight: p.Weight}
		index[p.ID] = int32(i + 1)
	}
	linked := make([]map[int32]bool, m.n+1)
	for i := range linked {
		linked[i] = make(map[int32]bool)
	}
	join := func(a, b int32) { linked[a][b], linked[b][a] = true, true }
	for i := 1; i <= m.n; i++ {
		join(int32(i), 0)
		wanted := 0
		for _, r := range content.Rank(nil, []byte(ids[i]), members) {
			if r.ID != ids[i] && wanted < neighbours {
				join(int32(i), index[r.ID])
				wanted++
			}
		}
		for range min(neighbours, m.n-len(m.pool)) {
			if j := int32(1 + len(m.pool) + m.random.IntN(m.n-len(m.pool))); j != int32(i) {
				join(int32(i), j)
			}
		}
	}
	for i := range g.nodes {
		n := &g.nodes[i]
		for j := range linked[i] {
			n.linked = append(n.linked, j)
		}
		slices.Sort(n.linked) // the order of a map is no seed's
		n.phase = time.Duration(m.random.Int64N(int64(params.HeartbeatInterval)))
		n.rate = linkRate / 8
		if m.shards > 1 && i > len(m.pool) {
			n.others = make([]bool, m.shards)
			for j, shard := range m.random.Perm(m.shards) {
				n.others[shard] = j >= modelUses
			}
		}
	}
	g.nodes[0].rate = 10 * linkRate / 8
	m.gossip = g
	g.form()
}

// act has files reported at random times, elects their seeds, and publishes.
func (m *model) act(rate int) {
	var waiting []int
	for tick := modelBatch; tick <= modelTime; tick += modelBatch {
		var times []time.Duration
		for range rate * int(modelBatch/time.Millisecond) / 1000 {
			times = append(times, tick-time.Duration(m.random.Int64N(int64(modelBatch))))
		}
		for _, at := range times {
			waiting = append(waiting, len(m.reported))
			m.reported = append(m.reported, at-linkDelay) // when the report left
			m.published = append(m.published, -1)
		}
		for _, batch := range m.elect(waiting) {
			message := m.gossip.publish(tick, batch[0].Assigns[0].Task.Shard(m.shards), batchSize(batch)+gossipWrap)
			m.batches = append(m.batches, batch)
			for _, o := range batch {
				for _, a := range o.Assigns {
					m.published[taskNumber(a.Task)] = message
				}
			}
		}
		waiting = waiting[:0]
	}
	m.gossip.run(modelTime + 2*heartbeat.DefaultInterval)
}

// elect calls the real election and returns signed updates in batches that each
// fit a message.
func (m *model) elect(files []int) [][]opened {
	candidates := make([]supernode.Candidate, len(m.pool))
	for i, p := range m.pool {
		candidates[i] = supernode.Candidate{Member: content.Member{ID: p.ID, Weight: p.Weight}, Site: p.Site}
	}
	in := supernode.Input{Members: candidates, Replicas: 2}
	for _, i := range files {
		h := someTask(1, i)
		if m.shards > 1 {
			h.Task[0] = byte(i * 37) // of all shards
		}
		in.Tasks = append(in.Tasks, supernode.TaskInput{Assign: assignment.Assign{Task: h.Task, URL: h.URL, Generation: h.Generation, Size: h.Size}})
	}
	var out [][]opened
	for _, shard := range assignment.ByShard(supernode.Elect(in), m.shards) {
		size := assignment.MaxBatch // no message yet
		for _, run := range assignment.Split(shard) {
			for part := range slices.Chunk(run, perUpdate) {
				o := m.sign(part)
				if size += o.Size(); size > assignment.MaxBatch {
					out, size = append(out, nil), o.Size()
				}
				out[len(out)-1] = append(out[len(out)-1], o)
			}
		}
	}
	return out
}

// sign makes the next update, and books it.
func (m *model) sign(part []assignment.Assign) opened {
	for i := range part {
		part[i].Lease = 10 * time.Minute
		m.sums[part[i].Task.Shard(m.shards)].Toggle(assignment.EntryDigest(part[i]))
	}
	m.seq++
	u := assignment.Update{Cursor: assignment.Cursor{Supernode: m.self, Epoch: 1, Seq: m.seq}, Issued: time.UnixMilli(1), Assigns: part}
	signed, err := assignment.Sign(m.key, u)
	if err != nil {
		m.t.Fatal(err)
	}
	return opened{signed, u}
}

func batchSize(batch []opened) int {
	var entries []assignment.Signed
	for _, o := range batch {
		entries = append(entries, o.Signed)
	}
	return proto.Size(&assignmentpb.Batch{Signed: assignment.Encode(entries)})
}

func taskNumber(id content.TaskID) int { return int(id[1])<<8 | int(id[2]) }

// apply hands a message to the real map of a node, where it has one.
func (m *model) apply(message, node int) {
	if real := m.maps[node]; real != nil {
		for _, o := range m.batches[message] {
			real.Apply(o.Signed, o.Update)
		}
	}
}

// percent returns how long after its report a file is known by some percent of
// the peers; the worst of all files.
func (m *model) percent(p int) time.Duration {
	var worst time.Duration
	for i, message := range m.published {
		var known []time.Duration
		for node, at := range m.gossip.have[message] {
			if node == 0 || !m.gossip.nodes[node].follows(m.gossip.topic[message]) {
				continue
			}
			if at == 0 {
				at = m.gossip.now // not known to the end
			}
			known = append(known, at+2*verifyTime+perUpdate*applyTime-m.reported[i])
		}
		slices.Sort(known)
		worst = max(worst, percentile(known, p))
	}
	return worst
}

// got returns the kB a second that the nodes from the given one on get, each.
func (m *model) got(from int) float64 {
	var in float64
	for _, n := range m.gossip.nodes[from:] {
		in += float64(n.got.bytes)
	}
	return in / float64(len(m.gossip.nodes)-from) / modelTime.Seconds() / 1e3
}

// row is the line of the table.
func (m *model) row(rate int) string {
	return fmt.Sprintf("%7d  %7d  %5t  %10v  %10v  %10v  %6.2f %%  %12.0f kB/s  %7.1f kB/s", m.n, rate, m.gossip.flood,
		m.percent(50).Round(time.Millisecond), m.percent(99).Round(time.Millisecond), m.percent(100).Round(time.Millisecond),
		100*float64(m.gossip.fetched)/float64(m.n*len(m.gossip.sizes)),
		float64(m.gossip.nodes[0].sent.bytes)/modelTime.Seconds()/1e3, m.got(1))
}

// heartbeatSizes returns the bytes of a heartbeat and of its answer on their
// stream.
func heartbeatSizes() (beat, ack int) {
	addr := multiaddr.StringCast("/ip4/192.0.2.1/udp/65000/quic-v1")
	beat = proto.Size(&heartbeatpb.Beat{
		Session: 1 << 63, Seq: 1000, Addrs: [][]byte{addr.Bytes(), addr.Bytes()}, Site: "edge-1", Seed: true, Capacity: 10 << 30, Free: 5 << 30,
		Load: &heartbeatpb.Load{Uploads: 3, UploadRate: 1e6, DownloadRate: 1e6, CpuPermille: 100}, Version: "v1.2.3",
	})
	ack = proto.Size(&heartbeatpb.Ack{Seq: 1000, Epoch: 1_790_000_000_000, MapSeq: 100_000, MapHash: make([]byte, 32)})
	return beat + 1, ack + 1
}

// check asserts that the maps agree and, for the product's own settings, the
// targets. To flood 100 new files a second to 10,000 peers takes more than the
// gigabit of the supernode's link.
func (m *model) check(rate int) {
	m.t.Helper()
	if m.gossip.flood && m.n*rate > 100_000 {
		return
	}
	p99, within := m.percent(99), knownWithin
	if m.shards > 1 {
		// Fewer of those that a peer is connected to follow what it follows. Whom
		// gossip does not reach the next heartbeat tells; until then it ranks over the pool.
		within = heartbeat.DefaultInterval * 11 / 10
		if few, all := m.got(len(m.pool)+1), m.got(1); few > 4 {
			m.t.Errorf("who follows %d of %d shards gets %.1f kB/s, want less than a quarter of the 19 of all shards; all get %.1f", modelUses, m.shards, few, all)
		}
	}
	if m.gossip.flood == (m.n <= floodPeers) && p99 > within {
		m.t.Errorf("%d peers, %d files/s: 99 %% know an assignment after %v, want %v", m.n, rate, p99, within)
	}
	beat, ack := heartbeatSizes()
	if rate := float64(beat+ack) / heartbeat.DefaultInterval.Seconds(); rate > idleRate {
		m.t.Errorf("an idle peer's control traffic is %.0f B/s, want at most %d", rate, idleRate)
	}
	for node, real := range m.maps {
		var sum assignment.HashSum
		for shard := range m.sums {
			if m.gossip.nodes[node].follows(shard) {
				sum.Toggle(m.sums[shard])
			}
		}
		want := assignment.Hash(1, sum, assignment.PoolDigest(nil))
		if !real.Agree(assignment.Cursor{Supernode: m.self, Epoch: 1, Seq: m.seq}, want) {
			m.t.Errorf("%d peers, %d files/s, flood %t: the map of node %d is not the supernode's", m.n, rate, m.gossip.flood, node)
		}
	}
}
