//go:build !p2pnode_unshared

package seed

// shared: readers of one block follow one flight.
const shared = true
