// Package content names files and cuts them: tasks and their IDs, canonical
// URLs, generations, half-open byte ranges, the layout of a file in leaves,
// blocks and stripes, the hash tree and the signatures of a block, and the
// rendezvous ranking that says who owns what.
//
// Everything here is pure: no I/O, no clock, no goroutine. Two nodes that run
// the same version compute the same answers, which is what lets a reader find
// a seed without asking anybody.
//
// The units, smallest first:
//
//	leaf    16 KiB  what is verified: one BLAKE3 chunk group
//	block    1 MiB  what is signed and stored: one Bao tree
//	stripe 1-4 MiB  what is owned, evicted, and asked from the origin at once
//
// Rejected: one tree over the whole file (its root is known only at the end,
// so nothing could be served in flight), and 1 KiB leaves (an outboard of 6 %).
package content
