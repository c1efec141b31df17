package rangeread

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread/pb"
)

// Request asks for a range of a task's file.
type Request struct {
	Task content.TaskID
	// Generation wanted; zero for whichever the source has.
	Generation content.Generation
	// Range wanted; Len 0 asks for the header alone.
	Range content.Range
	// NoFill: answer from what is held or in flight, start nothing.
	NoFill bool
	// Recheck: the copy sent last was wrong; check the stored one first.
	Recheck bool
	// Small: where the range lies in a part of a leaf, 4 or 8 KiB, that part will
	// do. For a lone small read whose bytes are not stored.
	Small bool
	// FillOnly: no bytes are wanted; the header comes when the source holds the
	// range, having brought in what it lacked of it.
	FillOnly bool
	// Fields: the answer's header is to have Meta.Fields.
	Fields bool
	// Validate: the source asks whether what it holds is current, however
	// lately it did.
	Validate bool
	// Authorize: the source, a seed, tries the credentials in Origin at the origin;
	// the answer is the header, with Grant where the file is private.
	Authorize bool
	// Site: the source, which is of the reader's site, reads for all of it. The
	// reader lets no peer wait for what it gets this way.
	Site bool
	// Path holds the peers between the client and the source; at most MaxPath.
	Path []peer.ID
	// Skip holds the peers found dead; at most MaxPath.
	Skip []peer.ID
	// Grant is a signed permission to read a private file (content.Grant).
	Grant []byte
	// Origin is what a seed needs on a miss; nil where none shall be served.
	Origin *Origin
	// Epoch and Seq are the version of the seed map that was used.
	Epoch, Seq uint64
	// Brief is not sent: how long a dial may take, and for how long the source may
	// say nothing but WAIT for anything but the origin; 0 for the bounds of
	// ClientConfig.
	Brief time.Duration
	// Patience is not sent: for how long the source may say nothing but WAIT, of
	// whatever file and for whatever reason, where that is shorter than
	// ClientConfig.Patience; 0 for the bounds of that.
	Patience time.Duration

	sparse bool // proofs may leave out what a reader of whole frames can make
}

// Origin says where a task's file comes from.
type Origin struct {
	// URL in full; at most 8 KiB.
	URL string
	// Header holds the requester's Authorization and Cookie, if needed: for seeds
	// alone, as is a signature in the URL.
	Header []Field
	// FilterVersion is that of the query filter by which the task was named.
	FilterVersion uint32
	// Size of the whole file in bytes, where the reader knows it; else -1.
	Size int64
}

// Field is one HTTP header field.
type Field struct{ Name, Value string }

// Fields returns header fields in a fixed order: by name, those of one name as
// they are.
func Fields(header map[string][]string) (out []Field) {
	for _, name := range slices.Sorted(maps.Keys(header)) {
		for _, value := range header[name] {
			out = append(out, Field{Name: name, Value: value})
		}
	}
	return out
}

// Source says where the first byte of an answer came from.
type Source = pb.Source

// Sources of a first byte.
const (
	SourceUnknown = pb.Source_UNKNOWN
	SourceStore   = pb.Source_STORE
	SourcePeer    = pb.Source_PEER
	SourceOrigin  = pb.Source_ORIGIN
)

// Header is what a source says of the file before the bytes.
type Header struct {
	content.Meta
	Source       Source
	CacheControl string
	// Age since the head last validated the content with the origin.
	Age time.Duration
	// Holders are other peers that hold or receive these bytes; at most 16.
	Holders []peer.AddrInfo
	// Private: the file may be served against a grant alone.
	Private bool
	// Grant is the answer to Authorize.
	Grant []byte
}

const (
	// MaxURL bounds Origin.URL in bytes.
	MaxURL = 8 << 10
	// MaxOriginHeaders bounds Origin.Header.
	MaxOriginHeaders = 16

	maxGrant   = content.MaxGrant
	maxHolders = 16
)

// signedSize reads a file size or offset off the wire; the top bit is refused.
func signedSize(n uint64, what string) (int64, error) {
	if n > 1<<62 {
		return 0, fmt.Errorf("%s %d is too large", what, n)
	}
	return int64(n), nil
}

func (o *Origin) marshal() *pb.Origin {
	m := &pb.Origin{Url: o.URL, FilterVersion: o.FilterVersion}
	if o.Size >= 0 {
		size := uint64(o.Size)
		m.Size = &size
	}
	for _, f := range o.Header {
		m.Headers = append(m.Headers, &pb.HeaderField{Name: f.Name, Value: f.Value})
	}
	return m
}

func unmarshalOrigin(m *pb.Origin) (*Origin, error) {
	if len(m.Url) == 0 || len(m.Url) > MaxURL {
		return nil, fmt.Errorf("URL of %d bytes: want 1 to %d", len(m.Url), MaxURL)
	}
	o := &Origin{URL: m.Url, FilterVersion: m.FilterVersion, Size: -1}
	if m.Size != nil {
		size, err := signedSize(*m.Size, "size")
		if err != nil {
			return nil, err
		}
		o.Size = size
	}
	if len(m.Headers) > MaxOriginHeaders {
		return nil, fmt.Errorf("%d header fields: at most %d", len(m.Headers), MaxOriginHeaders)
	}
	for _, f := range m.Headers {
		o.Header = append(o.Header, Field{f.Name, f.Value})
	}
	return o, nil
}

func marshalHolders(infos []peer.AddrInfo) []*pb.Peer {
	var out []*pb.Peer
	for _, info := range infos[:min(len(infos), maxHolders)] {
		p := &pb.Peer{Id: []byte(info.ID)}
		for _, a := range info.Addrs[:min(len(info.Addrs), maxHolders)] {
			p.Addrs = append(p.Addrs, a.Bytes())
		}
		out = append(out, p)
	}
	return out
}

func unmarshalHolders(raw []*pb.Peer) ([]peer.AddrInfo, error) {
	if len(raw) > maxHolders {
		return nil, fmt.Errorf("%d holders: at most %d", len(raw), maxHolders)
	}
	var out []peer.AddrInfo
	for _, p := range raw {
		id, err := peer.IDFromBytes(p.Id)
		if err != nil {
			return nil, fmt.Errorf("holder: %w", err)
		}
		info := peer.AddrInfo{ID: id}
		for _, b := range p.Addrs[:min(len(p.Addrs), maxHolders)] {
			a, err := ma.NewMultiaddrBytes(b)
			if err != nil {
				return nil, fmt.Errorf("address of holder %s: %w", id, err)
			}
			info.Addrs = append(info.Addrs, a)
		}
		out = append(out, info)
	}
	return out, nil
}

// unmarshalHeader returns the header of an OK answer, or the *Error of another.
func unmarshalHeader(m *pb.Header, from peer.ID) (Header, error) {
	if len(m.Grant) > maxGrant {
		return Header{}, fmt.Errorf("%w: grant of %d bytes", ErrProtocol, len(m.Grant))
	}
	holders, err := unmarshalHolders(m.Holders)
	if err != nil {
		return Header{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	size := int64(-1)
	if m.Size != nil {
		if size, err = signedSize(*m.Size, "size"); err != nil {
			return Header{}, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
	}
	if m.Status != StatusOK {
		return Header{}, &Error{
			Status:       m.Status,
			OriginStatus: int(m.OriginStatus),
			RetryAfter:   time.Duration(m.RetryAfterMs) * time.Millisecond,
			Detail:       m.Detail,
			Size:         size,
			Peer:         from,
			Holders:      holders,
		}
	}
	gen, err := content.GenerationFromBytes(m.Generation)
	if err != nil || gen.IsZero() || size < 0 && !m.Sequential {
		return Header{}, fmt.Errorf("%w: header without size or generation", ErrProtocol)
	}
	if err := content.Fields(m.Fields).Check(); err != nil {
		return Header{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return Header{
		Meta: content.Meta{
			Size: size, Generation: gen, ETag: m.Etag, LastModified: m.LastModified,
			ContentType: m.ContentType, Fields: content.Fields(m.Fields), Sequential: m.Sequential,
		},
		Source:       m.Source,
		CacheControl: m.CacheControl,
		Age:          time.Duration(m.AgeS) * time.Second,
		Holders:      holders,
		Private:      m.Private,
		Grant:        m.Grant,
	}, nil
}

func (e *Error) header() *pb.Header {
	m := &pb.Header{
		Status:       e.Status,
		OriginStatus: uint32(max(0, e.OriginStatus)),
		RetryAfterMs: uint32(e.RetryAfter / time.Millisecond),
		Detail:       cut(e.Detail),
		Holders:      marshalHolders(e.Holders),
	}
	if e.Size >= 0 && e.Status == StatusRange {
		size := uint64(e.Size)
		m.Size = &size
	}
	return m
}

func (e *Error) message() *pb.Error {
	return &pb.Error{
		Status:       e.Status,
		OriginStatus: uint32(max(0, e.OriginStatus)),
		RetryAfterMs: uint32(e.RetryAfter / time.Millisecond),
		Detail:       cut(e.Detail),
	}
}

func unmarshalError(m *pb.Error, from peer.ID) *Error {
	return &Error{
		Status:       m.Status,
		OriginStatus: int(m.OriginStatus),
		RetryAfter:   time.Duration(m.RetryAfterMs) * time.Millisecond,
		Detail:       cut(m.Detail),
		Size:         -1,
		Peer:         from,
	}
}

func cut(s string) string {
	if len(s) > maxDetail {
		s = s[:maxDetail]
	}
	b := []byte(s)
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}

// asError makes any error one that can be sent.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return NewError(StatusInternal, "%v", err)
}
