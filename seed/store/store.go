// Package store keeps verified blocks of files, with what is needed to prove
// them, across restarts and crashes. Memory keeps them for a process's life,
// Disk in a directory:
//
//	lock                                held while a process uses the directory
//	clean                               there after an orderly Close, if all was checked
//	records/                            a go-datastore: Info a file, Record a block, times of use, pins
//	data/<2 hex>/<task>.<generation>    the blocks, each at its offset, sparse
//
// A block is written data first, record after, and is held from the moment its
// record is synced. The data are not synced: a kill of the process does not
// lose them, and after a crash of the machine every block is compared with its
// record before its first read. Concurrent writes share a sync of the records.
//
// The capacity bounds the bytes of blocks. A block that does not fit makes room:
// stripes are evicted until a twentieth of the capacity (at most 1 GiB) is free
// beside it, first those of files that are outdated, then those that another node owns, then all
// others, each time the least recently used first. A stripe stays while it is
// pinned, read, leased or written to; where that is true of all of them the
// block is refused. So a file may be larger than the store. Times of use are
// kept in memory to the second and written every half minute, all at once.
//
// Of the disk 64 MiB stay free for the records: what would take them makes room
// in the same way, whoever filled the disk, and is refused where that does not
// suffice. What is pinned stays even so.
//
// Rejected: a file a block (an inode and a directory entry each, and a name
// that is synced apart from its data), a sync of the data at each write (it
// halves the speed, and the tree finds a torn block anyhow), and blocks inside
// the datastore (compaction would write each of them several times). A list in
// order of use (a lock on each read; to look at all stripes, when a twentieth of
// them goes at a time, costs less). Eviction by file (one file may be larger
// than the store) or by block (readers ask for stripes).
package store

import (
	"errors"
	"io"
	"iter"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
)

// Errors that callers branch on.
var (
	// ErrNotFound: no such file, or the block is not held.
	ErrNotFound = errors.New("not in the store")
	// ErrCorrupt: the bytes on disk are not what was written. The block has
	// been dropped.
	ErrCorrupt = errors.New("stored block is corrupt")
	// ErrFull: there is no room, and nothing that could be evicted for it;
	// nothing was changed.
	ErrFull = errors.New("store is full")
	// ErrLocked: another process uses the directory.
	ErrLocked = errors.New("in use by another process")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store is closed")
)

// RecheckAfter is how long a check of a block stands for reads without verify.
const RecheckAfter = 10 * time.Minute

// DefaultCapacity is the bound of a store that was given none: 10 GiB.
const DefaultCapacity = 10 << 30

// MaxFileSize is the largest file of which blocks are kept: 8 TiB, which every
// common file system can hold in one sparse file.
const MaxFileSize = 8 << 40

// Key names one generation of a task's file.
type Key struct {
	Task       content.TaskID
	Generation content.Generation
}

// Info is what is remembered of a file, written once when it is created.
type Info struct {
	content.Meta
	// URL is the canonical task URL; Digest is that of a digest task.
	URL, Digest string
	// CacheControl is the origin's header field, verbatim.
	CacheControl string
	// Created is when the file was first met, to the nanosecond; it decides
	// which generation is the Latest.
	Created time.Time
	// Private: the origin gives the file only to who has credentials.
	Private bool
}

// Record proves a block: its seal and its hash tree.
type Record struct {
	content.Seal
	// Outboard is the block's Bao outboard encoding (content.Outboard). Of a
	// Record that a store returned it is shared: do not write to it.
	Outboard []byte
}

// Store is a set of files. All methods are safe for concurrent use.
type Store interface {
	// Create returns the file of key, making it if there is none; info of an
	// existing one stays as it is. info.Generation must be that of the key.
	// The size may exceed the capacity. ErrFull where it exceeds MaxFileSize,
	// there are a million other files, or the disk is full.
	Create(key Key, info Info) (File, error)
	// Open returns the file of key, or ErrNotFound.
	Open(key Key) (File, error)
	// Latest returns the file of a task that was Created last (of two at one
	// time, the one of the higher generation), or ErrNotFound. A file without
	// blocks is forgotten after some time, see EmptyAfter.
	Latest(task content.TaskID) (File, error)
	// Delete removes a file with its blocks and waits for writes in progress.
	// An open File answers ErrNotFound from then on. ErrNotFound where there
	// is none.
	Delete(key Key) error
	// Files yields all files in no order.
	Files() iter.Seq[File]
	// Used returns the bytes of held blocks.
	Used() int64
	// Capacity returns the bound on Used and what is reserved, in bytes.
	Capacity() int64
	// Pinned returns the bytes of pinned stripes, held or not.
	Pinned() int64
	// Free returns the bytes that can be written before something is evicted.
	Free() int64
	// Reserve makes room for n bytes that are kept on the same disk beside the
	// blocks, until GiveBack. It evicts as File.Write does; ErrFull where nothing
	// can go, and then nothing is reserved. They are not among Used.
	Reserve(n int64) error
	// GiveBack ends what Reserve began, in parts or at once.
	GiveBack(n int64)
	// Close ends the store; what is called afterwards returns ErrClosed.
	io.Closer
}

// File is one generation of a task's file: the blocks that are held of it.
// All methods are safe for concurrent use. A File needs no closing: handles of
// the operating system belong to the store.
type File interface {
	Key() Key
	Info() Info
	// Has reports whether block i is held. It takes no lock and does no I/O.
	Has(i int64) bool
	// Count returns the number of blocks held.
	Count() int64
	// Bitmap returns one bit a block, least significant bit first; a copy.
	Bitmap() []byte
	// Write stores block i: data first, record after. When it returns nil the
	// block is held and survives a kill of the process. data must be the whole
	// block and match rec: the caller has verified it. A block that is held
	// already is left as it is. It evicts other stripes for room, and tells
	// Evicted before it returns. ErrFull where none can go; ErrNotFound where
	// the file was deleted. After an error the block is not held.
	Write(i int64, data []byte, rec Record) error
	// Record returns the proof of block i, or ErrNotFound.
	Record(i int64) (Record, error)
	// ReadAt fills p with bytes of held blocks from off on, and checks them
	// against the record whenever verify is set. ErrNotFound where a block is
	// missing; ErrCorrupt where a check failed, after dropping the block.
	// After an error the bytes of p are worth nothing.
	//
	// Without verify the bytes come as they are on the disk, for a reader that
	// verifies them itself. Even so a whole block is checked before its first
	// read after an unclean stop, and again before a read when its last check
	// is more than RecheckAfter ago.
	ReadAt(p []byte, off int64, verify bool) error
	// Check reads block i and compares it with its record: nil, ErrNotFound,
	// or ErrCorrupt after dropping it.
	Check(i int64) error
	// Drop forgets block i; nil where it was not held.
	Drop(i int64) error
	// Lease keeps the stripes that r touches from being evicted, whether there
	// are blocks of them yet or not, and the file from being forgotten. It
	// takes no lock and does no I/O; it does not count as a use.
	Lease(r content.Range) Lease
	// Pin keeps the stripes that r touches from being evicted until Unpin, also
	// across a restart. There is room for all that is pinned: ErrFull where the
	// capacity does not suffice, and then nothing was pinned. Pinned stripes
	// are not counted: one Unpin undoes any number of Pins.
	Pin(r content.Range) error
	// Unpin ends the pins of the stripes that r touches.
	Unpin(r content.Range) error
	// Pinned returns the bytes of the pinned stripes, held or not.
	Pinned() int64
	// Outdate says whether the origin has another generation now: then the
	// file's blocks are evicted before all others. Not kept across a restart,
	// after which all but a task's Latest count as outdated.
	Outdate(bool)
	// Outdated returns what Outdate said.
	Outdated() bool
	// Alive reports whether the file is still in the store: not deleted, and
	// not forgotten. It is true of a closed store's files.
	Alive() bool
}

// EmptyAfter is how long a file of which no block is held, and which nobody
// opens, leases or pins, is remembered while it is its task's Latest. Others go
// after a few minutes.
const EmptyAfter = time.Hour

const emptyOlderAfter = 5 * time.Minute
