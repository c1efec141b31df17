// Package locate knows whom to ask for a stripe, without asking anybody.
//
// A Map holds what the supernodes have published: the assignments of tasks to
// seeds, and the pool of peers that may be seeds. From it every reader and
// every seed computes the same owner of a stripe. Providers finds holders
// through the DHT where the Map has nobody alive.
//
// Reading a Map takes no lock, does no I/O and allocates nothing: readers see
// one immutable snapshot behind an atomic pointer, and a writer replaces it. A
// hash table whose shards are shared between snapshots makes a replacement cost
// some kilobytes a changed task, whatever the size of the map. What a reader
// computes from a snapshot, the seeds of a task with their weights and their
// order for each stripe that was asked for, is kept beside the task for as long
// as the pool stays.
//
// Rejected: a lock around a Go map (readers of a hot task meet on its cache
// line, and a batch of updates stops them all); sync.Map (a key of 32 bytes is
// allocated for each lookup); Go maps in shards, copied on write (a batch copies
// most of a map of 100,000 tasks); a trie of four bits a level (of 100,000 tasks
// two or three cache misses more a lookup); a table that is changed in place
// (readers see half of an update, and of a new epoch nothing for a while).
package locate
