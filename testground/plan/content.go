package plan

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
)

// File is content that every instance can compute: AES in counter mode, keyed
// by the run's seed and the file's number.
type File struct {
	Seed  uint64
	Index int
	Size  int64
}

// ETag is the file's strong validator.
func (f File) ETag() string { return fmt.Sprintf(`"%d-%d-%d"`, f.Seed, f.Index, f.Size) }

// Path is where the origin has the file.
func (f File) Path() string { return fmt.Sprintf("/file/%d", f.Index) }

// stream returns the key stream from an offset on.
func (f File) stream(off int64) cipher.Stream {
	var key, counter [aes.BlockSize]byte
	binary.BigEndian.PutUint64(key[:8], f.Seed)
	binary.BigEndian.PutUint64(key[8:], uint64(f.Index))
	binary.BigEndian.PutUint64(counter[8:], uint64(off/aes.BlockSize))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // the key has a right length
	}
	s := cipher.NewCTR(block, counter[:])
	skip := make([]byte, off%aes.BlockSize)
	s.XORKeyStream(skip, skip)
	return s
}

// Reader returns the n bytes from off on.
func (f File) Reader(off, n int64) io.Reader { return &contentReader{f.stream(off), n} }

type contentReader struct {
	stream cipher.Stream
	left   int64
}

// Read implements io.Reader.
func (r *contentReader) Read(b []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), r.left)]
	clear(b)
	r.stream.XORKeyStream(b, b)
	r.left -= int64(len(b))
	return len(b), nil
}

// checker is a writer that compares what it is given with the file from an
// offset on.
type checker struct {
	stream cipher.Stream
	at     int64
	want   []byte
}

func newChecker(f File, off int64) *checker { return &checker{stream: f.stream(off), at: off} }

// Write returns an error that names the first wrong byte.
func (c *checker) Write(b []byte) (int, error) {
	if cap(c.want) < len(b) {
		c.want = make([]byte, len(b))
	}
	want := c.want[:len(b)]
	clear(want)
	c.stream.XORKeyStream(want, want)
	for i := range b {
		if b[i] != want[i] {
			return i, wrongByteError{c.at + int64(i)}
		}
	}
	c.at += int64(len(b))
	return len(b), nil
}

// wrongByteError says where a file is not what it should be.
type wrongByteError struct{ at int64 }

// Error implements error.
func (e wrongByteError) Error() string { return fmt.Sprintf("byte %d is wrong", e.at) }
