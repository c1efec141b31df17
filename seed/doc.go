// Package seed keeps the files of tasks: it brings missing blocks in once for
// all who want them, serves them to local clients and to peers while they are
// still arriving, and leaves them proven in the store.
//
// The path of a byte: a Filler (declared here, implemented above) reads a run of
// missing blocks from the origin or a peer into a Job; each block of the run is
// a flight, a buffer with a watermark that any number of readers follow; a full
// block is sealed, or its seal checked, and stored. Readers hold blocks by Hold,
// peers by way of Manager.Serve.
//
// Rules that are kept here:
//   - one flight a block: no block is in two fills at once on one node;
//   - no byte leaves the node unverified: peers get blocks with their tree, or,
//     of a block that is still arriving, signed increments;
//   - a fill ends when its last follower leaves; one that reads a file from its
//     start, since its origin has no ranges, lingers (see linger.go);
//   - memory of blocks in flight is bounded (Config.MaxFlights): more waits.
package seed
