// Command testground is the Testground plan p2pnode, as Testground's runners
// start it: one process an instance, told by its environment what to do. See
// package plan, and README.md for how to run it.
package main

import "github.com/p2pnode/p2pnode/testground/plan"

func main() { plan.Main() }
