package content

import (
	"maps"
	"strings"
	"testing"
)

func pairs(list ...string) func(func(string, string) bool) {
	return func(yield func(string, string) bool) {
		for i := 0; i < len(list) && yield(list[i], list[i+1]); i += 2 {
			continue
		}
	}
}

func TestFields(t *testing.T) {
	f, err := NewFields(pairs("Expires", "0", "Set-Cookie", "a=b", "connection", "X", "X-Two", " b\t", "X-Two", "a: c", "X Bad", "1",
		"", "1", "X-Break", "a\r\nSet-Cookie: b", "X-Null", "\x00", "X-Latin", "\xe9", "X-Empty", "", "TE", "x"))
	if err != nil || f != "Expires: 0\nX-Two: b\nX-Two: a: c\nX-Latin: \xe9\nX-Empty: \n" {
		t.Fatalf("%q, %v", f, err)
	}
	if err := f.Check(); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]string{"expires": "0", "x-two": "b", "X-Empty": "", "X-None": ""} {
		if got := f.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := len(maps.Collect(f.All())); got != 4 {
		t.Errorf("%d names", got)
	}
	if _, err := NewFields(pairs("X", strings.Repeat("a", MaxFields))); err == nil {
		t.Error("too long a field was taken")
	}
}

// What a peer sends must be what NewFields writes.
func TestFieldsCheck(t *testing.T) {
	for _, f := range []Fields{"", "A: b\n", "A: \n", "A: b: c\n", "A: b\nA: c\n"} {
		if err := f.Check(); err != nil {
			t.Errorf("%q: %v", f, err)
		}
	}
	for _, f := range []Fields{
		"A: b", "A:b\n", "A\n", ": b\n", "A : b\n", "A: b\r\n", "A:  b\n", "A: b \n", "\n", "A: b\n\n",
		"Set-Cookie: a=b\n", "transfer-encoding: chunked\n", "Content-Length: 5\n", "A: \x01\n", "Age: 1\n", Fields("A: " + strings.Repeat("b", MaxFields) + "\n"),
	} {
		if f.Check() == nil {
			t.Errorf("%q was taken", f)
		}
	}
}

func TestCheckValues(t *testing.T) {
	half := strings.Repeat("a", MaxFields/2)
	for _, c := range []struct {
		values []string
		good   bool
	}{
		{nil, true}, {[]string{"", "\"é\"", "a\tb"}, true}, {[]string{half, half}, true},
		{[]string{half, half, "a"}, false}, {[]string{"a", "\xff"}, false}, {[]string{"a\nb"}, false}, {[]string{"\x7f"}, false},
	} {
		if err := CheckValues(c.values...); c.good != (err == nil) {
			t.Errorf("%.50q: %v", c.values, err)
		}
	}
}

func FuzzFields(f *testing.F) {
	f.Add("A: b\nC: d\n")
	f.Add("A: b\r\nSet-Cookie: c\n")
	f.Fuzz(func(t *testing.T, s string) {
		fields := Fields(s)
		if fields.Check() != nil {
			return
		}
		for name, value := range fields.All() {
			if !FieldCarried(name) || strings.ContainsAny(name+value, "\r\n\x00") || name == "" {
				t.Errorf("%q has %q: %q", s, name, value)
			}
		}
		if again, err := NewFields(fields.All()); err != nil || again != fields {
			t.Errorf("%q becomes %q, %v", s, again, err)
		}
	})
}
