// Package node is the daemon: the one place where the parts meet.
//
// A Config says what to run. New checks it, opens the data directory and binds
// the listeners, so that a bad configuration fails before anything is served;
// Run serves until its context ends. A Node is one peer of a swarm: a libp2p
// host, a block store, the HTTP faces for local clients, and clients of the
// control protocols. Where no supernode is configured it runs one in the same
// process, as a second host that it dials like any other. A SupernodeNode is a
// supernode alone.
//
// The parts live below this package and know each other by one-method
// interfaces only: node/host, node/proxy, node/read, node/locate, node/control
// and node/admin, beside seed, supernode and protocols.
//
// Nothing here reads the environment or a file of settings: cmd/p2pnode turns
// flags, environment and file into a Config.
package node
