package supernode

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/p2pnode/p2pnode/protocols/assignment"
	"github.com/p2pnode/p2pnode/protocols/assignment/pb"
)

const (
	// snapshotMagic begins a snapshot and names its version: a file with another
	// is not read.
	snapshotMagic = "p2pnode-supernode/1\n"
	// maxSnapshot bounds the file that is read, in bytes.
	maxSnapshot = 256 << 20
	// snapshotEvery is the time between two snapshots.
	snapshotEvery = time.Minute
)

var errSnapshot = errors.New("not a whole snapshot")

// snapshot is what a supernode keeps over a restart: the orders, which nobody
// else knows, and what it published, which its peers know too. After the magic
// the file has records, each behind its length as a uvarint: first the header in
// JSON, then the signed updates; at the end a CRC-32C of all before, big-endian.
type snapshot struct {
	Saved time.Time `json:"saved"`
	// Epoch is that of the life that wrote it; 0 in files of older versions.
	Epoch   uint64      `json:"epoch"`
	Orders  []PeerOrder `json:"orders"`
	updates []assignment.Signed
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (s snapshot) encode() ([]byte, error) {
	header, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode snapshot: %w", err)
	}
	out := []byte(snapshotMagic)
	out = append(binary.AppendUvarint(out, uint64(len(header))), header...)
	for _, m := range assignment.Encode(s.updates) {
		out = binary.AppendUvarint(out, uint64(proto.Size(m)))
		if out, err = (proto.MarshalOptions{}).MarshalAppend(out, m); err != nil {
			return nil, fmt.Errorf("encode snapshot: %w", err)
		}
	}
	return sealed(out), nil
}

// sealed appends the checksum.
func sealed(b []byte) []byte {
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeSnapshot(b []byte) (snapshot, error) {
	var s snapshot
	body, ok := bytes.CutPrefix(b, []byte(snapshotMagic))
	if !ok {
		return s, fmt.Errorf("%w: it is of another version, or something else", errSnapshot)
	}
	if len(body) < 4 || crc32.Checksum(b[:len(b)-4], castagnoli) != binary.BigEndian.Uint32(b[len(b)-4:]) {
		return s, fmt.Errorf("%w: its checksum is wrong", errSnapshot)
	}
	body = body[:len(body)-4]
	var records [][]byte
	for len(body) > 0 {
		n, size := binary.Uvarint(body)
		if size <= 0 || n > uint64(len(body)-size) {
			return s, fmt.Errorf("%w: record %d is cut short", errSnapshot, len(records))
		}
		records, body = append(records, body[size:size+int(n)]), body[size+int(n):]
	}
	if len(records) == 0 {
		return s, fmt.Errorf("%w: it has no header", errSnapshot)
	}
	if err := json.Unmarshal(records[0], &s); err != nil {
		return s, fmt.Errorf("%w: header: %w", errSnapshot, err)
	}
	if s.Epoch >= math.MaxInt64 { // the next life's would be one that no peer takes
		return s, fmt.Errorf("%w: epoch %d", errSnapshot, s.Epoch)
	}
	for i, o := range s.Orders {
		if err := o.Peer.Validate(); err != nil {
			return s, fmt.Errorf("%w: order %d: %w", errSnapshot, i, err)
		}
	}
	for i, record := range records[1:] {
		var m pb.Signed
		if err := proto.Unmarshal(record, &m); err != nil {
			return s, fmt.Errorf("%w: update %d: %w", errSnapshot, i, err)
		}
		signed, err := assignment.Decode([]*pb.Signed{&m})
		if err != nil {
			return s, fmt.Errorf("%w: update %d: %w", errSnapshot, i, err)
		}
		s.updates = append(s.updates, signed...)
	}
	return s, nil
}

// readSnapshot reads the file; a missing one is an empty snapshot.
func readSnapshot(path string) (snapshot, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return snapshot{}, nil
	}
	if err == nil && info.Size() > maxSnapshot {
		err = fmt.Errorf("%w: %d bytes, at most %d", errSnapshot, info.Size(), maxSnapshot)
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(path)
	}
	var s snapshot
	if err == nil {
		s, err = decodeSnapshot(b)
	}
	if err != nil {
		return snapshot{}, fmt.Errorf("read snapshot %s: %w", path, err)
	}
	return s, nil
}

// write replaces the file at once and for good: a crash leaves the old one or
// the new one.
func (s snapshot) write(path string) error {
	b, err := s.encode()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write snapshot %s: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// snapshot returns what is to be kept: what counts, and what an earlier life
// published that this one has not spoken of yet, as it waits for its peers.
func (c *core) snapshot(now time.Time) snapshot {
	return snapshot{Saved: now, Epoch: c.epoch, Orders: c.orders.list(), updates: append(c.past.unsaid(c.log), c.log.live()...)}
}

// restore takes over what an earlier life kept. The peers of its last pool are
// waited for, as after a restart that only they remember, unless that was more
// than a lease ago. It must be called before anything is published.
func (c *core) restore(s snapshot, now time.Time) {
	for _, o := range s.Orders {
		c.orders[o.Peer] = o.Order
	}
	last, entries := s.Epoch, open(c.self, s.updates)
	for _, u := range entries {
		last = max(last, u.Epoch)
	}
	if last >= c.epoch { // the clock went back: what is published now must count all the same
		c.begin(last + 1)
	}
	if len(entries) == 0 {
		return
	}
	c.past.restore(entries, c.epoch)
	if now.Sub(s.Saved) < c.cfg.Lease {
		c.past.meet(now)
	}
}

// live returns what still counts, in the order of the sequence numbers.
func (l *log) live() []assignment.Signed {
	var out []assignment.Signed
	for _, e := range l.entries {
		if e.kept > 0 {
			out = append(out, e.signed)
		}
	}
	return out
}
