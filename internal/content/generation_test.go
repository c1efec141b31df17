package content

import "testing"

func TestStrongETag(t *testing.T) {
	for etag, want := range map[string]bool{
		`"a"`: true, `""`: true, `"a b,c"`: true, `"W/"`: true,
		`W/"a"`: false, `w/"a"`: false, `a`: false, ``: false, `"`: false, `"a`: false, `a"`: false, `"a"b"`: false, `"a", "b"`: false, ` "a"`: false,
	} {
		if got := StrongETag(etag); got != want {
			t.Errorf("%q: strong %t, want %t", etag, got, want)
		}
	}
}

func TestNewGeneration(t *testing.T) {
	const date, later = "Mon, 02 Jan 2006 15:04:05 GMT", "Mon, 02 Jan 2006 15:04:06 GMT"
	gen := func(etag, modified string, size int64) Generation {
		t.Helper()
		g, ok := NewGeneration(etag, modified, size)
		if !ok || g.IsZero() {
			t.Fatalf("%q, %q, %d: no generation", etag, modified, size)
		}
		return g
	}
	if gen(`"a"`, date, 10) != gen(`"a"`, later, 10) {
		t.Error("Last-Modified counts beside a strong ETag")
	}
	if gen(`W/"a"`, date, 10) != gen("", date, 10) {
		t.Error("a weak ETag counts")
	}
	distinct := map[Generation]bool{
		gen(`"a"`, "", 10): true, gen(`"b"`, "", 10): true, gen(`"a"`, "", 11): true,
		gen("", date, 10): true, gen("", later, 10): true, gen("", date, 11): true, gen(`"`+date+`"`, "", 10): true,
		DigestGeneration(`"a"`): true, DigestGeneration("sha256:0"): true,
	}
	if len(distinct) != 9 {
		t.Errorf("9 versions have %d generations", len(distinct))
	}
	for _, tc := range []struct {
		etag, modified string
		size           int64
	}{{"", "", 10}, {`W/"a"`, "", 10}, {`"a"`, date, -1}, {"a", "", 10}} {
		if g, ok := NewGeneration(tc.etag, tc.modified, tc.size); ok || !g.IsZero() {
			t.Errorf("%+v: generation %s", tc, g)
		}
	}
}

func TestGenerationFromBytes(t *testing.T) {
	want := DigestGeneration("sha256:0")
	if g, err := GenerationFromBytes(want[:]); err != nil || g != want {
		t.Errorf("16 bytes: %s, %v", g, err)
	}
	if g, err := GenerationFromBytes(nil); err != nil || !g.IsZero() {
		t.Errorf("no bytes: %s, %v", g, err)
	}
	for _, n := range []int{1, 15, 17, 32} {
		if _, err := GenerationFromBytes(make([]byte, n)); err == nil {
			t.Errorf("%d bytes were taken for a generation", n)
		}
	}
}
