// Package read brings the bytes of a file from where they are to where they are
// wanted. The Filler, which a seed.Manager calls for each run of missing blocks,
// goes through the sources of DESIGN's order until the run is complete: this
// node's own reading of the origin where it owns the stripe, the other seeds,
// providers from the DHT, neighbours at the site for what they hold, and the
// origin as the last resort. A source that breaks off is followed by the next at
// the next byte. The Opener hands files to local clients, who read through a
// window of blocks that are on their way.
//
// What decides which source is next:
//   - a peer that answers nothing for a second, two beyond the links of this
//     machine, or loses its connection, is dead for this fill, and told to later
//     sources in the request's skip list;
//   - one that answers WAIT is alive, however slow its own source is;
//   - one whose bytes were wrong is asked once more, to check its copy first;
//   - where all were dead, a fill for a client of this node looks for them again
//     for a while (FillerConfig.Again): one of the two ends may just have moved;
//   - when the origin refused, peers are asked only for what they hold.
package read
