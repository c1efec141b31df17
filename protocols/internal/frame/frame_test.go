package frame

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func frameOf(t testing.TB, m proto.Message) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := NewWriter(&b, 1<<20).Write(m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRoundTripWithProtodelim(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 127, 128, 16383, 16384, 70000} {
		want := wrapperspb.Bytes(bytes.Repeat([]byte{7}, n))
		ours := frameOf(t, want)
		var theirs bytes.Buffer
		if _, err := protodelim.MarshalTo(&theirs, want); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(ours, theirs.Bytes()) {
			t.Errorf("%d bytes: frame differs from protodelim's", n)
		}
		got := wrapperspb.Bytes([]byte("left over"))
		if err := NewReader(&theirs, 1<<20).Read(got); err != nil || !proto.Equal(got, want) {
			t.Errorf("%d bytes: read %d bytes, err %v", n, len(got.GetValue()), err)
		}
		var back wrapperspb.BytesValue
		if err := protodelim.UnmarshalFrom(bufio.NewReader(bytes.NewReader(ours)), &back); err != nil || !proto.Equal(&back, want) {
			t.Errorf("%d bytes: protodelim read %d bytes, err %v", n, len(back.GetValue()), err)
		}
	}
}

func TestReadTakesNothingBehindTheFrame(t *testing.T) {
	src := bytes.NewReader(append(frameOf(t, wrapperspb.String("first")), "rest"...))
	var m wrapperspb.StringValue
	if err := NewReader(src, 64).Read(&m); err != nil || m.GetValue() != "first" {
		t.Fatalf("read %q, err %v", m.GetValue(), err)
	}
	if rest, _ := io.ReadAll(src); string(rest) != "rest" {
		t.Errorf("left %q", rest)
	}
}

func TestReadTruncatedAtEveryByte(t *testing.T) {
	whole := frameOf(t, wrapperspb.Bytes(make([]byte, 200)))
	for n := range whole {
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		err := NewReader(iotest.OneByteReader(bytes.NewReader(whole[:n])), 1<<10).Read(&wrapperspb.BytesValue{})
		if err != want { //nolint:errorlint // both are returned bare
			t.Errorf("%d of %d bytes: err %v, want %v", n, len(whole), err, want)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	field := func(n int) []byte {
		var b []byte
		for range n {
			b = append(b, 0x0a, 0) // an empty path
		}
		return append(protowire.AppendVarint(nil, uint64(len(b))), b...)
	}
	for _, c := range []struct {
		name string
		in   []byte
		want error
	}{
		{"one byte too large", protowire.AppendVarint(nil, 16<<10+1), ErrTooLarge},
		{"length of 2^64-1", protowire.AppendVarint(nil, 1<<64-1), ErrTooLarge},
		{"length without end", bytes.Repeat([]byte{0x80}, 20), ErrMalformed},
		{"length over 64 bits", append(bytes.Repeat([]byte{0xff}, 9), 2), ErrMalformed},
		{"field longer than the message", []byte{2, 0x0a, 5}, ErrMalformed},
		{"wire type 7", []byte{1, 0x0f}, ErrMalformed},
		{"field number 0", []byte{2, 0x02, 0}, ErrMalformed},
		{"string not UTF-8", []byte{3, 0x0a, 1, 0xff}, ErrMalformed},
		{"most fields", field(maxFields), nil},
		{"one field too many", field(maxFields + 1), ErrMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := NewReader(bytes.NewReader(c.in), 16<<10).Read(&fieldmaskpb.FieldMask{})
			if !errors.Is(err, c.want) {
				t.Errorf("err %v, want %v", err, c.want)
			}
		})
	}
}

func TestReadReturnsTheStreamsError(t *testing.T) {
	boom := errors.New("boom")
	for n := range 3 {
		r := io.MultiReader(bytes.NewReader([]byte{5, 0x0a}[:n]), iotest.ErrReader(boom))
		if err := NewReader(r, 64).Read(&wrapperspb.BytesValue{}); !errors.Is(err, boom) {
			t.Errorf("after %d bytes: err %v", n, err)
		}
	}
}

func TestReadIgnoresUnknownFields(t *testing.T) {
	b := protowire.AppendTag([]byte{}, 9, protowire.VarintType)
	b = protowire.AppendVarint(b, 1)
	b = append(b, 0x0a, 1, 'x')
	var m wrapperspb.StringValue
	if err := Unmarshal(b, &m); err != nil || m.GetValue() != "x" || len(m.ProtoReflect().GetUnknown()) != 0 {
		t.Errorf("got %v, err %v", &m, err)
	}
}

// A frame in two writes is two packets, and one that is too large must leave
// nothing on the stream.
func TestWriterWritesOnceOrNotAtAll(t *testing.T) {
	var w countingWriter
	fw := NewWriter(&w, 20)
	if err := fw.Write(wrapperspb.String(strings.Repeat("x", 19))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("21 bytes: err %v", err)
	}
	if w.writes != 0 {
		t.Errorf("%d writes of a message that is too large", w.writes)
	}
	for i := range 2 {
		if err := fw.Write(wrapperspb.String(strings.Repeat("x", 18))); err != nil || w.writes != i+1 {
			t.Errorf("20 bytes: err %v, %d writes", err, w.writes)
		}
	}
	if want := slices.Concat(w.Bytes()[:21], w.Bytes()[:21]); !bytes.Equal(w.Bytes(), want) {
		t.Error("second frame differs from the first")
	}
}

type countingWriter struct {
	bytes.Buffer
	writes int
}

func (w *countingWriter) Write(b []byte) (int, error) {
	w.writes++
	return w.Buffer.Write(b)
}

func FuzzRead(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{3, 0x0a, 1, 'x', 0})
	f.Add(bytes.Repeat([]byte{0xff}, 11))
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1 << 10
		src := bytes.NewReader(b)
		var m fieldmaskpb.FieldMask
		err := NewReader(src, limit).Read(&m)
		if read := len(b) - src.Len(); read > limit+10 {
			t.Fatalf("read %d bytes", read)
		}
		if err != nil {
			return
		}
		var again fieldmaskpb.FieldMask
		if err := NewReader(bytes.NewReader(frameOf(t, &m)), limit).Read(&again); err != nil || !proto.Equal(&m, &again) {
			t.Fatalf("not the same when written and read again: %v, %v: %v", &m, &again, err)
		}
	})
}
