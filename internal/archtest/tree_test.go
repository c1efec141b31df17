package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// module is the path that our own imports begin with.
const module = "github.com/p2pnode/p2pnode"

// file is one Go file of the tree, for whichever platform it is.
type file struct {
	path      string // from the module's root, with slashes
	dir       string // the package's folder
	test      bool
	generated bool
	ast       *ast.File
}

// imports returns the import paths; our own without the module's path.
func (f file) imports() []string {
	var out []string
	for _, spec := range f.ast.Imports {
		p, _ := strconv.Unquote(spec.Path.Value) // the parser has accepted it
		out = append(out, strings.TrimPrefix(p, module+"/"))
	}
	return out
}

// root is the folder of go.mod.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = parent
	}
}

// parseTree parses every Go file below the module's root, but not in the root
// itself, which holds no package, nor in testdata and hidden folders. The plans
// in testground are a module of their own and keep to the same rules.
func parseTree(t *testing.T) (*token.FileSet, []file) {
	t.Helper()
	top := root(t)
	fset := token.NewFileSet()
	var files []file
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p != top && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") || filepath.Dir(p) == top {
			return nil
		}
		rel, err := filepath.Rel(top, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		parsed, err := parser.ParseFile(fset, p, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, file{
			path: rel, dir: path.Dir(rel), ast: parsed,
			test:      strings.HasSuffix(rel, "_test.go"),
			generated: ast.IsGenerated(parsed),
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 10 {
		t.Fatalf("found only %d Go files below %s", len(files), top)
	}
	return fset, files
}

// within reports whether a folder or import path is prefix or lies below it.
func within(p, prefix string) bool {
	return p == prefix || strings.HasPrefix(p, prefix+"/")
}
