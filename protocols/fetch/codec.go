package fetch

import (
	"github.com/p2pnode/p2pnode/protocols/assignment"
	"github.com/p2pnode/p2pnode/protocols/fetch/pb"
	"github.com/p2pnode/p2pnode/protocols/internal/frame"
)

func requestToProto(seq uint64, cursors []assignment.Cursor) *pb.Request {
	m := &pb.Request{Seq: seq}
	for _, c := range cursors {
		m.Cursors = append(m.Cursors, &pb.Cursor{Supernode: []byte(c.Supernode), Epoch: c.Epoch, Seq: c.Seq})
	}
	return m
}

func requestFromProto(m *pb.Request) ([]assignment.Cursor, error) {
	if len(m.GetCursors()) > maxCursors {
		return nil, frame.Malformed("%d cursors: at most %d", len(m.GetCursors()), maxCursors)
	}
	var out []assignment.Cursor
	for _, c := range m.GetCursors() {
		id, err := frame.PeerID(c.GetSupernode())
		if err != nil {
			return nil, err
		}
		for _, o := range out {
			if o.Supernode == id {
				return nil, frame.Malformed("two cursors of %s", id)
			}
		}
		out = append(out, assignment.Cursor{Supernode: id, Epoch: c.GetEpoch(), Seq: c.GetSeq()})
	}
	return out, nil
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
