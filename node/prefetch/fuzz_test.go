package prefetch

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"

	"github.com/p2pnode/p2pnode/internal/content"
)

// FuzzImport: what an import says of its file is refused with ErrArgument, or has
// its usual form, which says the same again.
func FuzzImport(f *testing.F) {
	const date = "Mon, 23 Nov 2026 12:00:00 GMT"
	f.Add("https://o.example/f", "sha256:ABCD", "a", date, int64(5), "Authorization", "Bearer x")
	f.Add("https://o.example/f?sig=1#x", "", `"a"`, "", int64(0), "Cookie", "a=b\nHost: x")
	f.Add("ftp://o/f", "", `W/"a"`, "yesterday", int64(-1), "Host", "x")
	f.Add("https://o/f", "", "a\nb", "", int64(1), "Cookie", "")
	f.Add("https://o/f", "", "a\"b\x00", date+"\n", int64(1), "cookie", "")
	f.Add("https://o/f", "", "\xff", "", int64(1), "Cookie", "a")
	f.Add("https://o/f", "", strings.Repeat("a", content.MaxFields), "", int64(1), "Cookie", "a")
	f.Fuzz(func(t *testing.T, url, digest, etag, modified string, size int64, name, value string) {
		p := New(Config{})
		if task, origin, err := p.name(url); err == nil {
			if again, _, err := p.name(origin.URL); err != nil || again.ID != task.ID {
				t.Fatalf("%q is asked for as %q, %v", url, origin.URL, err)
			}
		}
		if fields, err := credentials(http.Header{name: {value}}); err != nil && !errors.Is(err, ErrArgument) || err == nil &&
			(name != "Authorization" && name != "Cookie" || !httpguts.ValidHeaderFieldValue(value) || len(fields) != 1) {
			t.Fatalf("%q: %q is shown as %v, %v", name, value, fields, err)
		}
		r := Import{URL: url, Digest: digest, ETag: etag, LastModified: modified, Size: size}
		meta, err := r.validate()
		if err != nil {
			if !errors.Is(err, ErrArgument) {
				t.Fatal(err)
			}
			return
		}
		if meta.Size != size || size < 0 || meta.ETag != "" && !content.StrongETag(meta.ETag) || content.CheckValues(meta.ETag, meta.LastModified) != nil {
			t.Fatalf("%+v is %+v", r, meta)
		}
		r.ETag = meta.ETag
		before := r
		if again, err := r.validate(); err != nil || again != meta || r != before {
			t.Fatalf("%+v is %+v, then %+v, %v", before, meta, again, err)
		}
	})
}
