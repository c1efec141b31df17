// Package plan is the Testground plan p2pnode: whole swarms of the product's own
// nodes and supernodes, in cases that fail where an invariant is broken.
//
// An instance is a process (or a container). The first one to come runs the
// origin, an HTTP server that counts every byte it sends, and the supernodes;
// each other one runs a node, in edge-sites several, and reads through the
// node's HTTP proxy, as any client. Content is computed from the run's seed, so
// every instance can check every byte without having the file.
//
// A case is a function of a World, which has what they share: parameters, the
// sync service's barriers and topics, the origin, stations (nodes and how to
// read through them), checks and results. The instance that finds an invariant
// broken fails and tells the others, who then end too.
//
// Results are JSON lines in p2pnode.jsonl of each instance's outputs; see
// Record.
package plan
