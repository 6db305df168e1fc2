// Package deps holds the rules of who may import whom. A broken rule says why it is there.
package deps

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/cosi-os/cosi"

// rule forbids packages below from to depend, directly or not, on what matches.
type rule struct {
	name   string
	from   []string // path prefixes below the module
	except []string
	denied func(path string) bool
	why    string
}

func below(prefixes ...string) func(string) bool {
	return func(path string) bool {
		for _, p := range prefixes {
			if path == module+"/"+p || strings.HasPrefix(path, module+"/"+p+"/") {
				return true
			}
		}
		return false
	}
}

var imageBuilding = []string{"images", "initramfs", "kernel", "tools", "hack"}
var onDevice = []string{"engine", "plugins", "sdk"}

var rules = []rule{
	{
		name: "PID1ImportsOnlyTheStandardLibrary", from: []string{"engine"}, except: []string{"engine/runtime"},
		denied: func(path string) bool {
			return strings.Contains(strings.SplitN(path, "/", 2)[0], ".") &&
				!strings.HasPrefix(path, module+"/") && !strings.HasPrefix(path, "golang.org/x/sys")
		},
		why: "a panic in PID 1 kills the machine: it stays small enough to read",
	},
	{
		name: "PID1DoesNotImportTheRuntime", from: []string{"engine"}, except: []string{"engine/runtime"},
		denied: below("engine/runtime"),
		why:    "the runtime may die, PID 1 may not: they share engine/wire only",
	},
	{
		name: "OnDeviceDoesNotImportImageBuilding", from: onDevice, denied: below(imageBuilding...),
		why: "what runs on a node must not grow by what makes images",
	},
	{
		name: "ImageBuildingDoesNotImportOnDevice", from: imageBuilding, denied: below(onDevice...),
		except: []string{"tools/cosi-conformance"}, // its rules are the ones that the runtime's own stores are tested with
		why:    "an image is built for another machine: the builder knows a node by api/ alone",
	},
	{
		name: "PluginsDoNotImportTheEngine", from: []string{"plugins", "sdk"}, denied: below("engine"),
		why: "a plugin speaks to its socket: one outside this repository has nothing else",
	},
	{
		name: "PluginsDoNotImportTools", from: []string{"plugins", "sdk", "engine"}, denied: below("api/kinds/builtin"),
		except: []string{"engine/runtime"},
		why:    "all kinds of this repository linked into every process cost memory and boot time",
	},
	{
		name: "APIDoesNotImportItsUsers", from: []string{"api"}, denied: below(append(imageBuilding, onDevice...)...),
		why: "plugins and clients outside this repository import api/",
	},
}

func TestImportRules(t *testing.T) {
	packages := list(t)
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			checked := 0
			for _, p := range packages {
				if !below(r.from...)(p.ImportPath) || len(r.except) > 0 && below(r.except...)(p.ImportPath) {
					continue
				}
				checked++
				for _, dep := range p.Deps {
					if r.denied(dep) {
						t.Errorf("%s imports %s: %s", p.ImportPath, dep, r.why)
					}
				}
			}
			if checked == 0 {
				t.Errorf("no package below %v: the rule checks nothing", r.from)
			}
		})
	}
}

// TestOnlyTheSupervisorExecutes: nothing on the node runs a program to get something done.
func TestOnlyTheSupervisorExecutes(t *testing.T) {
	for _, p := range list(t) {
		if !below(onDevice...)(p.ImportPath) || below("engine/supervisor")(p.ImportPath) {
			continue
		}
		for _, imported := range p.Imports {
			if imported == "os/exec" {
				t.Errorf("%s imports os/exec: only engine/supervisor starts processes", p.ImportPath)
			}
		}
	}
}

type goPackage struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func list(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,Deps", module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []goPackage
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}
