package proxy

import (
	"net/http"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
)

const (
	before = "Sun, 01 Nov 2026 10:00:00 GMT"
	after  = "Tue, 03 Nov 2026 10:00:00 GMT"
)

func TestPrecondition(t *testing.T) {
	strong := content.Meta{ETag: testETag, LastModified: testModified}
	weak := content.Meta{ETag: `W/"v1"`, LastModified: testModified}
	bare := content.Meta{}
	for _, c := range []struct {
		name   string
		header http.Header
		meta   content.Meta
		want   int
	}{
		{"none", header(), strong, 0},
		{"If-None-Match same", header("If-None-Match", testETag), strong, 304},
		{"If-None-Match weak of strong", header("If-None-Match", `W/"v1"`), strong, 304},
		{"If-None-Match strong of weak", header("If-None-Match", testETag), weak, 304},
		{"If-None-Match list", header("If-None-Match", `"a,b", W/"c" ,"v1"`), strong, 304},
		{"If-None-Match two lines", header("If-None-Match", `"a"`, "If-None-Match", testETag), strong, 304},
		{"If-None-Match star", header("If-None-Match", "*"), strong, 304},
		{"If-None-Match other", header("If-None-Match", `"v2"`), strong, 0},
		{"If-None-Match inside another tag", header("If-None-Match", `"a,"v1"`), strong, 0},
		{"If-None-Match garbage", header("If-None-Match", `v1`), strong, 0},
		{"If-None-Match empty against no tag", header("If-None-Match", ``), bare, 0},
		{"If-None-Match goes before date", header("If-None-Match", `"v2"`, "If-Modified-Since", after), strong, 0},
		{"If-Modified-Since same", header("If-Modified-Since", testModified), strong, 304},
		{"If-Modified-Since after", header("If-Modified-Since", after), strong, 304},
		{"If-Modified-Since before", header("If-Modified-Since", before), strong, 0},
		{"If-Modified-Since garbage", header("If-Modified-Since", "yesterday"), strong, 0},
		{"If-Modified-Since without Last-Modified", header("If-Modified-Since", after), bare, 0},
		{"If-Match same", header("If-Match", testETag), strong, 0},
		{"If-Match star", header("If-Match", "*"), strong, 0},
		{"If-Match other", header("If-Match", `"v2"`), strong, 412},
		{"If-Match weak never", header("If-Match", `W/"v1"`), weak, 412},
		{"If-Match goes before date", header("If-Match", testETag, "If-Unmodified-Since", before), strong, 0},
		{"If-Unmodified-Since before", header("If-Unmodified-Since", before), strong, 412},
		{"If-Unmodified-Since same", header("If-Unmodified-Since", testModified), strong, 0},
		{"both pass and match", header("If-Match", testETag, "If-None-Match", testETag), strong, 304},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := precondition(c.header, c.meta); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

func TestIfRange(t *testing.T) {
	strong := content.Meta{ETag: testETag, LastModified: testModified}
	for _, c := range []struct {
		name   string
		header http.Header
		meta   content.Meta
		want   bool
	}{
		{"none", header(), strong, true},
		{"same tag", header("If-Range", testETag), strong, true},
		{"other tag", header("If-Range", `"v2"`), strong, false},
		{"weak tag", header("If-Range", `W/"v1"`), content.Meta{ETag: `W/"v1"`}, false},
		{"same date", header("If-Range", testModified), strong, true},
		{"later date", header("If-Range", after), strong, false},
		{"earlier date", header("If-Range", before), strong, false},
		{"date without Last-Modified", header("If-Range", testModified), content.Meta{ETag: testETag}, false},
		{"garbage", header("If-Range", "v1"), strong, false},
		{"two", header("If-Range", testETag, "If-Range", testETag), strong, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := rangeApplies(c.header, c.meta); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// FuzzPrecondition: no field makes a status that conditions have not, and a tag
// that stands in a list alone is found.
func FuzzPrecondition(f *testing.F) {
	f.Add(`"v1"`, testModified)
	f.Add(`W/"a,b", "v1"`, "yesterday")
	f.Add(`"`, "")
	f.Fuzz(func(t *testing.T, list, date string) {
		meta := content.Meta{ETag: testETag, LastModified: testModified}
		for _, h := range []http.Header{
			{"If-Match": {list}, "If-Unmodified-Since": {date}}, {"If-None-Match": {list}, "If-Modified-Since": {date}},
		} {
			if got := precondition(h, meta); got != 0 && got != http.StatusNotModified && got != http.StatusPreconditionFailed {
				t.Errorf("%q: %d", h, got)
			}
		}
		rangeApplies(http.Header{"If-Range": {list}}, meta)
		if content.StrongETag(list) && !matchETag([]string{`"x" ,` + list}, list, strongEqual) {
			t.Errorf("%q is not found behind another", list)
		}
	})
}
