package rangeread

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/protobuf/proto"
)

// kind is the first byte of a frame.
type kind byte

const (
	kindHeader kind = 1
	kindProof  kind = 2
	kindData   kind = 3
	kindWait   kind = 4
	kindError  kind = 5
	kindEnd    kind = 6
)

func (k kind) max() int {
	switch k {
	case kindHeader:
		return maxHeader
	case kindProof:
		return maxProof
	case kindData:
		return MaxData
	case kindWait:
		return maxWait
	case kindError:
		return maxError
	case kindEnd:
		return binary.MaxVarintLen64
	default:
		return 0
	}
}

// readFrameHead reads a frame's kind and length, and checks them.
func readFrameHead(br *bufio.Reader) (kind, int, error) {
	b, err := br.ReadByte()
	if err != nil {
		return 0, 0, err
	}
	k := kind(b)
	n, err := readLength(br)
	if err != nil {
		return 0, 0, err
	}
	if k < kindHeader || k > kindEnd || n > uint64(k.max()) {
		return 0, 0, fmt.Errorf("%w: frame of kind %d with %d bytes", ErrProtocol, k, n)
	}
	return k, int(n), nil
}

// readLength reads a uvarint of at most 64 bits.
func readLength(br *bufio.Reader) (uint64, error) {
	var n uint64
	for i := range binary.MaxVarintLen64 {
		b, err := br.ReadByte()
		if err != nil {
			return 0, noEOF(err)
		}
		if i == binary.MaxVarintLen64-1 && b > 1 {
			break
		}
		n |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			return n, nil
		}
	}
	return 0, fmt.Errorf("%w: length of more than 64 bits", ErrProtocol)
}

// scratch holds the payload of a message while it is decoded.
type scratch struct{ buf []byte }

// bytes reads n bytes; they are valid until the next call.
func (s *scratch) bytes(br *bufio.Reader, n int) ([]byte, error) {
	if cap(s.buf) < n {
		s.buf = make([]byte, n)
	}
	b := s.buf[:n]
	_, err := io.ReadFull(br, b)
	return b, noEOF(err)
}

// read reads and decodes a message of n bytes.
func (s *scratch) read(br *bufio.Reader, n int, m proto.Message) error {
	b, err := s.bytes(br, n)
	if err != nil {
		return err
	}
	return unmarshal(b, m, 0)
}

// unmarshal decodes a message by the generated code; for nested see countFields.
func unmarshal(b []byte, m proto.Message, nested uint64) error {
	if len(b) > 2*maxFields { // a field has two bytes
		if _, err := countFields(b, nested); err != nil {
			return err
		}
	}
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, m); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return nil
}

func noEOF(err error) error {
	if err == io.EOF { //nolint:errorlint // bufio and io return it bare
		return io.ErrUnexpectedEOF
	}
	return err
}

// muxerFrame is how many bytes of a stream yamux sends at once at the most: with
// its own header they are 64 KiB. What does not fill one costs as much CPU to send
// and to receive as some KiB.
const muxerFrame = 64<<10 - 12

// writeBufferSize holds what did not fill a frame of the muxer, a full DATA frame
// and the small frames around it, so that a small answer leaves in one write.
const writeBufferSize = muxerFrame + MaxData + 16<<10

var writeBuffers = sync.Pool{New: func() any { b := make([]byte, 0, writeBufferSize); return &b }}

// frameWriter gathers frames in a pooled buffer. Not safe for concurrent use.
type frameWriter struct {
	w   io.Writer
	buf *[]byte
}

// take takes a buffer, until release.
func (fw *frameWriter) take() {
	fw.buf = writeBuffers.Get().(*[]byte)
	*fw.buf = (*fw.buf)[:0]
}

// release gives the buffer back. What is gathered and not flushed is lost.
func (fw *frameWriter) release() {
	if fw.buf != nil {
		writeBuffers.Put(fw.buf)
		fw.buf = nil
	}
}

func (fw *frameWriter) flush() error {
	if len(*fw.buf) == 0 {
		return nil
	}
	_, err := fw.w.Write(*fw.buf)
	*fw.buf = (*fw.buf)[:0]
	return err
}

// spill sends what fills whole frames of the muxer. The rest goes with what
// follows, or with the next flush.
func (fw *frameWriter) spill() error {
	b := *fw.buf
	n := len(b) / muxerFrame * muxerFrame
	if n == 0 {
		return nil
	}
	_, err := fw.w.Write(b[:n])
	*fw.buf = b[:copy(b, b[n:])]
	return err
}

// room makes sure that n bytes can be appended.
func (fw *frameWriter) room(n int) error {
	if cap(*fw.buf)-len(*fw.buf) < n {
		return fw.flush()
	}
	return nil
}

// errTooLarge says that a message does not fit its frame; nothing was written.
var errTooLarge = errors.New("frame too large")

// frameHead is the most that a frame's kind and length take.
const frameHead = 1 + binary.MaxVarintLen32

// generated appends a frame of a message that the generated code encodes.
func (fw *frameWriter) generated(k kind, m proto.Message) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode frame of kind %d: %w", k, err)
	}
	return fw.frame(k, b)
}

func (fw *frameWriter) frame(k kind, payload []byte) error {
	if len(payload) > k.max() {
		return fmt.Errorf("%w: kind %d with %d bytes", errTooLarge, k, len(payload))
	}
	if err := fw.room(len(payload) + frameHead); err != nil {
		return err
	}
	b := append(*fw.buf, byte(k))
	b = binary.AppendUvarint(b, uint64(len(payload)))
	b = append(b, payload...)
	*fw.buf = b
	return nil
}

// data appends a DATA frame of n bytes and returns them to be written in place;
// undo takes the frame back.
func (fw *frameWriter) data(n int) (p []byte, undo int, err error) {
	if err := fw.room(n + frameHead); err != nil {
		return nil, 0, err
	}
	undo = len(*fw.buf)
	b := append(*fw.buf, byte(kindData))
	b = binary.AppendUvarint(b, uint64(n))
	b = b[:len(b)+n]
	*fw.buf = b
	return b[len(b)-n:], undo, nil
}

func (fw *frameWriter) undo(to int) { *fw.buf = (*fw.buf)[:to] }

// aside returns n bytes at the far end of the buffer, which stay as they are
// while less than used bytes are appended.
func (fw *frameWriter) aside(n, used int) ([]byte, error) {
	if err := fw.room(n + used); err != nil {
		return nil, err
	}
	return (*fw.buf)[cap(*fw.buf)-n : cap(*fw.buf)], nil
}

// endAt is end for a file whose size was not known before.
func (fw *frameWriter) endAt(size int64) error {
	if err := fw.frame(kindEnd, binary.AppendUvarint(nil, uint64(size))); err != nil {
		return err
	}
	return fw.flush()
}

func (fw *frameWriter) end() error {
	if err := fw.room(2); err != nil {
		return err
	}
	*fw.buf = append(*fw.buf, byte(kindEnd), 0)
	return fw.flush()
}
