package deps

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestEveryGoroutineOfPID1IsGuarded: a panic that nobody recovers ends PID 1, and with it the machine, without its reason.
func TestEveryGoroutineOfPID1IsGuarded(t *testing.T) {
	starts := 0
	for _, p := range list(t) {
		if !below("engine")(p.ImportPath) || below("engine/runtime")(p.ImportPath) {
			continue
		}
		found, problems, err := unguarded(filepath.Join("..", "..", strings.TrimPrefix(p.ImportPath, module+"/")))
		if err != nil {
			t.Fatal(err)
		}
		starts += found
		for _, problem := range problems {
			t.Errorf("%s: a goroutine of PID 1 begins with defer crash.Guard()", problem)
		}
	}
	if starts < 10 {
		t.Errorf("%d goroutines were found: the rule checks nothing", starts)
	}
}

// TestAnUnguardedGoroutineIsFound: each way to start one, guarded and not.
func TestAnUnguardedGoroutineIsFound(t *testing.T) {
	for _, test := range []struct {
		body string
		want int // problems
	}{
		{`go func() { defer crash.Guard(); work() }()`, 0},
		{`go func() { work(); defer crash.Guard() }()`, 1},
		{`go func() { defer close(done) }()`, 1},
		{`go func() {}()`, 1},
		{`go guarded()`, 0},
		{`go x.guarded()`, 0},
		{`go bare()`, 1},
		{`go elsewhere.Run()`, 1},
		{`all.Go(func() { defer crash.Guard() })`, 0},
		{`all.Go(func() { work() })`, 1},
		{`x.background.Go(bare)`, 1},
		{`time.AfterFunc(second, func() { work() })`, 1},
		{`defer context.AfterFunc(ctx, func() { defer crash.Guard() })()`, 0},
		{`all.Go(func() { defer crash.Guard(); go func() { work() }() })`, 1},
	} {
		dir := t.TempDir()
		text := "package x\nfunc f() { " + test.body + " }\nfunc guarded() { defer crash.Guard() }\nfunc bare() { work() }\n"
		if err := os.WriteFile(filepath.Join(dir, "x.go"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		found, problems, err := unguarded(dir)
		if err != nil || found == 0 || len(problems) != test.want {
			t.Errorf("%s: %d goroutines, problems %q, %v; want %d problems", test.body, found, problems, err, test.want)
		}
	}
}

// unguarded looks for what starts a goroutine in the Go files of a directory, tests left out: the go statement, WaitGroup.Go and
// AfterFunc. It returns how often it found one, and the places of those whose function is not one of the package that begins with
// defer crash.Guard().
func unguarded(dir string) (found int, problems []string, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return 0, nil, err
	}
	set, guards := token.NewFileSet(), map[string]bool{}
	var parsed []*ast.File
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
		if err != nil {
			return 0, nil, err
		}
		parsed = append(parsed, file)
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				guards[f.Name.Name] = guarded(f.Body)
			}
		}
	}
	check := func(function ast.Expr) {
		found++
		good := false
		switch f := function.(type) {
		case *ast.FuncLit:
			good = guarded(f.Body)
		case *ast.Ident:
			good = guards[f.Name]
		case *ast.SelectorExpr: // a method of the package
			good = guards[f.Sel.Name]
		}
		if !good {
			problems = append(problems, fmt.Sprint(set.Position(function.Pos())))
		}
	}
	for _, file := range parsed {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				check(n.Call.Fun)
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.SelectorExpr); ok && slices.Contains([]string{"Go", "AfterFunc"}, f.Sel.Name) {
					check(n.Args[len(n.Args)-1])
				}
			}
			return true
		})
	}
	return found, problems, nil
}

// guarded reports whether a function begins with defer crash.Guard().
func guarded(body *ast.BlockStmt) bool {
	if body == nil || len(body.List) == 0 {
		return false
	}
	statement, ok := body.List[0].(*ast.DeferStmt)
	if !ok {
		return false
	}
	f, ok := statement.Call.Fun.(*ast.SelectorExpr)
	if !ok || f.Sel.Name != "Guard" {
		return false
	}
	from, ok := f.X.(*ast.Ident)
	return ok && from.Name == "crash"
}
