package store

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
)

var update = flag.Bool("update", false, "write the vectors anew")

const vectorName = "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20/f1f2f3f4f5f6f7f8f9fafbfcfdfeff00"

func vectorInfo() Info {
	key, err := parseName(vectorName)
	if err != nil {
		panic(err)
	}
	return Info{
		Meta: content.Meta{
			Size: 40_000, Generation: key.Generation, ETag: `"abc"`, LastModified: "Mon, 23 Nov 2026 10:00:00 GMT",
			ContentType: "text/plain", Sequential: true,
		},
		URL: "https://origin.test/a?b=c", Digest: "sha256:12", CacheControl: "max-age=60", Created: time.Unix(1_700_000_000, 5),
	}
}

func vectorRecord() (Record, int64) {
	data := bytes.Repeat([]byte("p2pnode\n"), 5000)
	outboard, root := content.Outboard(data)
	return Record{Seal: content.Seal{Root: root, Signer: "signer", Sig: []byte{1, 2, 3}}, Outboard: outboard}, int64(len(data))
}

// The vectors hold what was once written to disks: it must stay readable.
func TestVectors(t *testing.T) {
	rec, n := vectorRecord()
	recordAt, infoAt := blockKey(recordPrefix, vectorName, 0), infoPrefix+vectorName
	for _, v := range []struct {
		file, key string
		value     []byte
		again     func(value []byte) ([]byte, error)
	}{
		{"record-1.hex", recordAt, encodeRecord(recordAt, rec), func(value []byte) ([]byte, error) {
			got, err := decodeRecord(recordAt, value, n)
			if err != nil {
				return nil, err
			}
			return encodeRecord(recordAt, *got), nil
		}},
		{"info-1.hex", infoAt, encodeInfo(infoAt, vectorInfo()), func(value []byte) ([]byte, error) {
			got, err := decodeInfo(infoAt, value, vectorInfo().Generation)
			if err != nil {
				return nil, err
			}
			if want := vectorInfo(); !got.Created.Equal(want.Created) || got.URL != want.URL || got.Meta != want.Meta {
				return nil, fmt.Errorf("got %+v", got)
			}
			return encodeInfo(infoAt, got), nil
		}},
	} {
		path := filepath.Join("testdata", v.file)
		if *update {
			if err := os.WriteFile(path, []byte(v.key+"\n"+hex.EncodeToString(v.value)+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(text), "\n")
		value, err := hex.DecodeString(lines[1])
		if err != nil {
			t.Fatal(err)
		}
		if lines[0] != v.key || !bytes.Equal(value, v.value) {
			t.Errorf("%s: the encoding has changed", v.file)
		}
		if back, err := v.again(value); err != nil || !bytes.Equal(back, value) {
			t.Errorf("%s: decoded and encoded again: %x, %v", v.file, back, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	rec, n := vectorRecord()
	key, other := blockKey(recordPrefix, vectorName, 0), blockKey(recordPrefix, vectorName, 1)
	value := encodeRecord(key, rec)
	again := func(change func(b []byte) []byte) []byte {
		return appendSum(change(bytes.Clone(value[:len(value)-sumSize])), key)
	}
	if _, err := decodeRecord(key, value, n); err != nil {
		t.Fatal(err)
	}
	if _, err := decodeRecord(other, value, n); err == nil {
		t.Error("a record under another block's key")
	}
	if _, err := decodeRecord(key, value, n+content.LeafSize); err == nil {
		t.Error("a record of a block of another length")
	}
	for name, bad := range map[string][]byte{
		"empty":             {},
		"a byte short":      value[:len(value)-1],
		"a byte more":       again(func(b []byte) []byte { return append(b, 0) }),
		"cut":               again(func(b []byte) []byte { return b[:40] }),
		"version 2":         again(func(b []byte) []byte { b[0] = 2; return b }),
		"a signer too long": again(func(b []byte) []byte { b[33] = 255; return b }),
		"only a version":    again(func(b []byte) []byte { return b[:1] }),
	} {
		if _, err := decodeRecord(key, bad, n); err == nil {
			t.Errorf("%s: decoded", name)
		}
	}
}

func TestTimesAndPins(t *testing.T) {
	key := blockKey(timesPrefix, vectorName, 3)
	stripes := make([]stripe, 3)
	stripes[0].used.Store(1_800_000_000)
	stripes[2].used.Store(7)
	value := encodeTimes(key, stripes)
	if got := hex.EncodeToString(value[:len(value)-sumSize]); got != "016b49d2000000000000000007" {
		t.Errorf("times %s", got)
	}
	if used, err := decodeTimes(key, value); err != nil || !slices.Equal(used, []uint32{1_800_000_000, 0, 7}) {
		t.Errorf("times %v, %v", used, err)
	}
	for name, bad := range map[string][]byte{
		"another page's": encodeTimes(blockKey(timesPrefix, vectorName, 4), stripes),
		"half a time":    appendSum([]byte{1, 0, 0, 0, 1, 0, 0}, key),
		"version 2":      appendSum([]byte{2, 0, 0, 0, 1}, key),
	} {
		if used, err := decodeTimes(key, bad); err == nil {
			t.Errorf("%s: times %v", name, used)
		}
	}

	key = pinsPrefix + vectorName
	pins := []run{{0, 2}, {5, 1 << 20}}
	value = encodePins(key, pins)
	if got := hex.EncodeToString(value[:len(value)-sumSize]); got != "01"+"0000000000000000"+"0000000000000002"+"0000000000000005"+"0000000000100000" {
		t.Errorf("pins %s", got)
	}
	if got, err := decodePins(key, value); err != nil || !slices.Equal(got, pins) {
		t.Errorf("pins %v, %v", got, err)
	}
	for name, bad := range map[string][]run{
		"empty": {{3, 3}}, "backwards": {{3, 2}}, "negative": {{-3, 2}}, "not in order": {{5, 6}, {1, 2}}, "overlapping": {{1, 3}, {2, 4}},
	} {
		if got, err := decodePins(key, encodePins(key, bad)); err == nil {
			t.Errorf("%s: pins %v", name, got)
		}
	}
}

// FuzzRecord looks for values that a decoder reads otherwise than an encoder
// writes them, and for crashes.
func FuzzRecord(f *testing.F) {
	rec, n := vectorRecord()
	f.Add(encodeRecord("", rec)[:100], n)
	f.Add(encodeRecord("", rec), n)
	f.Add(encodeInfo("", vectorInfo()), int64(1))
	f.Add(encodePins("", []run{{1, 2}, {4, 9}}), int64(1))
	f.Add(encodeTimes("", make([]stripe, 2)), int64(1))
	f.Fuzz(func(t *testing.T, body []byte, n int64) {
		for _, value := range [][]byte{body, appendSum(bytes.Clone(body), "")} {
			if rec, err := decodeRecord("", value, 1+(n&0xfffff)); err == nil && !bytes.Equal(encodeRecord("", *rec), value) {
				t.Errorf("record %+v has two encodings", rec)
			}
			if info, err := decodeInfo("", value, content.Generation{}); err == nil && !bytes.Equal(encodeInfo("", info), value) {
				t.Errorf("info %+v has two encodings", info)
			}
			if pins, err := decodePins("", value); err == nil && !bytes.Equal(encodePins("", pins), value) {
				t.Errorf("pins %v have two encodings", pins)
			}
			if used, err := decodeTimes("", value); err == nil {
				stripes := make([]stripe, len(used))
				for i := range used {
					stripes[i].used.Store(used[i])
				}
				if !bytes.Equal(encodeTimes("", stripes), value) {
					t.Errorf("times %v have two encodings", used)
				}
			}
		}
	})
}

func TestParseKeys(t *testing.T) {
	name, i, err := parseBlockKey(strings.TrimPrefix(blockKey(heldPrefix, vectorName, 77), heldPrefix))
	if err != nil || name != vectorName || i != 77 {
		t.Errorf("%s, %d, %v", name, i, err)
	}
	for _, bad := range []string{"", "/", vectorName, vectorName + "/1", vectorName + "/ffffffffffffffff", vectorName + "/+00000000000000a", vectorName + "/000000000000000A"} {
		if name, i, err := parseBlockKey(bad); err == nil {
			t.Errorf("%q is %s, %d", bad, name, i)
		}
	}
	for _, bad := range []string{"", "/", vectorName + "0", vectorName[1:], strings.ToUpper(vectorName), "zz" + vectorName[2:]} {
		if key, err := parseName(bad); err == nil {
			t.Errorf("%q is %v", bad, key)
		}
	}
}

// FuzzParseKeys: a key is read in no form but the one that it is written in, and
// names a file below the directory of the data.
func FuzzParseKeys(f *testing.F) {
	for _, s := range []string{vectorName, vectorName + "/000000000000004d", vectorName + "/00000000000000aB", "../" + vectorName, "/", vectorName[:64] + "." + vectorName[65:]} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, rest string) {
		if name, i, err := parseBlockKey(rest); err == nil && (i < 0 || blockKey("", name, i) != rest) {
			t.Errorf("%q is block %d of %q", rest, i, name)
		}
		key, err := parseName(rest)
		if err != nil {
			return
		}
		if fileName(key) != rest {
			t.Errorf("%q is %v", rest, key)
		}
		d := &Disk{cfg: DiskConfig{Dir: "dir"}, elapsed: func() time.Duration { return 0 }}
		file := d.newFile(key, Info{})
		if in, err := filepath.Rel(filepath.Join("dir", "data"), file.path); err != nil || !filepath.IsLocal(in) || strings.Count(filepath.ToSlash(in), "/") != 1 {
			t.Errorf("%q is in %q", rest, file.path)
		}
		task, generation, _ := strings.Cut(filepath.Base(file.path), ".") // as sweep reads it
		if again, err := parseName(task + "/" + generation); err != nil || again != key {
			t.Errorf("%q is in %q, which is of %v, %v", rest, file.path, again, err)
		}
	})
}

func TestFormatOfTheMark(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		put, boot string
		clean     bool
	}{{"a", "a", true}, {"a", "b", false}, {"", "", false}} {
		if err := putMark(dir, c.put); err != nil {
			t.Fatal(err)
		}
		for _, want := range []bool{c.clean, false} { // the second time it is gone
			if clean, err := takeMark(dir, c.boot); err != nil || clean != want {
				t.Errorf("mark %q in boot %q: %t, %v", c.put, c.boot, clean, err)
			}
		}
	}
}
