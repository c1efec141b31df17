package main

import (
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// units are the suffixes of a size, longest first among those that end alike.
var units = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1},
}

// size is a flag value: a number of bytes.
type size int64

// Set parses "10GiB", "512MB" or "1048576". Units are those of SI and IEC, in
// any case, after a whole number.
func (v *size) Set(s string) error {
	number, scale := strings.TrimSpace(s), int64(1)
	for _, u := range units {
		if cut := len(number) - len(u.name); cut >= 0 && strings.EqualFold(number[cut:], u.name) {
			number, scale = strings.TrimSpace(number[:cut]), u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil || n == 0 || int64(n) > math.MaxInt64/scale {
		return fmt.Errorf("%q is no size: write a whole number above 0 with a unit, like 10GiB or 512MB", s)
	}
	*v = size(int64(n) * scale)
	return nil
}

// String writes the size with the largest binary unit that divides it.
func (v *size) String() string {
	for _, u := range units[:4] {
		if *v != 0 && int64(*v)%u.bytes == 0 {
			return strconv.FormatInt(int64(*v)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(*v), 10)
}

// Type is the value's name in the help text.
func (*size) Type() string { return "size" }

// count is a flag value: a whole number above 0.
type count int

// Set parses a decimal number.
func (v *count) Set(s string) error {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 1 {
		return fmt.Errorf("%q is no whole number above 0", s)
	}
	*v = count(n)
	return nil
}

func (v *count) String() string { return strconv.Itoa(int(*v)) }

// Type is the value's name in the help text.
func (*count) Type() string { return "number" }

// toggle is a flag value: true or false.
type toggle struct{ v *bool }

// toggleVar declares a flag that is true where it stands without a value.
func toggleVar(f *pflag.FlagSet, v *bool, name string, def bool, usage string) {
	*v = def
	f.VarPF(toggle{v}, name, "", usage).NoOptDefVal = "true"
}

// Set parses what strconv.ParseBool does: true and false, also as 1 and 0.
func (t toggle) Set(s string) error {
	v, err := strconv.ParseBool(s)
	if err != nil {
		return fmt.Errorf("%q is no switch: write true or false", s)
	}
	*t.v = v
	return nil
}

func (t toggle) String() string { return strconv.FormatBool(t.v != nil && *t.v) }

// Type is the value's name in the help text: pflag shows none for a bool.
func (toggle) Type() string { return "bool" }

// level is a flag value: the least severe log level that is written.
type level struct{ slog.Level }

// Set parses debug, info, warn or error.
func (v *level) Set(s string) error {
	switch s {
	case "debug", "info", "warn", "error":
		return v.UnmarshalText([]byte(s))
	}
	return fmt.Errorf("%q is not debug, info, warn or error", s)
}

func (v *level) String() string { return strings.ToLower(v.Level.String()) }

// Type is the value's name in the help text.
func (*level) Type() string { return "level" }

// format is a flag value: how log lines are written.
type format string

// Set parses text or json.
func (v *format) Set(s string) error {
	if s != "text" && s != "json" {
		return fmt.Errorf("%q is not text or json", s)
	}
	*v = format(s)
	return nil
}

func (v *format) String() string { return string(*v) }

// Type is the value's name in the help text.
func (*format) Type() string { return "text|json" }
