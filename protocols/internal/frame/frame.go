// Package frame is what the control protocols share: messages with a length in
// front, read within bounds, and streams that are served within limits.
//
// A frame is a varint length followed by that many bytes of a protobuf message,
// as google.golang.org/protobuf/encoding/protodelim writes it. The reader here
// is a stricter protodelim: it reads not a byte more than the frame, and counts
// the fields of a message before it decodes them, since an empty field of two
// bytes can decode to a struct of two hundred.
//
// Rejected: a bufio.Reader below protodelim (it reads behind the frame, which a
// stream that is handed on does not bear), and msgio (it allocates what the
// length says before a byte came).
package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Errors that say what was wrong with a peer's message. A stream that brought
// one is of no more use.
var (
	// ErrTooLarge: the frame is larger than the reader or writer allows.
	ErrTooLarge = errors.New("message is too large")
	// ErrMalformed: not a frame, not a message, or a field breaks its rules.
	ErrMalformed = errors.New("malformed message")
)

// maxFields bounds the top-level fields of one message. It is above what any
// of the protocols allows in the messages of its own.
const maxFields = 4096

// Reader reads frames. Not safe for concurrent use.
type Reader struct {
	r   io.Reader
	max int
	one [1]byte
}

// NewReader returns a reader of frames whose messages have at most limit bytes.
// It never reads behind the frame it was asked for.
func NewReader(r io.Reader, limit int) *Reader { return &Reader{r: r, max: limit} }

// Read reads one frame into m, replacing what m held. It returns io.EOF where
// the stream ended before the frame, io.ErrUnexpectedEOF where it ended in it,
// an error that wraps ErrTooLarge or ErrMalformed, or what the stream returned.
// After any error the stream's position is not known.
func (r *Reader) Read(m proto.Message) error {
	n, err := r.length()
	if err != nil {
		return err
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r.r, b); err != nil {
		return unexpected(err)
	}
	return Unmarshal(b, m)
}

// length reads the varint in front of a message.
func (r *Reader) length() (int, error) {
	var b [binary.MaxVarintLen64]byte
	for i := range b {
		if _, err := io.ReadFull(r.r, r.one[:]); err != nil {
			if i > 0 {
				err = unexpected(err)
			}
			return 0, err
		}
		b[i] = r.one[0]
		if b[i] < 0x80 {
			size, n := protowire.ConsumeVarint(b[:i+1])
			if n < 0 {
				break
			}
			if size > uint64(r.max) {
				return 0, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, size, r.max)
			}
			return int(size), nil
		}
	}
	return 0, fmt.Errorf("%w: length of more than 64 bits", ErrMalformed)
}

// Unmarshal decodes one message that is already bounded in size, such as a
// GossipSub message. Its errors wrap ErrMalformed. Unknown fields are ignored.
func Unmarshal(b []byte, m proto.Message) error {
	fields := 0
	for rest := b; len(rest) > 0; fields++ {
		_, _, n := protowire.ConsumeField(rest)
		if n < 0 {
			return fmt.Errorf("%w: field %d: %w", ErrMalformed, fields, protowire.ParseError(n))
		}
		rest = rest[n:]
	}
	if fields > maxFields {
		return fmt.Errorf("%w: %d fields, at most %d", ErrMalformed, fields, maxFields)
	}
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, m); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

// Writer writes frames, each in one Write. Not safe for concurrent use.
type Writer struct {
	w   io.Writer
	max int
	buf []byte
}

// NewWriter returns a writer of frames whose messages have at most limit bytes.
func NewWriter(w io.Writer, limit int) *Writer { return &Writer{w: w, max: limit} }

// Write writes m as one frame. A message that is too large is not written, and
// the error wraps ErrTooLarge.
func (w *Writer) Write(m proto.Message) error {
	size := proto.Size(m)
	if size > w.max {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, size, w.max)
	}
	b := protowire.AppendVarint(w.buf[:0], uint64(size))
	b, err := proto.MarshalOptions{Deterministic: true, UseCachedSize: true}.MarshalAppend(b, m)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	w.buf = b
	_, err = w.w.Write(b)
	return err
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
