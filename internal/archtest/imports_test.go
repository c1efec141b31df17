package archtest

import (
	"slices"
	"strings"
	"testing"
)

// layers says, for each part of the tree, what of our own it may import. The
// first entry that matches a folder counts. Whatever lies below the same folder
// may be imported except where siblings is set.
var layers = []struct {
	dir      string
	may      []string
	siblings bool // folders below dir must not import one another
	reason   string
}{
	{"cmd", []string{"cmd", "node", "supernode"}, false,
		"a command turns flags into a Config and runs it; all else is a library that others can run too"},
	{"internal/content", nil, true,
		"names and cuts must be the same everywhere, so they rest on nothing that may change"},
	{"internal/p2ptest", []string{"internal/content", "internal/p2ptest"}, false,
		"helpers for tests that knew the parts would make every test depend on every part"},
	{"internal/netlab", []string{"internal/content", "internal/p2ptest"}, false,
		"a lab knows networks and processes, not what runs in them"},
	{"internal/archtest", nil, true,
		"the tree is tested by its text"},
	{"internal/sim", nil, true,
		"simulations bring all parts together, as tests: nothing is to lean on them"},
	{"protocols/internal", []string{"internal/content", "protocols/internal"}, false,
		"framing knows no protocol"},
	{"protocols/fetch", []string{"internal/content", "protocols/internal/frame", "protocols/assignment", "protocols/fetch"}, false,
		"fetch returns assignments as they were signed, and knows no other protocol"},
	{"protocols", []string{"internal/content", "protocols/internal/frame"}, true,
		"a protocol is a wire format without policy, readable by its SPEC.md alone"},
	{"seed", []string{"internal/content", "protocols/rangeread", "seed"}, false,
		"a seed holds and serves bytes; who elects it and who finds it is others' business"},
	{"supernode", []string{"internal/content", "protocols", "supernode"}, false,
		"a node and a supernode know one another by the wire alone"},
	{"node/", []string{"internal/content", "protocols", "seed"}, true,
		"parts of a node meet in package node, by interfaces of one method that they declare; otherwise none can be tested alone"},
	{"node", []string{"internal/content", "protocols", "seed", "supernode", "node"}, false,
		"the only place where the parts meet"},
	{"testground", []string{"internal/content", "protocols", "seed", "supernode", "node", "testground"}, false,
		"a plan runs the real parts"},
}

// allowed says whether a file in dir may import target, both below the module,
// and else why not.
func allowed(dir, target string) (reason string, ok bool) {
	for _, l := range layers {
		prefix := strings.TrimSuffix(l.dir, "/")
		if strings.HasSuffix(l.dir, "/") && dir == prefix || !within(dir, prefix) {
			continue
		}
		for _, m := range l.may {
			if within(target, m) {
				return "", true
			}
		}
		if l.siblings {
			own, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(dir, prefix), "/"), "/")
			if own != "" && within(target, prefix+"/"+own) {
				return "", true
			}
		}
		return l.reason, false
	}
	return "no layer has this folder: add it to the table with a reason", false
}

// forTests reports whether a package of ours, such as storetest, is there for
// tests alone.
func forTests(target string) bool { return strings.HasSuffix(target, "test") }

func TestImportsBetweenLayers(t *testing.T) {
	_, files := parseTree(t)
	top := []string{"cmd", "internal", "node", "protocols", "seed", "supernode", "testground"}
	for _, f := range files {
		for _, target := range f.imports() {
			if !slices.ContainsFunc(top, func(p string) bool { return within(target, p) }) {
				continue // not ours
			}
			switch {
			case f.test:
				// A test may bring parts together, below the command.
				if within(target, "cmd") && !within(f.dir, "cmd") {
					t.Errorf("%s imports %s: commands are tested by running them", f.path, target)
				}
			case forTests(target):
				if !forTests(f.dir) {
					t.Errorf("%s imports %s: it would bring test code into a node", f.path, target)
				}
			case forTests(f.dir):
				// Conformance suites belong to the package that they test.
			default:
				if reason, ok := allowed(f.dir, target); !ok {
					t.Errorf("%s imports %s: %s", f.path, target, reason)
				}
			}
		}
	}
}

// bans lists packages that are not ours with the folders that may import them,
// tests aside unless everywhere is set.
var bans = []struct {
	pkg        string
	except     []string
	everywhere bool
	reason     string
}{
	{"net/http", []string{"cmd", "node", "seed/origin", "internal/p2ptest", "internal/netlab", "testground/plan"}, false,
		"origins are reached through one client, which polices the target"},
	{"github.com/ipfs/go-ds-pebble", []string{"seed/store"}, false,
		"its default loses records when a process is killed; one place sets it right"},
	{"github.com/spf13/cobra", []string{"cmd"}, false, "flags are the command's; parts have a Config"},
	{"flag", []string{"cmd", "testground/cmd"}, false, "flags are the command's; parts have a Config"},
	{"os/signal", []string{"cmd", "testground/cmd"}, false, "a library ends with its context"},
	{"go.yaml.in/yaml/v3", []string{"cmd", "node"}, false, "parts have a Config; only the daemon reads files"},
	{"math/rand", nil, true, "math/rand/v2 has a source for each use, which a test can seed"},
	{"io/ioutil", nil, true, "deprecated"},
	{"unsafe", nil, true, "nothing here is worth it"},
	{"C", nil, true, "one static binary, cross-compiled"},
}

// pure lists what internal/content must not import.
var pure = []string{"context", "io/fs", "log", "log/slog", "math/rand/v2", "net", "net/http", "os", "sync", "sync/atomic", "time"}

func TestImportsFromElsewhere(t *testing.T) {
	_, files := parseTree(t)
	for _, f := range files {
		if f.generated {
			continue
		}
		for _, pkg := range f.imports() {
			for _, b := range bans {
				excepted := slices.ContainsFunc(b.except, func(d string) bool { return within(f.dir, d) })
				if pkg == b.pkg && !excepted && (b.everywhere || !f.test && !forTests(f.dir)) {
					t.Errorf("%s imports %s: %s", f.path, pkg, b.reason)
				}
			}
			if f.dir == "internal/content" && !f.test && slices.Contains(pure, pkg) {
				t.Errorf("%s imports %s: two nodes must compute the same names whatever their clock, disk and network", f.path, pkg)
			}
		}
	}
}

// The table itself is tested: a rule that lets everything through looks just
// like a tree that keeps to it.
func TestLayerTable(t *testing.T) {
	for _, tc := range []struct {
		dir, target string
		ok          bool
	}{
		{"cmd/p2pnode", "node", true},
		{"cmd/p2pnode", "supernode", true},
		{"cmd/p2pnode", "seed", false},
		{"internal/content", "protocols/rangeread", false},
		{"protocols/rangeread", "internal/content", true},
		{"protocols/rangeread", "protocols/rangeread/pb", true},
		{"protocols/rangeread", "protocols/internal/frame", true},
		{"protocols/rangeread", "protocols/report", false},
		{"protocols/fetch", "protocols/assignment", true},
		{"protocols/fetch", "protocols/report", false},
		{"protocols/assignment", "protocols/fetch", false},
		{"seed", "seed/store", true},
		{"seed/store", "protocols/rangeread", true},
		{"seed", "protocols/report", false},
		{"seed", "node/read", false},
		{"supernode", "protocols/fetch", true},
		{"supernode", "seed/store", false},
		{"supernode", "node/locate", false},
		{"node/read", "protocols/rangeread", true},
		{"node/read", "node/read/plan", true},
		{"node/read", "node/locate", false},
		{"node/read", "node", false},
		{"node/control", "supernode", false},
		{"node", "node/read", true},
		{"node", "cmd/p2pnode", false},
		{"nodes", "node", false},
		{"testground/plan", "node", true},
		{"testground/plan", "cmd/p2pnode", false},
		{"node", "testground/link", false},
		{"internal/sim", "supernode", false},
		{"somewhere", "internal/content", false},
	} {
		if reason, ok := allowed(tc.dir, tc.target); ok != tc.ok {
			t.Errorf("%s imports %s: allowed %t (%s)", tc.dir, tc.target, ok, reason)
		}
	}
	for _, l := range layers {
		if l.reason == "" {
			t.Errorf("%s has no reason", l.dir)
		}
	}
}
