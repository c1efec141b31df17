package rangeread

import (
	"bytes"
	"encoding/binary"
	"sync"

	"github.com/p2pnode/p2pnode/internal/content"
)

// partParents remembers the parents of parts: to make them, the whole leaf must
// be read and hashed. What it holds is right for good, as a root names bytes.
// Each part has one place, and the last one made keeps it. Safe for concurrent
// use.
type partParents struct {
	mu sync.Mutex
	// mu guards the following.
	places []partEntry
}

// maxParts bounds the remembered parents, 0.2 KiB each.
const maxParts = 16 << 10

type partKey struct {
	root content.Root
	off  int32 // in the block
	unit int32
}

func (k partKey) place() uint64 {
	return (binary.LittleEndian.Uint64(k.root[:]) + uint64(k.off)/content.PartSize) % maxParts
}

// partEntry has the parents between a leaf's hash and a part.
type partEntry struct {
	partKey
	n       int
	parents [128]byte
}

// get appends the parents of a part to dst, if they are remembered.
func (p *partParents) get(k partKey, dst []byte) ([]byte, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.places == nil {
		return dst, false
	}
	e := &p.places[k.place()]
	if e.partKey != k {
		return dst, false
	}
	return append(dst, e.parents[:e.n]...), true
}

func (p *partParents) put(k partKey, parents []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.places == nil {
		p.places = make([]partEntry, maxParts)
	}
	e := &p.places[k.place()]
	e.partKey = k
	e.n = copy(e.parents[:], parents)
}

// part sends the part of a leaf that was asked for. p is the leaf's proof.
func (a *Answer) part(p *proof, leaf int, part content.Range, unit int64, read func(p []byte, off int64) error) error {
	block := a.block(int64(p.block))
	key := partKey{content.Root(p.root), int32(part.Off - block.Off), int32(unit)}
	parts := &a.session.srv.parts
	path := len(p.slice)
	var known bool
	if p.slice, known = parts.get(key, p.slice); !known {
		all := Widen(part, a.size)
		whole, err := a.fw.aside(int(all.Len), maxProof+content.LeafSize)
		if a.stream(err) != nil {
			return err
		}
		if err := read(whole, all.Off); err != nil {
			return err
		}
		inBlock := content.Range{Off: part.Off - block.Off, Len: part.Len}
		var top content.LeafHash
		p.slice, top = content.AppendParents(p.slice, whole, leaf, inBlock, unit)
		// A leaf that was damaged at rest must not be remembered.
		if path > 0 && (bytes.Equal(top[:], p.slice[path-64:path-32]) || bytes.Equal(top[:], p.slice[path-32:path])) {
			parts.put(key, p.slice[path:])
		}
		bytesOf := whole[part.Off-all.Off:][:part.Len]
		read = func(p []byte, _ int64) error { copy(p, bytesOf); return nil }
	}
	p.part = uint32(unit)
	if err := a.send(p); err != nil {
		return err
	}
	a.pos, a.end = part.Off, part.End()
	return a.data(a.end, read)
}
