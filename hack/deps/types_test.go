package deps

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// source is a package as "go list" lists it.
type source struct {
	Dir, ImportPath string
	GoFiles         []string
	ImportMap       map[string]string // of what the standard library vendors
}

// What runs on a node has to be right for each architecture that there are images for. Nothing is compiled for that: it would take a minute, of which all
// but a few seconds are for what we import.
func TestWhatRunsOnANodeIsRightForARM(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "-json=Dir,ImportPath,GoFiles,ImportMap", module+"/api/...", module+"/engine/...", module+"/plugins/...", module+"/sdk/...")
	cmd.Env = append(os.Environ(), "GOARCH=arm64", "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	checked, ours := map[string]*types.Package{"unsafe": types.Unsafe}, 0
	for list := json.NewDecoder(out); ; {
		s := source{}
		if err := list.Decode(&s); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		own := strings.HasPrefix(s.ImportPath, module+"/")
		if own {
			ours++
		}
		if s.ImportPath != "unsafe" {
			checked[s.ImportPath] = s.check(t, checked, own)
		}
	}
	if err := cmd.Wait(); err != nil || ours < 50 {
		t.Errorf("go list: %v, %d packages of ours", err, ours)
	}
}

// check returns the types of a package whose imports are in checked: "go list" lists those before. Of packages of others only what they export is looked at.
func (s source) check(t *testing.T, checked map[string]*types.Package, own bool) *types.Package {
	t.Helper()
	set := token.NewFileSet()
	var files []*ast.File
	for _, name := range s.GoFiles {
		file, err := parser.ParseFile(set, filepath.Join(s.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Error(err)
			continue
		}
		files = append(files, file)
	}
	config := types.Config{
		IgnoreFuncBodies: !own, Sizes: types.SizesFor("gc", "arm64"),
		Importer: importer(func(path string) (*types.Package, error) {
			if other := s.ImportMap[path]; other != "" {
				path = other
			}
			if p := checked[path]; p != nil {
				return p, nil
			}
			return nil, errors.New("not listed")
		}),
		Error: func(err error) {
			if own {
				t.Error(err)
			}
		},
	}
	p, _ := config.Check(s.ImportPath, set, files, nil) // told by Error
	return p
}

type importer func(path string) (*types.Package, error)

func (f importer) Import(path string) (*types.Package, error) { return f(path) }
