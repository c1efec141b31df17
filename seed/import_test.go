package seed

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/seed/store"
)

// waitLimit bounds the waits of tests.
const waitLimit = 10 * time.Second

func (b *bench) found() Found {
	return Found{Meta: content.Meta{Size: int64(len(b.data)), Generation: b.filler.gen, ETag: `"d"`, ContentType: "text/plain"}}
}

func (b *bench) imports(body io.Reader, digest string) (Imported, error) {
	return b.Import(b.t.Context(), Import{Task: b.task, Found: b.found(), Digest: digest, Body: body})
}

// nothing wants no file of the task, and nothing in the spool.
func (b *bench) nothing() {
	b.t.Helper()
	if _, err := b.store.Latest(b.task.ID); !errors.Is(err, store.ErrNotFound) {
		b.t.Errorf("a file is left behind: %v", err)
	}
	b.spoolEmpty()
}

func (b *bench) spoolEmpty() {
	b.t.Helper()
	if left, err := os.ReadDir(b.cfg.Spool); err != nil || len(left) > 0 {
		b.t.Errorf("left in the spool: %v, %v", left, err)
	}
}

func digestOf(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

func TestImport(t *testing.T) {
	for _, c := range []struct {
		name   string
		digest bool
		blob   bool
		size   int
	}{
		{"plain", false, false, 9*mib + 100},
		{"with its digest", true, false, 9*mib + 100},
		{"of a digest task", false, true, 9*mib + 100},
		{"with its sha512", true, false, 3*mib + 100},
		{"of a digest task, by its sha512", false, true, 3*mib + 100},
		{"one byte", true, false, 1},
		{"empty", true, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			url, digest := benchURL, ""
			data := p2ptest.Bytes(7, c.size)
			named := digestOf(data)
			if strings.Contains(c.name, "sha512") {
				named = fmt.Sprintf("sha512:%x", sha512.Sum512(data))
			}
			if c.blob {
				url = blobURL(named)
			}
			if c.digest {
				digest = named
			}
			b := newBench(t, url, c.size, nil)
			var last int64
			got, err := b.Import(t.Context(), Import{
				Task: b.task, Found: b.found(), Digest: digest, Body: bytes.NewReader(b.data),
				Progress: func(done int64) {
					if done <= last {
						t.Errorf("progress %d after %d", done, last)
					}
					last = done
				},
			})
			if err != nil || got != (Imported{Added: int64(c.size)}) || last != int64(c.size) {
				t.Errorf("%+v, %v; progress ended at %d", got, err, last)
			}
			b.spoolEmpty()
			f := b.open(content.Range{})
			kind := "text/plain"
			if c.blob { // which is bytes, whoever has it
				kind = "application/octet-stream"
			}
			if meta := f.Meta(); meta.ContentType != kind || meta.Size != int64(c.size) {
				t.Errorf("metadata %+v", meta)
			}
			var all []int64
			for i := range f.Meta().Layout().Blocks() {
				all = append(all, i)
			}
			b.held(all...)
			if b.filler.bytes() != 0 {
				t.Errorf("%d bytes were asked from the origin", b.filler.bytes())
			}
			for _, i := range all {
				rec, err := f.f.disk.Record(i)
				if err != nil || rec.Signer != b.cfg.Self || rec.Verify(f.f.name(i)) != nil {
					t.Errorf("block %d: signed by %s, %v", i, rec.Signer, err)
				}
			}
			again, err := b.imports(bytes.NewReader(b.data), digest)
			if err != nil || again != (Imported{Held: int64(c.size)}) {
				t.Errorf("again: %+v, %v", again, err)
			}
		})
	}
}

func TestImportWrongDigest(t *testing.T) {
	b := newBench(t, benchURL, 3*mib, nil)
	wrong := bytes.Clone(b.data)
	wrong[2*mib]++
	if _, err := b.imports(bytes.NewReader(wrong), digestOf(b.data)); !errors.Is(err, ErrDigest) {
		t.Errorf("error %v", err)
	}
	b.nothing()

	blob := newBench(t, digestURL(b.data), 3*mib, nil)
	if _, err := blob.imports(bytes.NewReader(wrong), ""); !errors.Is(err, ErrDigest) {
		t.Errorf("a digest task: %v", err)
	}
	if _, err := blob.imports(bytes.NewReader(b.data), digestOf(wrong)); !errors.Is(err, ErrDigest) {
		t.Errorf("another digest than the URL's: %v", err)
	}
	blob.nothing()
}

func TestImportWrongSize(t *testing.T) {
	for _, digest := range []bool{false, true} {
		b := newBench(t, benchURL, 3*mib, nil)
		name := ""
		if digest {
			name = digestOf(b.data)
		}
		if _, err := b.imports(bytes.NewReader(append(bytes.Clone(b.data), 1)), name); !errors.Is(err, errTooLong) {
			t.Errorf("a byte too many: %v", err)
		}
		b.nothing()
		if _, err := b.imports(bytes.NewReader(b.data[:100]), name); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("short: %v", err)
		}
		b.nothing()
		known := b.open(content.Range{})
		other := b.found()
		other.Size--
		if _, err := b.Import(t.Context(), Import{Task: b.task, Found: other, Body: bytes.NewReader(b.data[:len(b.data)-1])}); !errors.Is(err, ErrChanged) {
			t.Errorf("another size than is known: %v", err)
		}
		_ = known.Close()
	}
	b := newBench(t, benchURL, 9*mib, func(c *Config) { c.Store = store.NewMemory(8 * mib) })
	if _, err := b.imports(bytes.NewReader(b.data), digestOf(b.data)); !errors.Is(err, ErrNotSupported) {
		t.Errorf("larger than the store: %v", err)
	}
	b.nothing()
}

// TestImportResumes: what an import has stored before it broke off is skipped
// by the next.
func TestImportResumes(t *testing.T) {
	b := newBench(t, benchURL, 4*mib, nil)
	broken := errors.New("connection lost")
	body := io.MultiReader(bytes.NewReader(b.data[:2*mib+500]), errReader{broken})
	if got, err := b.imports(body, ""); !errors.Is(err, broken) || got != (Imported{Added: 2 * mib}) {
		t.Errorf("broken: %+v, %v", got, err)
	}
	b.held(0, 1)
	if got, err := b.imports(bytes.NewReader(b.data), ""); err != nil || got != (Imported{Held: 2 * mib, Added: 2 * mib}) {
		t.Errorf("resumed: %+v, %v", got, err)
	}
	b.held(0, 1, 2, 3)
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// TestImportDiffers: of two that disagree the held one stays, and nothing of
// the other; a digest decides otherwise.
func TestImportDiffers(t *testing.T) {
	b := newBench(t, benchURL, 4*mib, nil)
	if _, err := b.open(content.Range{}).Prefetch(t.Context(), []content.Range{{Off: 3 * mib, Len: 1}}, false, nil); err != nil {
		t.Fatal(err)
	}
	wrong := bytes.Clone(b.data)
	for i := range wrong {
		wrong[i]++
	}
	if got, err := b.imports(bytes.NewReader(wrong), ""); !errors.Is(err, ErrDiffers) || got.Added != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	b.held(3)

	other := newBench(t, benchURL, 4*mib, nil)
	if _, err := other.imports(bytes.NewReader(wrong), ""); err != nil {
		t.Fatal(err)
	}
	if got, err := other.imports(bytes.NewReader(other.data), digestOf(other.data)); err != nil || got != (Imported{Added: 4 * mib}) {
		t.Errorf("the digest decides: %+v, %v", got, err)
	}
	other.held(0, 1, 2, 3)
}

// TestImportMends: a block that is held, but damaged, counts for nothing.
func TestImportMends(t *testing.T) {
	dir := t.TempDir()
	disk, err := store.OpenDisk(store.DiskConfig{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, benchURL, 3*mib, func(c *Config) { c.Store = disk })
	if _, err := b.imports(bytes.NewReader(b.data), ""); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "data", "*", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("data files %v, %v", files, err)
	}
	file, err := os.OpenFile(files[0], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt([]byte{b.data[mib+7] ^ 1}, mib+7); err != nil {
		t.Fatal(err)
	}
	if got, err := b.imports(bytes.NewReader(b.data), ""); err != nil || got != (Imported{Held: 2 * mib, Added: mib}) {
		t.Errorf("%+v, %v", got, err)
	}
	b.held(0, 1, 2)
}

// TestImportBesideFills: an import and readers of the same blocks do not harm
// one another.
func TestImportBesideFills(t *testing.T) {
	b := newBench(t, benchURL, 6*mib, nil)
	f := b.open(content.Range{})
	b.filler.gate = make(chan struct{})
	holds, err := f.Hold(t.Context(), content.Range{Len: 6 * mib})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := b.imports(bytes.NewReader(b.data), ""); err != nil || got != (Imported{Added: 6 * mib}) {
		t.Errorf("%+v, %v", got, err)
	}
	close(b.filler.gate)
	p := make([]byte, 64)
	for _, h := range holds {
		if n, err := h.ReadAt(t.Context(), p, h.i*mib); err != nil || string(p[:n]) != string(b.data[h.i*mib:][:n]) {
			t.Errorf("block %d: %v", h.i, err)
		}
		h.Release()
	}
	b.held(0, 1, 2, 3, 4, 5)
}

// TestImportCancel: an import ends with its context and with the manager, and
// gives back what it took.
func TestImportCancel(t *testing.T) {
	for _, digest := range []bool{false, true} {
		b := newBench(t, benchURL, 4*mib, nil)
		name := ""
		if digest {
			name = digestOf(b.data)
		}
		ctx, cancel := context.WithCancel(t.Context())
		body := &waiting{data: b.data[:mib], entered: make(chan struct{}), done: ctx.Done()}
		done := make(chan error, 1)
		go func() {
			_, err := b.Import(ctx, Import{Task: b.task, Found: b.found(), Digest: name, Body: body})
			done <- err
		}()
		<-body.entered
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		if digest {
			b.nothing()
		}
		if !b.background.TryAcquire(b.share) {
			t.Error("buffers are still counted as taken")
		}
		_ = b.Close()
		if _, err := b.imports(bytes.NewReader(b.data), name); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

// TestImportCancelHeardByTheBodyFirst: a body may end with the caller's context
// before the import's own, which is made from it, has ended too.
func TestImportCancelHeardByTheBodyFirst(t *testing.T) {
	b := newBench(t, benchURL, 4*mib, nil)
	ctx, cancel := context.WithCancel(t.Context())
	body := &waiting{data: b.data[:mib], entered: make(chan struct{}), done: ctx.Done()}
	go func() { <-body.entered; cancel() }()
	if _, err := b.Import(unheard{ctx}, Import{Task: b.task, Found: b.found(), Body: body}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// unheard is a context of whose end those made from it do not hear.
type unheard struct{ context.Context }

func (unheard) Done() <-chan struct{} { return nil }

// waiting yields data, and then nothing until done is closed.
type waiting struct {
	data    []byte
	entered chan struct{}
	done    <-chan struct{}
}

func (w *waiting) Read(p []byte) (int, error) {
	n := copy(p, w.data)
	w.data = w.data[n:]
	if n > 0 {
		return n, nil
	}
	close(w.entered)
	<-w.done
	return 0, errors.New("cut off")
}

// TestImportFileThatChanges: the spool is looked at again when it is stored.
func TestImportFileThatChanges(t *testing.T) {
	b := newBench(t, benchURL, 3*mib, nil)
	dir := b.cfg.Spool
	body := io.MultiReader(bytes.NewReader(b.data), readFunc(func() {
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 {
			t.Fatalf("spool: %v, %v", entries, err)
		}
		file, err := os.OpenFile(dir+"/"+entries[0].Name(), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.WriteAt([]byte("changed"), mib+10); err != nil {
			t.Fatal(err)
		}
	}))
	if _, err := b.imports(body, digestOf(b.data)); err == nil {
		t.Error("a body that changed after its check was stored")
	}
	f, err := b.store.Latest(b.task.ID)
	if err == nil && f.Has(1) {
		t.Error("the changed block is held")
	}
	b.spoolEmpty()
}

// readFunc is called once, at the end of what was before it.
type readFunc func()

func (f readFunc) Read([]byte) (int, error) { f(); return 0, io.EOF }

func TestImportValidates(t *testing.T) {
	b := newBench(t, digestURL(p2ptest.Bytes(7, 10)), 10, nil)
	for _, c := range []struct {
		name   string
		change func(*Found)
	}{
		{"no generation", func(f *Found) { f.Generation = content.Generation{} }},
		{"no size", func(f *Found) { f.Size = -1 }},
		{"another generation than the digest's", func(f *Found) { f.Generation[0]++ }},
	} {
		found := b.found()
		c.change(&found)
		if _, err := b.Import(t.Context(), Import{Task: b.task, Found: found, Body: bytes.NewReader(b.data)}); err == nil {
			t.Errorf("%s: accepted", c.name)
		}
	}
	b.nothing()
}
