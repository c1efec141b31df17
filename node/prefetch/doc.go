// Package prefetch brings files in before anybody asks for them: from the swarm
// and the origin into this node's store or into those of the elected seeds, or
// from a disk.
//
// Nothing here moves bytes by itself. This node's blocks are brought in by
// seed.File.Prefetch, behind its readers. A seed is asked for each stripe that
// it owns, by a range read that it answers with a header alone once it holds
// the stripe, so that the bytes travel from the origin to their owner and no
// further. An import is told to seed.Manager.Import, once it is known of which
// generation it is: what the digest in the URL says, else what the origin or
// the task's head says, else, with these out of reach, what the caller says.
// What was brought in can be pinned, in this node's store alone: others decide
// themselves what they keep. A Background brings the rest of files in of which
// clients read a part, where they are wanted whole.
package prefetch
