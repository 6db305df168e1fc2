package inspect

import (
	"reflect"
	"testing"

	"github.com/cosi-os/cosi/kernel/lock"
)

func facts(t *testing.T, text string, packages ...lock.Package) *Facts {
	t.Helper()
	f, err := DefinitionFacts([]byte(text), packages)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestCompareNamesEachDifference(t *testing.T) {
	a := facts(t, `name: a
kernel: {arguments: [x, y], modules: {boot: [one, two]}}
resources:
  - {metadata: {type: T, id: r}, spec: {n: 1, m: 1}}
partitions: {extra: [{name: data, size: 1GiB}, {name: logs, size: 1GiB}]}
`, lock.Package{Role: "kernel-cloud", Name: "linux-image-6.12.1-amd64", Version: "6.12.1-1", SHA256: "01"}, lock.Package{Role: "efi-stub", Name: "stub", Version: "2"})
	b := facts(t, `name: b
kernel: {arguments: [y, z], modules: {boot: [two, one]}}
resources:
  - {metadata: {type: T, id: r}, spec: {n: 2, m: 1}}
partitions: {extra: [{name: logs, size: 1GiB}, {name: data, size: 2GiB}]}
state: {size: 1GiB}
`, lock.Package{Role: "kernel-cloud", Name: "linux-image-6.12.2-amd64", Version: "6.12.2-1", SHA256: "02"}, lock.Package{Role: "efi-stub", Name: "stub", Version: "2"})
	want := []Difference{
		{"definition", "kernel.arguments", "x", ""},
		{"definition", "kernel.arguments", "", "z"},
		{"definition", "kernel.modules.boot, in another order", "one two", "two one"},
		{"definition", "name", "a", "b"},
		{"definition", "partitions.extra[data].size", "1GiB", "2GiB"},
		{"definition", "resources[T/r].spec.n", "1", "2"},
		{"definition", "state.size", "", "1GiB"},
		{"package", "kernel-cloud linux-image-*-amd64", "linux-image-6.12.1-amd64 6.12.1-1 01", "linux-image-6.12.2-amd64 6.12.2-1 02"},
	}
	if got := Compare(a, b); !reflect.DeepEqual(got, want) {
		t.Errorf("Compare = %q; want %q", got, want)
	}
	if got := Compare(a, a); len(got) != 0 {
		t.Errorf("compared with itself: %q", got)
	}
	// What only one of them knows anything about is no difference: an image has files, a definition has none yet.
	b.begin("root")
	b.add("root", "/usr/bin/engine", "here")
	if got := Compare(a, b); !reflect.DeepEqual(got, want) {
		t.Errorf("with a root: %q", got)
	}
	const table = `SECTION      NAME               old.raw   new.raw
definition   kernel.arguments   x         -
definition   kernel.arguments   -         z
`
	if got := Table("old.raw", "new.raw", want[:2]); got != table {
		t.Errorf("Table =\n%s; want\n%s", got, table)
	}
}
