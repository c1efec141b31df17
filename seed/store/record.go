package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pnode/p2pnode/internal/content"
)

// The form of a stored value, integers big-endian:
//
//	record  1 ‖ root (32) ‖ signer ‖ sig ‖ outboard ‖ crc
//	info    1 ‖ size (8) ‖ created (8, Unix ns) ‖ flags (1): 1 sequential, 2 private
//	          ‖ URL ‖ digest ‖ ETag ‖ last-modified ‖ content type ‖ cache control
//	          [‖ fields] ‖ crc
//	times   1 ‖ (last use of a stripe (4, Unix s; 0 unknown))* ‖ crc
//	pins    1 ‖ (first stripe (8) ‖ the one after the last (8))* ‖ crc
//
// A text has its length before it (2). The sum (4) is CRC-32C over the key the
// value is stored under and all that stands before it: it finds a flipped bit,
// which the tree would not everywhere, and a value under another's key.
const (
	formatVersion = 1
	sumSize       = 4

	flagSequential = 1
	flagPrivate    = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errRecord says that a stored value is not what was stored.
var errRecord = errors.New("malformed record")

func appendText[T ~string | ~[]byte](dst []byte, s T) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(s)))
	return append(dst, s...)
}

func appendSum(dst []byte, key string) []byte {
	return binary.BigEndian.AppendUint32(dst, sum(key, dst))
}

func sum(key string, value []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(key), castagnoli), castagnoli, value)
}

// decoder takes a value apart; bad is set by the first field that is not there.
type decoder struct {
	rest []byte
	bad  bool
}

func newDecoder(key string, value []byte) (*decoder, error) {
	if len(value) < 1+sumSize {
		return nil, fmt.Errorf("%w: %d bytes", errRecord, len(value))
	}
	body, tail := value[:len(value)-sumSize], value[len(value)-sumSize:]
	if sum(key, body) != binary.BigEndian.Uint32(tail) {
		return nil, fmt.Errorf("%w: wrong checksum", errRecord)
	}
	if body[0] != formatVersion {
		return nil, fmt.Errorf("%w: version %d", errRecord, body[0])
	}
	return &decoder{rest: body[1:]}, nil
}

func (d *decoder) take(n int) []byte {
	if d.bad || n > len(d.rest) {
		d.bad = true
		return make([]byte, min(n, 8))
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) uint32() uint32 { return binary.BigEndian.Uint32(d.take(4)) }

func (d *decoder) uint64() uint64 { return binary.BigEndian.Uint64(d.take(8)) }

func (d *decoder) text(limit int) []byte {
	n := int(binary.BigEndian.Uint16(d.take(2)))
	if n > limit {
		d.bad = true
		return nil
	}
	if d.bad {
		return nil
	}
	return d.take(n)
}

// end returns an error unless everything was there and nothing else.
func (d *decoder) end() error {
	if d.bad || len(d.rest) != 0 {
		return fmt.Errorf("%w: wrong length", errRecord)
	}
	return nil
}

// encodeRecord returns the value of a record that validateRecord has passed.
func encodeRecord(key string, rec Record) []byte {
	b := make([]byte, 0, 1+len(rec.Root)+6+len(rec.Signer)+len(rec.Sig)+len(rec.Outboard)+sumSize)
	b = append(b, formatVersion)
	b = append(b, rec.Root[:]...)
	b = appendText(b, rec.Signer)
	b = appendText(b, rec.Sig)
	b = appendText(b, rec.Outboard)
	return appendSum(b, key)
}

// decodeRecord reads the record of a block of n bytes. The Record refers to
// value.
func decodeRecord(key string, value []byte, n int64) (*Record, error) {
	d, err := newDecoder(key, value)
	if err != nil {
		return nil, err
	}
	rec := new(Record)
	copy(rec.Root[:], d.take(content.HashSize))
	rec.Signer = peer.ID(d.text(maxSigner))
	rec.Sig = d.text(maxSig)
	rec.Outboard = d.text(maxText)
	if err := d.end(); err != nil {
		return nil, err
	}
	if err := validateRecord(*rec, n); err != nil {
		return nil, fmt.Errorf("%w: %w", errRecord, err)
	}
	return rec, nil
}

// encodeInfo returns the value of an info that validateInfo has passed.
func encodeInfo(key string, info Info) []byte {
	b := []byte{formatVersion}
	b = binary.BigEndian.AppendUint64(b, uint64(info.Size))
	b = binary.BigEndian.AppendUint64(b, uint64(info.Created.UnixNano()))
	var flags byte
	if info.Sequential {
		flags |= flagSequential
	}
	if info.Private {
		flags |= flagPrivate
	}
	b = append(b, flags)
	for _, s := range []string{info.URL, info.Digest, info.ETag, info.LastModified, info.ContentType, info.CacheControl} {
		b = appendText(b, s)
	}
	if info.Fields != "" { // versions before did not have it
		b = appendText(b, info.Fields)
	}
	return appendSum(b, key)
}

// decodeInfo reads the Info of a file; the generation stands in its key.
func decodeInfo(key string, value []byte, generation content.Generation) (Info, error) {
	d, err := newDecoder(key, value)
	if err != nil {
		return Info{}, err
	}
	var info Info
	info.Generation = generation
	info.Size = int64(d.uint64())
	info.Created = time.Unix(0, int64(d.uint64()))
	flags := d.take(1)[0]
	info.Sequential, info.Private = flags&flagSequential != 0, flags&flagPrivate != 0
	for _, s := range []*string{&info.URL, &info.Digest, &info.ETag, &info.LastModified, &info.ContentType, &info.CacheControl} {
		*s = string(d.text(maxText))
	}
	if len(d.rest) > 0 {
		info.Fields = content.Fields(d.text(maxText))
		if info.Fields == "" { // is left out where it is written
			return Info{}, fmt.Errorf("%w: empty fields", errRecord)
		}
	}
	if err := d.end(); err != nil {
		return Info{}, err
	}
	if info.Size < 0 || flags > flagSequential|flagPrivate {
		return Info{}, fmt.Errorf("%w: size %d, flags %d", errRecord, info.Size, flags)
	}
	return info, nil
}

// encodeTimes returns the value of a page's times of use.
func encodeTimes(key string, stripes []stripe) []byte {
	b := make([]byte, 0, 1+4*len(stripes)+sumSize)
	b = append(b, formatVersion)
	for i := range stripes {
		b = binary.BigEndian.AppendUint32(b, stripes[i].used.Load())
	}
	return appendSum(b, key)
}

func decodeTimes(key string, value []byte) ([]uint32, error) {
	d, err := newDecoder(key, value)
	if err != nil {
		return nil, err
	}
	used := make([]uint32, len(d.rest)/4)
	for i := range used {
		used[i] = d.uint32()
	}
	return used, d.end()
}

// encodePins returns the value of a file's pins.
func encodePins(key string, pins []run) []byte {
	b := []byte{formatVersion}
	for _, r := range pins {
		b = binary.BigEndian.AppendUint64(b, uint64(r.first))
		b = binary.BigEndian.AppendUint64(b, uint64(r.end))
	}
	return appendSum(b, key)
}

// decodePins returns runs in order, none empty.
func decodePins(key string, value []byte) ([]run, error) {
	d, err := newDecoder(key, value)
	if err != nil {
		return nil, err
	}
	pins := make([]run, len(d.rest)/16)
	last := int64(0)
	for i := range pins {
		pins[i] = run{int64(d.uint64()), int64(d.uint64())}
		if pins[i].first < last || pins[i].end <= pins[i].first {
			return nil, fmt.Errorf("%w: pins of stripes %d to %d", errRecord, pins[i].first, pins[i].end)
		}
		last = pins[i].end
	}
	return pins, d.end()
}
