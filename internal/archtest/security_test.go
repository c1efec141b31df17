package archtest

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// minAttacks is how many attacks SECURITY.md must list.
const minAttacks = 40

// testName finds `folder.TestName` or `folder.FuzzName`.
var testName = regexp.MustCompile("^`([a-z0-9/]+)\\.((?:Test|Fuzz)[A-Za-z0-9]+)`$")

// TestSecurityTable: every attack that SECURITY.md lists has a defence, and a
// test that is there.
func TestSecurityTable(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	there := testsOfTree(t)
	if !there["internal/archtest.TestSecurityTable"] {
		t.Fatal("not even this test is found")
	}
	_, table, ok := strings.Cut(string(text), "## Attacks")
	if !ok {
		t.Fatal("SECURITY.md has no attacks")
	}
	table, _, _ = strings.Cut(table, "\n## ")
	attacks := make(map[string]bool)
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 3 || strings.HasPrefix(cells[0], " **") || strings.HasPrefix(cells[0], "--") || cells[0] == " attack " {
			continue
		}
		attack, defence, test := strings.TrimSpace(cells[0]), strings.TrimSpace(cells[1]), strings.TrimSpace(cells[2])
		m := testName.FindStringSubmatch(test)
		switch {
		case attack == "" || defence == "" || m == nil:
			t.Errorf("row %q: want an attack, a defence and `folder.TestName`", line)
		case attacks[attack]:
			t.Errorf("%q is listed twice", attack)
		case !there[m[1]+"."+m[2]]:
			t.Errorf("%q: there is no test %s in %s", attack, m[2], m[1])
		}
		attacks[attack] = true
	}
	if len(attacks) < minAttacks {
		t.Errorf("%d attacks are listed, want %d", len(attacks), minAttacks)
	}
}

// testsOfTree returns all tests and fuzz targets, as folder.Name.
func testsOfTree(t *testing.T) map[string]bool {
	t.Helper()
	_, files := parseTree(t)
	out := make(map[string]bool)
	for _, f := range files {
		if !f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
				out[f.dir+"."+fn.Name.Name] = true
			}
		}
	}
	return out
}
