package rangeread

import (
	"bytes"
	"encoding/binary"
	"sync"

	"github.com/p2pnode/p2pnode/internal/content"
)

// partParents remembers the parents of parts: to make them, the whole leaf must
// be read and hashed. What it holds is right for good, as a root names bytes. A
// leaf has three, the upper one of which all its parts need; each has one place,
// and the last one made keeps it. Safe for concurrent use.
type partParents struct {
	mu sync.Mutex
	// mu guards the following.
	places []parentEntry
}

// maxParents bounds the remembered parents, 0.1 KiB each: those of 10,000 leaves,
// or of 160 MiB.
const maxParents = 32 << 10

// parentKey names a node of a block's tree.
type parentKey struct {
	root   content.Root
	off, n int32 // the node's bytes in the block
}

func (k parentKey) place() uint64 {
	h := binary.LittleEndian.Uint64(k.root[:]) + uint64(k.off)/content.PartSize
	if k.n <= 2*content.PartSize {
		h++ // its parent may start where it does
	}
	return h % maxParents
}

type parentEntry struct {
	parentKey
	children [2 * content.HashSize]byte
}

// get appends a node's parent to dst, if it is remembered.
func (p *partParents) get(k parentKey, dst []byte) ([]byte, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.places == nil {
		return dst, false
	}
	e := &p.places[k.place()]
	if e.parentKey != k {
		return dst, false
	}
	return append(dst, e.children[:]...), true
}

func (p *partParents) put(k parentKey, children []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.places == nil {
		p.places = make([]parentEntry, maxParents)
	}
	e := &p.places[k.place()]
	e.parentKey = k
	copy(e.children[:], children)
}

// part sends the part of a leaf that was asked for. p is the leaf's proof.
func (a *Answer) part(p *proof, part content.Range, unit int64, read func(p []byte, off int64) error) error {
	all, block := Widen(part, a.size), a.block(int64(p.block)).Off
	var whole []byte // the leaf's bytes, once they are needed
	var failed error
	// One of a leaf that was damaged at rest must not be remembered.
	sound := len(p.slice) > 0
	inBlock := func(r content.Range) content.Range { return content.Range{Off: r.Off - block, Len: r.Len} }
	p.slice = content.AppendParents(p.slice, inBlock(all), inBlock(part), unit, func(dst []byte, node content.Range) []byte {
		key := parentKey{content.Root(p.root), int32(node.Off), int32(node.Len)}
		dst, known := a.session.srv.parts.get(key, dst)
		if known || failed != nil {
			return dst
		}
		if whole == nil {
			if whole, failed = a.aside(all, read); failed != nil {
				return dst
			}
		}
		bytesOf := whole[node.Off+block-all.Off:][:node.Len]
		above := dst[max(0, len(dst)-2*content.HashSize):]
		dst, hash := content.AppendParent(dst, bytesOf, node.Off)
		i := bytes.Index(above, hash[:])
		if sound = sound && (i == 0 || i == content.HashSize); sound {
			a.session.srv.parts.put(key, dst[len(dst)-2*content.HashSize:])
		}
		return dst
	})
	if failed != nil {
		return failed
	}
	if whole != nil {
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

// aside reads a leaf to where it stays until its part is sent.
func (a *Answer) aside(leaf content.Range, read func(p []byte, off int64) error) ([]byte, error) {
	p, err := a.fw.aside(int(leaf.Len), maxProof+content.LeafSize)
	if a.stream(err) != nil {
		return nil, err
	}
	return p, read(p, leaf.Off)
}
