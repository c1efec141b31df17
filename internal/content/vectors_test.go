package content

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/vectors.json anew; what it names is on disks and wires, so this is a new version of the format")

const vectorsFile = "testdata/vectors.json"

// vectors holds what must not change between versions: nodes of different
// versions meet in one swarm, and records outlive the program that wrote them.
type vectors struct {
	Tasks       map[string]map[string]string // input → URL, digest, task ID, CID
	Generations map[string]string
	Rank        map[string][]int // key → indices of members(8), best first
	Trees       map[string]string
	Signer      string
	Messages    map[string]string
	Signatures  map[string]string
}

func computeVectors(t *testing.T) vectors {
	v := vectors{
		Tasks:       make(map[string]map[string]string),
		Generations: make(map[string]string),
		Rank:        make(map[string][]int),
		Trees:       make(map[string]string),
	}
	for _, raw := range []string{
		"http://example.com/file",
		"HTTPS://Example.com:443/a%2fb?sig=1&v=2#f",
		"http://[2001:DB8::1]:8080",
		"http://bücher.example/",
		"https://registry.example/v2/library/debian/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"https://registry.example/v2/library/debian/manifests/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	} {
		for version, filter := range []Filter{{}, {Version: 1, Query: []string{"sig"}}} {
			task, err := NewTask(raw, filter)
			if err != nil {
				t.Fatal(err)
			}
			v.Tasks[fmt.Sprintf("%s filter %d", raw, version)] = map[string]string{
				"url": task.URL, "digest": task.Digest, "id": task.ID.String(), "cid": task.ID.CID().String(),
			}
		}
	}
	byETag, _ := NewGeneration(`"v1"`, "", 100)
	byDate, _ := NewGeneration("", "Mon, 02 Jan 2006 15:04:05 GMT", 100)
	v.Generations[`ETag "v1", 100 bytes`] = byETag.String()
	v.Generations["Last-Modified 2006, 100 bytes"] = byDate.String()
	v.Generations["sha256:00"] = DigestGeneration("sha256:00").String()

	all := members(8)
	for i := range all {
		all[i].Weight = float64(1 + i%3)
	}
	for stripe := range int64(6) {
		var order []int
		for _, m := range Rank(nil, StripeKey(TaskID{0xaa}, stripe), all) {
			for i := range all {
				if all[i].ID == m.ID {
					order = append(order, i)
				}
			}
		}
		v.Rank[fmt.Sprintf("task aa00… stripe %d", stripe)] = order
	}
	for _, size := range []int{1, LeafSize, LeafSize + 1, 100 << 10} {
		_, root := Outboard(counting(size))
		v.Trees[fmt.Sprintf("root of %d bytes", size)] = hex.EncodeToString(root[:])
	}
	leaf := HashLeaf(counting(LeafSize), 3, 64)
	v.Trees["leaf 3"] = hex.EncodeToString(leaf[:])
	signVectors(t, &v)
	return v
}

func signVectors(t *testing.T, v *vectors) {
	priv, id := fixedKey(t, 7)
	v.Signer = id.String()
	b := testBlock()
	seal, err := SealBlock(priv, id, b, Root{9})
	if err != nil {
		t.Fatal(err)
	}
	inc, err := SignIncrement(priv, id, b, 5, []LeafHash{{1}, {2}})
	if err != nil {
		t.Fatal(err)
	}
	v.Messages = map[string]string{"seal": hex.EncodeToString(b.sealMessage(Root{9})), "increment": hex.EncodeToString(inc.message(b))}
	v.Signatures = map[string]string{"seal": hex.EncodeToString(seal.Sig), "increment": hex.EncodeToString(inc.Sig)}
}

// counting returns n bytes that count modulo 251, as BLAKE3's own vectors do.
func counting(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

func TestVectors(t *testing.T) {
	got := computeVectors(t)
	if *update {
		raw, err := json.MarshalIndent(got, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(vectorsFile, append(raw, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	var want vectors
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	for i := range g.NumField() {
		if !reflect.DeepEqual(g.Field(i).Interface(), w.Field(i).Interface()) {
			t.Errorf("%s:\n got %v\nwant %v", g.Type().Field(i).Name, g.Field(i), w.Field(i))
		}
	}
}
