// Package runner runs the cases of a Testground plan on this machine with
// nothing but Go: the sync service is embedded, on a free port, and each
// instance is a child process with the environment that Testground's local:exec
// runner gives it.
//
// No instance outlives its runner, however that ends: each holds the reading
// end of a pipe whose other end only the runner has, and leaves when it closes
// (package lifeline).
package runner
