package fetch

import (
	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
	"github.com/p2pnode/p2pnode/protocols/fetch/pb"
	"github.com/p2pnode/p2pnode/protocols/internal/frame"
)

func requestToProto(seq uint64, cursors []assignment.Cursor, want *content.Prefixes) *pb.Request {
	m := &pb.Request{Seq: seq, Prefixes: want.Bytes()}
	for _, c := range cursors {
		m.Cursors = append(m.Cursors, &pb.Cursor{Supernode: []byte(c.Supernode), Epoch: c.Epoch, Seq: c.Seq})
	}
	return m
}

func requestFromProto(m *pb.Request) ([]assignment.Cursor, *content.Prefixes, error) {
	if len(m.GetCursors()) > maxCursors {
		return nil, nil, frame.Malformed("%d cursors: at most %d", len(m.GetCursors()), maxCursors)
	}
	want, ok := content.PrefixesFromBytes(m.GetPrefixes())
	if !ok {
		return nil, nil, frame.Malformed("prefixes of %d bytes", len(m.GetPrefixes()))
	}
	var out []assignment.Cursor
	for _, c := range m.GetCursors() {
		id, err := frame.PeerID(c.GetSupernode())
		if err != nil {
			return nil, nil, err
		}
		for _, o := range out {
			if o.Supernode == id {
				return nil, nil, frame.Malformed("two cursors of %s", id)
			}
		}
		out = append(out, assignment.Cursor{Supernode: id, Epoch: c.GetEpoch(), Seq: c.GetSeq()})
	}
	return out, want, nil
}

func pageToProto(seq uint64, entries []assignment.Signed, more bool) *pb.Page {
	return &pb.Page{Seq: seq, Signed: assignment.Encode(entries), More: more}
}

func pageFromProto(m *pb.Page) ([]assignment.Signed, error) {
	if len(m.GetSigned()) > maxEntries {
		return nil, frame.Malformed("%d entries: at most %d", len(m.GetSigned()), maxEntries)
	}
	return assignment.Decode(m.GetSigned())
}
