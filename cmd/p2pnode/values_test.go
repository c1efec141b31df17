package main

import (
	"math"
	"strings"
	"testing"
)

func TestSize(t *testing.T) {
	for in, want := range map[string]int64{
		"10GiB": 10 << 30, "512MB": 512e6, "1048576": 1 << 20, "1kB": 1000, "1KB": 1000, "7B": 7,
		"1 TiB": 1 << 40, " 3mib ": 3 << 20, "9223372036854775807": math.MaxInt64, "8388607TiB": 8388607 << 40,
	} {
		var got size
		if err := got.Set(in); err != nil || int64(got) != want {
			t.Errorf("%q: got %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "0", "0GiB", "-1", "+1", "1.5GiB", "GiB", "10G", "10XB", "1e9", "8388608TiB", "9223372036854775808", "0x10", "1_000"} {
		got := size(42)
		if err := got.Set(in); err == nil || got != 42 {
			t.Errorf("%q: got %d, %v; want an error and no change", in, got, err)
		}
	}
}

func TestSizeText(t *testing.T) {
	for in, want := range map[size]string{10 << 30: "10GiB", 512e6: "500000KiB", 1 << 20: "1MiB", 1023: "1023", 0: "0"} {
		if got := in.String(); got != want {
			t.Errorf("%d: got %q, want %q", int64(in), got, want)
		}
	}
}

func FuzzSize(f *testing.F) {
	for _, s := range []string{"10GiB", "512MB", "1048576", "1 kB", "B", "", "99999999999TiB", "-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var v, again size
		if v.Set(s) != nil {
			return
		}
		if v <= 0 {
			t.Fatalf("%q was read as %d", s, int64(v))
		}
		if err := again.Set(v.String()); err != nil || again != v {
			t.Fatalf("%q is %d, written %q and read as %d, %v", s, int64(v), v.String(), int64(again), err)
		}
	})
}

func TestCount(t *testing.T) {
	var v count
	if err := v.Set("7"); err != nil || v != 7 || v.String() != "7" {
		t.Errorf("7: got %d, %v", v, err)
	}
	for _, in := range []string{"", "0", "-1", "x", "2147483648", "1.0"} {
		if err := v.Set(in); err == nil || v != 7 {
			t.Errorf("%q: got %d, %v; want an error and no change", in, v, err)
		}
	}
}

func TestToggle(t *testing.T) {
	for in, want := range map[string]bool{"true": true, "false": false, "1": true, "0": false} {
		got := !want
		if err := (toggle{&got}).Set(in); err != nil || got != want {
			t.Errorf("%q: got %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "yes", "perhaps"} {
		got := true
		if err := (toggle{&got}).Set(in); err == nil || !got || !strings.Contains(err.Error(), "write true or false") {
			t.Errorf("%q: got %v, %v; want an error that says what to write", in, got, err)
		}
	}
}

func TestLogValues(t *testing.T) {
	var l level
	for _, in := range []string{"debug", "info", "warn", "error"} {
		if err := l.Set(in); err != nil || l.String() != in {
			t.Errorf("level %q: got %q, %v", in, l.String(), err)
		}
	}
	var f format
	for _, in := range []string{"text", "json"} {
		if err := f.Set(in); err != nil || f.String() != in {
			t.Errorf("format %q: got %q, %v", in, f.String(), err)
		}
	}
	for _, in := range []string{"", "INFO", "debug+1", "loud"} {
		if l.Set(in) == nil || f.Set(in) == nil {
			t.Errorf("%q is accepted", in)
		}
	}
}
