// Package storetest is the conformance test that every store.Store passes.
package storetest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed/store"
)

// Harness makes the stores under test.
type Harness struct {
	// Open returns an empty store; the harness closes it when the test ends, if
	// the test did not.
	Open func(t testing.TB, o Options) store.Store
	// Reopen closes a store and returns it as a new process finds it, with the
	// Options that it had; nil for a store that does not outlive its process.
	Reopen func(t testing.TB, s store.Store) store.Store
	// Kill ends a store as the death of its process does, and returns it as
	// Reopen does. There where Reopen is.
	Kill func(t testing.TB, s store.Store) store.Store
	// FlipData changes the byte at off of what is kept of a file, behind the
	// store's back.
	FlipData func(t testing.TB, s store.Store, key store.Key, off int64)
	// FlipRecord does it to the record of block i; nil where records cannot
	// be reached.
	FlipRecord func(t testing.TB, s store.Store, key store.Key, i int64)
}

// Options are what a store is opened with.
type Options struct {
	Capacity int64
	Owned    func(key store.Key, stripe int64) bool
	Evicted  func(key store.Key, stripe int64, whole bool)
	Now      func() time.Time
}

// Run runs the whole suite, a subtest a property.
func Run(t *testing.T, h Harness) {
	t.Run("blocks", func(t *testing.T) { testBlocks(t, h) })
	t.Run("reads", func(t *testing.T) { testReads(t, h) })
	t.Run("refused writes", func(t *testing.T) { testRefusedWrites(t, h) })
	t.Run("empty file", func(t *testing.T) { testEmptyFile(t, h) })
	t.Run("files", func(t *testing.T) { testFiles(t, h) })
	t.Run("capacity", func(t *testing.T) { testCapacity(t, h) })
	t.Run("reserve", func(t *testing.T) { testReserve(t, h) })
	t.Run("watermarks", func(t *testing.T) { testWatermarks(t, h) })
	t.Run("eviction order", func(t *testing.T) { testEvictionOrder(t, h) })
	t.Run("eviction by stripe", func(t *testing.T) { testEvictionByStripe(t, h) })
	t.Run("leases", func(t *testing.T) { testLeases(t, h) })
	t.Run("late leases", func(t *testing.T) { testLateLeases(t, h) })
	t.Run("pins", func(t *testing.T) { testPins(t, h) })
	t.Run("evicted is told", func(t *testing.T) { testEvictedIsTold(t, h) })
	t.Run("empty files", func(t *testing.T) { testEmptyFiles(t, h) })
	t.Run("eviction under load", func(t *testing.T) { testEvictionUnderLoad(t, h) })
	t.Run("eviction model", func(t *testing.T) { testEvictionModel(t, h) })
	t.Run("flipped data", func(t *testing.T) { testFlippedData(t, h) })
	t.Run("concurrent", func(t *testing.T) { testConcurrent(t, h) })
	t.Run("delete under readers", func(t *testing.T) { testDeleteUnderReaders(t, h) })
	t.Run("closed", func(t *testing.T) { testClosed(t, h) })
	t.Run("model", func(t *testing.T) { testModel(t, h) })
	if h.FlipRecord != nil {
		t.Run("flipped record", func(t *testing.T) { testFlippedRecord(t, h) })
	}
	if h.Reopen != nil {
		t.Run("reopen", func(t *testing.T) { testReopen(t, h) })
		t.Run("order after reopen", func(t *testing.T) { testOrderAfterReopen(t, h) })
	}
}

// TestFile is a made-up file of which tests store blocks. Where Data is one
// block and Info.Size is more, all blocks but a short last one have those bytes.
type TestFile struct {
	Key  store.Key
	Info store.Info
	Data []byte
}

// NewFile returns a file of n bytes that follow from seed.
func NewFile(seed byte, n int) *TestFile {
	f := &TestFile{Data: make([]byte, n)}
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(f.Data)
	f.Key = store.Key{Task: content.TaskID{seed, 1}, Generation: content.Generation{seed, 2}}
	f.Info = store.Info{
		Meta: content.Meta{
			Size: int64(n), Generation: f.Key.Generation, ETag: `"v1"`,
			LastModified: "Mon, 23 Nov 2026 10:00:00 GMT", ContentType: "application/octet-stream", Sequential: seed%2 == 1,
		},
		URL: "https://origin.test/file", Digest: "sha256:00", CacheControl: "max-age=600", Created: time.Unix(1_700_000_000, 123456789),
	}
	return f
}

// NewLargeFile returns a file of n bytes, a multiple of a block, that takes little
// memory: its blocks are all alike.
func NewLargeFile(seed byte, n int64) *TestFile {
	f := NewFile(seed, mib)
	f.Info.Size = n
	return f
}

// bytes returns the bytes of r; those of a large file lie in one block.
func (f *TestFile) bytes(r content.Range) []byte {
	if int64(len(f.Data)) < f.Info.Size {
		r.Off %= mib
	}
	return f.Data[r.Off:r.End()]
}

// Blocks returns the number of blocks of the file.
func (f *TestFile) Blocks() int64 { return f.Info.Layout().Blocks() }

// Block returns the bytes of block i and its record.
func (f *TestFile) Block(i int64) ([]byte, store.Record) {
	data := f.bytes(f.Info.Layout().Block(i))
	outboard, root := content.Outboard(data)
	return data, store.Record{
		Seal:     content.Seal{Root: root, Signer: "signer", Sig: []byte{byte(i), 1, 2, 3}},
		Outboard: outboard,
	}
}

// Create makes the file in s and writes the given blocks.
func (f *TestFile) Create(t testing.TB, s store.Store, blocks ...int64) store.File {
	t.Helper()
	file, err := s.Create(f.Key, f.Info)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range blocks {
		f.Write(t, file, i)
	}
	return file
}

// Write stores block i.
func (f *TestFile) Write(t testing.TB, file store.File, i int64) {
	t.Helper()
	data, rec := f.Block(i)
	if err := file.Write(i, data, rec); err != nil {
		t.Fatal(err)
	}
}

// Want fails the test unless n bytes from off on are read and right.
func (f *TestFile) Want(t testing.TB, file store.File, off int64, n int, verify bool) {
	t.Helper()
	p := make([]byte, n)
	if err := file.ReadAt(p, off, verify); err != nil {
		t.Errorf("read %d from %d (verify %t): %v", n, off, verify, err)
	} else if !bytes.Equal(p, f.bytes(content.Range{Off: off, Len: int64(n)})) {
		t.Errorf("read %d from %d (verify %t): wrong bytes", n, off, verify)
	}
}

func open(t testing.TB, s store.Store, key store.Key) store.File {
	t.Helper()
	f, err := s.Open(key)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func together(n int, work func(k int)) {
	var wg sync.WaitGroup
	for k := range n {
		wg.Go(func() { work(k) })
	}
	wg.Wait()
}

const mib = content.BlockSize
