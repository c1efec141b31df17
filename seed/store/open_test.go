package store

import (
	"context"
	"log/slog"
	"testing"

	ds "github.com/ipfs/go-datastore"
)

// BenchmarkOpen opens a directory that holds 100,000 blocks in 100 files.
func BenchmarkOpen(b *testing.B) {
	const files, blocks = 100, 1000
	cfg := DiskConfig{Dir: b.TempDir(), Logger: slog.New(slog.DiscardHandler)}
	d, err := OpenDisk(cfg)
	if err != nil {
		b.Fatal(err)
	}
	rec := Record{Outboard: make([]byte, 4040)}
	for k := range byte(files) {
		key := Key{}
		key.Task[0] = k
		info := Info{}
		info.Size = blocks << 20
		name := fileName(key)
		if err := d.records.putInfo(name, info); err != nil {
			b.Fatal(err)
		}
		err := d.records.commit(func(ctx context.Context, batch ds.Batch) error {
			for i := range int64(blocks) {
				at := blockKey(recordPrefix, name, i)
				if err := batch.Put(ctx, ds.RawKey(at), encodeRecord(at, rec)); err != nil {
					return err
				}
				if err := batch.Put(ctx, ds.RawKey(blockKey(heldPrefix, name, i)), nil); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if err := d.Close(); err != nil {
			b.Fatal(err)
		}
		if d, err = OpenDisk(cfg); err != nil {
			b.Fatal(err)
		}
	}
	if d.index.count() != files || d.Used() != files*blocks<<20 {
		b.Errorf("%d files, %d bytes", d.index.count(), d.Used())
	}
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}
}
