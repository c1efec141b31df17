// Package sim holds the simulations of whole swarms: it has tests alone.
//
// There are three kinds, and each says what of it is real.
//
// In a world (TestSwarm, TestChaos, TestDHTRebuild) everything above the
// packets is real: hosts, QUIC, GossipSub, DHT, supernodes, control, seeds and
// readers. Packets travel on a simulated network, and time is virtual, by
// testing/synctest: time.Sleep moves its clock on, once nothing is left to do
// before then, and takes no time. Blocks are stored in memory, and the origin is
// an HTTP server at the end of a pipe.
//
// So nothing here sleeps for want of an event. What sleeps is the scenario, the time
// between two faults, starts or reports; the time that the product is given and then
// held to, as for maps to agree; or the time in which meshes, routing tables and
// leases settle, of which nobody tells. TestDHTRebuild looks at the supernode's state
// every 50 ms, by the same clock, to say after what time it is whole.
//
// Under faults (TestFaults) the same supernode and control talk over streams in
// memory that lose, double, reorder and delay messages.
//
// The model (TestModel) has thousands of peers and is one loop over a queue of
// events. Elections, signed updates and maps are the real ones, and sizes are
// those of the real messages; GossipSub's meshes and links are modelled.
//
// All randomness comes from seeds that a failing test prints. Runs in worlds are
// not the same to the last packet: the schedule of goroutines and the keys of
// TLS are not seeded.
package sim
