package rangeread

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/p2pnode/p2pnode/protocols/rangeread/pb"
)

// frame is one frame of an answer: where it and its payload lie.
type frame struct {
	kind             kind
	start, from, end int
}

// framesOf cuts an answer.
func framesOf(t testing.TB, answer []byte) (out []frame) {
	t.Helper()
	in := bytes.NewReader(answer)
	br := bufio.NewReader(in)
	at := func() int { return len(answer) - in.Len() - br.Buffered() }
	for {
		start := at()
		k, n, err := readFrameHead(br)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		from := at()
		if _, err := br.Discard(n); err != nil {
			t.Fatal(err)
		}
		out = append(out, frame{k, start, from, from + n})
	}
}

func appendFrame(b []byte, k kind, payload []byte) []byte {
	b = append(b, byte(k))
	b = binary.AppendUvarint(b, uint64(len(payload)))
	return append(b, payload...)
}

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// changeProof changes the first PROOF of an answer.
func changeProof(t testing.TB, answer []byte, change func(p *pb.Proof)) []byte {
	t.Helper()
	for _, f := range framesOf(t, answer) {
		if f.kind != kindProof {
			continue
		}
		var p pb.Proof
		if err := proto.Unmarshal(answer[f.from:f.end], &p); err != nil {
			t.Fatal(err)
		}
		change(&p)
		out := appendFrame(slices.Clone(answer[:f.start]), kindProof, encode(t, &p))
		return append(out, answer[f.end:]...)
	}
	t.Fatal("no proof in the answer")
	return nil
}
