package content

import (
	"strings"
	"testing"
)

func TestDigest(t *testing.T) {
	hex := func(n int) string { return strings.Repeat("0123456789abcdef", n/16) }
	for s, want := range map[string]bool{
		"sha256:" + hex(64): true, "sha512:" + hex(128): true,
		"sha256:" + hex(128): false, "sha512:" + hex(64): false, "sha384:" + hex(96): false, "md5:" + hex(32): false,
		"sha256:" + hex(64)[1:]: false, "sha256:" + hex(64) + "0": false, "sha256:" + hex(64)[1:] + "g": false,
		"sha256:": false, "sha256": false, ":" + hex(64): false, "": false, hex(64): false, "sha256::" + hex(64): false,
	} {
		if got := IsDigest(s); got != want {
			t.Errorf("%q is a digest: %t", s, got)
		}
		if !want {
			continue
		}
		if IsDigest(strings.ToUpper(s)) {
			t.Errorf("%q has two forms", s)
		}
		if d, err := ParseDigest(strings.ToUpper(s)); d != s || err != nil {
			t.Errorf("parsed %q, %v", d, err)
		}
	}
	// FIPS 180-2, appendices B.1 and C.1.
	for _, want := range []string{
		"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
		"sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
	} {
		d := NewDigester(want)
		_, _ = d.Write([]byte("abc"))
		if got := d.Digest(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// FuzzParseDigest: a digest has one form, which is what its Digester writes.
func FuzzParseDigest(f *testing.F) {
	for _, s := range []string{"sha256:" + strings.Repeat("Ab", 32), "SHA512:" + strings.Repeat("09", 64), "sha256:\u212a", "sha256::", "md5:00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDigest(s)
		if err != nil {
			if d != "" || IsDigest(s) {
				t.Fatalf("%q is %q, a digest: %v, beside %v", s, d, IsDigest(s), err)
			}
			return
		}
		if again, err := ParseDigest(d); err != nil || again != d || !IsDigest(d) || IsDigest(s) != (s == d) || !strings.EqualFold(s, d) {
			t.Fatalf("%q is %q, and that %q, %v", s, d, again, err)
		}
		if got := NewDigester(d).Digest(); len(got) != len(d) || !IsDigest(got) {
			t.Fatalf("%q is computed as %q", d, got)
		}
	})
}
