package archtest

import (
	"go/ast"
	"slices"
	"testing"
)

// commands are what a process begins in; an instance of a plan is told by its
// environment what to do.
var commands = []string{"cmd", "testground"}

// calls lists functions that are not used, with the parts of the tree that may
// use them nevertheless, and whether tests may. Tests in virtual time
// (testing/synctest) may sleep: it costs nothing and is exact.
var calls = []struct {
	pkg, name string
	except    []string
	inTests   bool
	reason    string
}{
	{"os", "Getenv", commands, true, "configuration comes in a Config; only commands read the environment"},
	{"os", "LookupEnv", commands, true, "configuration comes in a Config; only commands read the environment"},
	{"os", "Environ", commands, true, "configuration comes in a Config; only commands read the environment"},
	{"os", "Exit", commands, true, "a library returns its errors"},
	{"time", "Sleep", nil, false, "wait for the event itself: a sleep is too long on one machine and too short on another"},
}

func TestCalls(t *testing.T) {
	fset, files := parseTree(t)
	for _, f := range files {
		if f.generated {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := sel.X.(*ast.Ident)
			if !ok {
				return true
			}
			for _, c := range calls {
				if pkg.Name != c.pkg || sel.Sel.Name != c.name {
					continue
				}
				virtual := c.pkg == "time" && slices.Contains(f.imports(), "testing/synctest")
				if (f.test || forTests(f.dir)) && (c.inTests || virtual) || slices.ContainsFunc(c.except, func(d string) bool { return within(f.dir, d) }) {
					continue
				}
				t.Errorf("%s:%d: %s.%s: %s", f.path, fset.Position(sel.Pos()).Line, c.pkg, c.name, c.reason)
			}
			return true
		})
	}
}

// A context in a struct outlives the call that it belongs to, and nobody sees
// whose end it waits for.
func TestNoContextInStructs(t *testing.T) {
	fset, files := parseTree(t)
	for _, f := range files {
		if f.generated || f.test {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			s, ok := n.(*ast.StructType)
			if !ok {
				return true
			}
			for _, field := range s.Fields.List {
				sel, ok := field.Type.(*ast.SelectorExpr)
				if !ok || sel.Sel.Name != "Context" {
					continue
				}
				if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "context" {
					t.Errorf("%s:%d: a context in a struct: pass it to the functions that need it", f.path, fset.Position(field.Pos()).Line)
				}
			}
			return true
		})
	}
}
