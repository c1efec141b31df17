package archtest

import (
	"go/ast"
	"go/token"
	"strings"
	"testing"
)

func TestEveryPackageHasOneDoc(t *testing.T) {
	_, files := parseTree(t)
	docs := make(map[string][]string)
	for _, f := range files {
		if f.test || f.generated {
			continue
		}
		if docs[f.dir] == nil {
			docs[f.dir] = []string{}
		}
		if f.ast.Doc != nil && strings.TrimSpace(f.ast.Doc.Text()) != "" {
			docs[f.dir] = append(docs[f.dir], f.path)
			text, name := f.ast.Doc.Text(), f.ast.Name.Name
			begins := "Package " + name + " "
			if name == "main" {
				begins = "Command " + f.dir[strings.LastIndex(f.dir, "/")+1:] + " "
			}
			if !strings.HasPrefix(text, begins) {
				t.Errorf("%s: the package doc does not begin with %q", f.path, begins)
			}
		}
	}
	for dir, where := range docs {
		if len(where) != 1 {
			t.Errorf("package %s has %d package docs %q: want one", dir, len(where), where)
		}
	}
}

func TestEveryExportedNameHasADoc(t *testing.T) {
	fset, files := parseTree(t)
	for _, f := range files {
		if f.test || f.generated || f.ast.Name.Name == "main" {
			continue
		}
		for _, decl := range f.ast.Decls {
			for _, name := range undocumented(decl) {
				t.Errorf("%s:%d: exported %s has no doc comment", f.path, fset.Position(decl.Pos()).Line, name)
			}
		}
	}
}

// undocumented returns the exported names of a top-level declaration that have
// no comment. One above a group of constants or variables stands for all of it.
func undocumented(decl ast.Decl) []string {
	var names []string
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Doc == nil && d.Name.IsExported() && (d.Recv == nil || ast.IsExported(receiver(d))) {
			names = append(names, d.Name.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if d.Doc == nil && s.Doc == nil && s.Comment == nil && s.Name.IsExported() {
					names = append(names, s.Name.Name)
				}
			case *ast.ValueSpec:
				if d.Doc != nil || s.Doc != nil || s.Comment != nil || d.Tok == token.IMPORT {
					continue
				}
				for _, n := range s.Names {
					if n.IsExported() {
						names = append(names, n.Name)
					}
				}
			}
		}
	}
	return names
}

// receiver returns the name of a method's type.
func receiver(d *ast.FuncDecl) string {
	typ := d.Recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.IndexListExpr:
			typ = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}
