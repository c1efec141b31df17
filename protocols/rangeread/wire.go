package rangeread

import (
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread/pb"
)

// The messages of every small read, Request, Header and Proof, are encoded and
// the first and last of them decoded by hand: the generated code takes 4 µs of
// such a read's 45 for it, most of them for allocations. Tests hold this code to
// what the generated says.

// fields walks the fields of a message. Fields of wire types that no message
// here has are passed over.
type fields struct {
	rest []byte
	err  error
	// The field: number and wire type as in its tag, and its value.
	tag   uint64
	value uint64
	bytes []byte // part of the message
}

// Tags of fields.
func varintField(n uint64) uint64 { return n<<3 | uint64(protowire.VarintType) }
func bytesField(n uint64) uint64  { return n<<3 | uint64(protowire.BytesType) }

// next goes to the next field. It returns false at the end, and at an error.
func (f *fields) next() bool {
	if len(f.rest) == 0 || f.err != nil {
		return false
	}
	num, typ, n := protowire.ConsumeTag(f.rest)
	if num > protowire.MaxValidNumber {
		f.err = fmt.Errorf("%w: field number %d", ErrProtocol, num)
		return false
	}
	if n >= 0 {
		f.rest = f.rest[n:]
		f.tag = uint64(num)<<3 | uint64(typ)
		switch typ {
		case protowire.VarintType:
			f.value, n = protowire.ConsumeVarint(f.rest)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(f.rest)
		default:
			n = protowire.ConsumeFieldValue(num, typ, f.rest)
		}
	}
	if n < 0 {
		f.err = fmt.Errorf("%w: %w", ErrProtocol, protowire.ParseError(n))
		return false
	}
	f.rest = f.rest[n:]
	return true
}

// maxFields bounds the fields of a message, those of the messages in it included,
// that the generated code decodes: it makes of an empty one of two bytes a struct
// of a hundred. Ours have at most 305.
const maxFields = 1024

// countFields returns how many fields a message has. Those with the tag nested
// hold messages, whose fields count too. More than maxFields are an error.
func countFields(b []byte, nested uint64) (n int, err error) {
	f := fields{rest: b}
	for f.next() {
		if n++; f.tag == nested {
			inner, err := countFields(f.bytes, 0)
			if err != nil {
				return 0, err
			}
			n += inner
		}
		if n > maxFields {
			return 0, fmt.Errorf("%w: message of more than %d fields", ErrProtocol, maxFields)
		}
	}
	return n, f.err
}

// encoder appends fields to a message, in the order of their numbers. Fields
// with the zero value are left out.
type encoder []byte

func (e *encoder) varint(n protowire.Number, v uint64) {
	if v != 0 {
		*e = protowire.AppendVarint(protowire.AppendTag(*e, n, protowire.VarintType), v)
	}
}

func (e *encoder) flag(n protowire.Number, v bool) {
	if v {
		e.varint(n, 1)
	}
}

func (e *encoder) bytes(n protowire.Number, b []byte) {
	if len(b) > 0 {
		*e = protowire.AppendBytes(protowire.AppendTag(*e, n, protowire.BytesType), b)
	}
}

// open begins a message in the message, of less than 128 bytes, that close ends.
func (e *encoder) open(n protowire.Number) (at int) {
	*e = append(protowire.AppendTag(*e, n, protowire.BytesType), 0)
	return len(*e)
}

func (e *encoder) close(at int) { (*e)[at-1] = byte(len(*e) - at) }

func (e *encoder) text(n protowire.Number, s string) {
	if s != "" {
		*e = protowire.AppendString(protowire.AppendTag(*e, n, protowire.BytesType), s)
	}
}

func (e *encoder) message(n protowire.Number, m proto.Message) error {
	b, err := proto.Marshal(m)
	*e = protowire.AppendBytes(protowire.AppendTag(*e, n, protowire.BytesType), b)
	return err
}

// append appends the request's message to b.
func (r *Request) append(b []byte) ([]byte, error) {
	e := encoder(b)
	e.bytes(1, r.Task[:])
	if !r.Generation.IsZero() {
		e.bytes(2, r.Generation[:])
	}
	e.varint(3, uint64(r.Range.Off))
	e.varint(4, uint64(max(0, r.Range.Len)))
	if r.NoFill || r.Recheck || r.Small || r.FillOnly || r.Fields || r.Validate || r.Authorize || r.Site || r.sparse {
		at := e.open(5)
		e.flag(1, r.NoFill)
		e.flag(2, r.Recheck)
		e.flag(3, r.Small)
		e.flag(4, r.FillOnly)
		e.flag(5, r.Fields)
		e.flag(6, r.Validate)
		e.flag(7, r.Authorize)
		e.flag(8, r.Site)
		e.flag(9, r.sparse)
		e.close(at)
	}
	for _, id := range r.Path {
		e.text(6, string(id))
	}
	for _, id := range r.Skip {
		e.text(7, string(id))
	}
	e.bytes(8, r.Grant)
	var err error
	if r.Origin != nil {
		err = e.message(9, r.Origin.marshal())
	}
	if r.Epoch != 0 || r.Seq != 0 {
		at := e.open(10)
		e.varint(1, r.Epoch)
		e.varint(2, r.Seq)
		e.close(at)
	}
	return e, err
}

// append appends the message of a header with status OK to b.
func (h *Header) append(b []byte) ([]byte, error) {
	e := encoder(b)
	if h.Size >= 0 { // present also where 0
		e = protowire.AppendVarint(protowire.AppendTag(e, 2, protowire.VarintType), uint64(h.Size))
	}
	e.bytes(3, h.Generation[:])
	e.text(4, h.ETag)
	e.text(5, h.LastModified)
	e.text(6, h.ContentType)
	e.flag(7, h.Sequential)
	e.varint(8, uint64(h.Source))
	var err error
	for _, p := range marshalHolders(h.Holders) {
		err = errors.Join(err, e.message(9, p))
	}
	e.varint(13, uint64(uint32(h.Age/time.Second)))
	e.text(14, h.CacheControl)
	e.text(15, string(h.Fields)) // bytes, which look the same
	e.flag(16, h.Private)
	e.bytes(17, h.Grant)
	return e, err
}

// append appends the proof's message to b.
func (p *proof) append(b []byte) []byte {
	e := encoder(b)
	e.varint(1, p.block)
	e.bytes(2, p.root)
	e.bytes(3, p.slice)
	e.varint(4, uint64(p.first))
	e.varint(5, uint64(p.leaves))
	e.bytes(6, p.hashes)
	e.bytes(7, p.signer)
	e.bytes(8, p.sig)
	e.varint(9, uint64(p.part))
	e.varint(10, uint64(p.sparse))
	return e
}

// decodeRequest decodes and checks a request. Nothing of it is part of b.
func decodeRequest(b []byte) (Request, error) {
	var r Request
	var named bool
	var origin merged
	for f := (fields{rest: b}); ; {
		if !f.next() {
			if f.err != nil {
				return r, f.err
			}
			break
		}
		var err error
		switch f.tag {
		case bytesField(1):
			named = true
			r.Task, err = content.TaskIDFromBytes(f.bytes)
		case bytesField(2):
			r.Generation, err = content.GenerationFromBytes(f.bytes)
		case varintField(3):
			r.Range.Off, err = signedSize(f.value, "offset")
		case varintField(4):
			r.Range.Len, err = signedSize(f.value, "length")
		case bytesField(5):
			err = r.decodeFlags(f.bytes)
		case bytesField(6):
			r.Path, err = appendPeer(r.Path, f.bytes, "path")
		case bytesField(7):
			r.Skip, err = appendPeer(r.Skip, f.bytes, "skip")
		case bytesField(8):
			if len(f.bytes) > maxGrant {
				err = fmt.Errorf("grant of %d bytes: at most %d", len(f.bytes), maxGrant)
			}
			r.Grant = append([]byte(nil), f.bytes...)
		case bytesField(9):
			err = origin.merge(f.bytes)
		case bytesField(10):
			err = r.decodeMapVersion(f.bytes)
		}
		if err != nil {
			return r, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
	}
	if !named {
		return r, fmt.Errorf("%w: request without a task", ErrProtocol)
	}
	if origin.Origin != nil {
		var err error
		if r.Origin, err = unmarshalOrigin(origin.Origin); err != nil {
			return r, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
	}
	return r, nil
}

// merged is an Origin of one field or more.
type merged struct {
	*pb.Origin     // nil before the first
	fields     int // of all that were merged
}

func (m *merged) merge(b []byte) error {
	n, err := countFields(b, bytesField(2))
	if err != nil {
		return err
	}
	if m.fields += n; m.fields > maxFields {
		return fmt.Errorf("origin of more than %d fields", maxFields)
	}
	if m.Origin == nil {
		m.Origin = new(pb.Origin)
	}
	return proto.UnmarshalOptions{DiscardUnknown: true, Merge: true}.Unmarshal(b, m.Origin)
}

func (r *Request) decodeFlags(b []byte) error {
	f := fields{rest: b}
	for f.next() {
		switch f.tag {
		case varintField(1):
			r.NoFill = f.value != 0
		case varintField(2):
			r.Recheck = f.value != 0
		case varintField(3):
			r.Small = f.value != 0
		case varintField(4):
			r.FillOnly = f.value != 0
		case varintField(5):
			r.Fields = f.value != 0
		case varintField(6):
			r.Validate = f.value != 0
		case varintField(7):
			r.Authorize = f.value != 0
		case varintField(8):
			r.Site = f.value != 0
		case varintField(9):
			r.sparse = f.value != 0
		}
	}
	return f.err
}

func (r *Request) decodeMapVersion(b []byte) error {
	f := fields{rest: b}
	for f.next() {
		switch f.tag {
		case varintField(1):
			r.Epoch = f.value
		case varintField(2):
			r.Seq = f.value
		}
	}
	return f.err
}

func appendPeer(ids []peer.ID, b []byte, what string) ([]peer.ID, error) {
	if len(ids) >= MaxPath {
		return nil, fmt.Errorf("%s of more than %d peers", what, MaxPath)
	}
	id, err := peer.IDFromBytes(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return append(ids, id), nil
}

// proof is a PROOF. The slices of one that came are part of its message.
type proof struct {
	block                            uint64
	root, slice, hashes, signer, sig []byte
	first, leaves, part, sparse      uint32
}

func decodeProof(b []byte) (p proof, err error) {
	f := fields{rest: b}
	for f.next() {
		switch f.tag {
		case varintField(1):
			p.block = f.value
		case bytesField(2):
			p.root = f.bytes
		case bytesField(3):
			p.slice = f.bytes
		case varintField(4):
			p.first = uint32(f.value)
		case varintField(5):
			p.leaves = uint32(f.value)
		case bytesField(6):
			p.hashes = f.bytes
		case bytesField(7):
			p.signer = f.bytes
		case bytesField(8):
			p.sig = f.bytes
		case varintField(9):
			p.part = uint32(f.value)
		case varintField(10):
			p.sparse = uint32(f.value)
		}
	}
	return p, f.err
}
