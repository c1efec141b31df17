// Package p2ptest holds what tests of several packages share: an HTTP origin
// that counts every byte it sends and misbehaves on demand, content that is the
// same on every run, connected hosts, and waiting for a condition. Only tests
// import it.
package p2ptest
