//go:build race

package e2e

// raced: the race detector watches this process, not those that it starts, and
// slows the origin that they read from.
const raced = true
