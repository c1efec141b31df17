//go:build p2pnode_unshared

package seed

// shared is off in this build, the negative control of the tests that count the
// origin's bytes: every reader fills for himself.
const shared = false
