package plan

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/cosi-os/cosi/images/definition"
	"github.com/cosi-os/cosi/kernel/lock"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func load(t *testing.T, name string) (*definition.Definition, *lock.Lock) {
	t.Helper()
	d, err := definition.Load(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	l, err := lock.Load("testdata/lock.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return d, l
}

func TestAPlanReadsLikeThis(t *testing.T) {
	for _, name := range []string{"small", "whole"} {
		t.Run(name, func(t *testing.T) {
			d, l := load(t, name+".yaml")
			p, err := New(d, l)
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(p.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if p.String() != string(want) {
				t.Errorf("the plan reads\n%s\nwant\n%s", p, want)
			}
		})
	}
}

func TestPluginsGetTheirIDsByName(t *testing.T) {
	d, l := load(t, "whole.yaml")
	first, err := New(d, l)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(d.Plugins)
	second, err := New(d, l)
	if err != nil || !reflect.DeepEqual(first.Plugins, second.Plugins) {
		t.Errorf("in another order: %v, %v; want %v", second.Plugins, err, first.Plugins)
	}
}

func TestOnlyWhatIsAskedForIsMade(t *testing.T) {
	d, l := load(t, "small.yaml")
	p, err := New(d, l)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Outputs) != 1 || !p.Writes(".qcow2") || p.Writes(".raw") {
		t.Errorf("the outputs are %v; want one qcow2", p.Outputs)
	}
	for _, output := range definition.Outputs {
		d.Outputs = []definition.Output{output}
		if p, err = New(d, l); err != nil {
			t.Fatal(err)
		}
		network := slices.Contains([]definition.Output{definition.PXE, definition.UKI, definition.Direct}, output)
		if want := map[bool]int{true: 0, false: 1}[network]; len(p.Loader) != want || len(p.Packages()) != 3+want {
			t.Errorf("for %s, %d loaders and %d packages are fetched; want %d and %d", output, len(p.Loader), len(p.Packages()), want, 3+want)
		}
	}
}

// Every output is one of files, each of which is written once, whoever asks for it.
func TestOutputsShareFiles(t *testing.T) {
	d, l := load(t, "small.yaml")
	d.Outputs = definition.Outputs
	p, err := New(d, l)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, o := range p.Outputs {
		files = append(files, o.File)
	}
	slices.Sort(files)
	if got := slices.Compact(slices.Clone(files)); len(got) != len(files) {
		t.Errorf("some of %q are written twice", files)
	}
	for _, kind := range definition.Outputs {
		if len(suffixes[kind]) == 0 || !slices.Contains(order, kind) {
			t.Errorf("%s has no file, or no place in the order", kind)
		}
		for _, suffix := range suffixes[kind] {
			if !p.Writes(suffix) {
				t.Errorf("with all outputs, the %s of %s is not written", suffix, kind)
			}
		}
	}
}

func TestAnArchitectureWithoutPackagesIsRefused(t *testing.T) {
	d, l := load(t, "small.yaml")
	d.Arch = "arm64"
	if _, err := New(d, l); !errors.Is(err, lock.ErrNotPinned) {
		t.Errorf("New = %v; want ErrNotPinned", err)
	}
}
