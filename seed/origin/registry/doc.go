// Package registry knows what the OCI distribution specification, v1.1, says to
// those who pull: which path names what, which manifests there are, and how an
// anonymous client gets the bearer token that most registries want even for
// public images.
//
// It is used on both sides of the swarm: by the mirror, which turns a client's
// request into one for a registry, and by the seed that asks that registry.
//
// Rejected: the client library of a registry tool. What is needed of one is a
// few lines, and a seed must send its own requests, under its own policy and
// budgets.
package registry
