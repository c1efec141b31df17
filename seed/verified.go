package seed

import (
	"fmt"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
)

// Verified takes a piece that a peer sent into the last Buffer.
func (j *Job) Verified(p rangeread.Piece) error {
	fl := j.into
	if len(p.Data) == 0 { // it closes the block before
		fl = j.file.flightOf(j, (j.pos-1)/content.BlockSize)
	}
	if fl == nil {
		j.pos += int64(len(p.Data))
		return nil
	}
	if p.Seal != nil {
		if err := j.addSeal(fl, p); err != nil {
			return err
		}
	}
	if p.Increment != nil {
		fl.addIncrement(*p.Increment)
	}
	if len(p.Data) > 0 {
		j.pos += int64(len(p.Data))
		j.progress(true) // before a reader gets these bytes and leaves
		if fl.n == len(fl.leaves)*content.LeafSize {
			fl.hashed(p.Leaves)
		}
		fl.advance(len(p.Data))
	}
	return j.closeBlock(fl)
}

func (j *Job) addSeal(fl *flight, p rangeread.Piece) error {
	if err := j.m.cfg.VerifySeal(fl.name, *p.Seal); err != nil {
		return err
	}
	if err := fl.addSeal(*p.Seal, p.Slice, p.First, p.Last); err != nil {
		return fmt.Errorf("%w: %w", rangeread.ErrCorrupt, err)
	}
	return nil
}

// closeBlock stores a block when all of it is there. Where it was put together
// from the origin's bytes, or by increments, its leaves may not make the root
// that was signed: nobody can tell then who is wrong, and it fails.
func (j *Job) closeBlock(fl *flight) error {
	if fl.n < fl.size || fl.seal == nil {
		return nil
	}
	if fl.rootKnown() && !fl.raw {
		j.store(fl, *fl.seal, fl.outboard)
		return nil
	}
	outboard, root := fl.tree()
	if root != fl.seal.Root {
		err := fmt.Errorf("%w: block %d of %s is not what %s signed", ErrConflict, fl.name.Index, j.Task.ID, fl.seal.Signer)
		j.file.forget(fl)
		fl.end(failed, err)
		return err
	}
	j.store(fl, *fl.seal, outboard)
	return nil
}

// unsealed returns the flight of the block before Pos where it is whole but
// lacks its seal, or nil.
func (j *Job) unsealed() *flight {
	if j.file == nil || j.pos == 0 {
		return nil
	}
	fl := j.file.flightOf(j, (j.pos-1)/content.BlockSize)
	if fl == nil || fl.n < fl.size || fl.seal != nil {
		return nil
	}
	return fl
}

// Unsealed reports whether the block before Pos is whole but lacks its seal,
// because its source left between the last leaf and the seal. Any piece of that
// block with a seal, from another source, closes it: see Seal and Forgo.
func (j *Job) Unsealed() bool { return j.unsealed() != nil }

// Seal closes the block before Pos by the seal of a piece read again.
func (j *Job) Seal(p rangeread.Piece) error {
	fl := j.unsealed()
	if fl == nil || p.Seal == nil {
		return nil
	}
	p.First, p.Last = 0, 0 // the tree of one leaf is of no use
	if err := j.addSeal(fl, p); err != nil {
		return err
	}
	return j.closeBlock(fl)
}

// Forgo gives up keeping the block before Pos, whose seal cannot be had. Who
// holds it reads it to its end: its leaves were verified. It is fetched again
// for the next who wants it.
func (j *Job) Forgo() {
	fl := j.unsealed()
	if fl == nil {
		return
	}
	j.file.forget(fl)
	fl.unsave(fmt.Errorf("%w: no source has the seal of block %d of %s", ErrUnavailable, fl.name.Index, j.Task.ID))
	j.progress(false)
}
