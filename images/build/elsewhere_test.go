package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/images/definition"
	"github.com/cosi-os/cosi/images/manifest"
)

// elsewhere is a definition outside of the fixture's tree, which extends the tree's, with two files of its own.
func elsewhere(t *testing.T, name string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "site", name)
	writeFile(t, file, []byte(`name: site
extends: dev.yaml
kernel: {arguments: [site=1]}
partitions: {extra: [{name: one, size: 1MiB, content: files/seed}, {name: two, size: 1MiB, content: more/seed}]}
outputs: [uki, raw]
`))
	writeFile(t, filepath.Join(filepath.Dir(file), "files/seed"), []byte("one"))
	writeFile(t, filepath.Join(filepath.Dir(file), "more/seed"), []byte("two"))
	return file
}

// An operator's definition lies in a repository of his own. The image names its files, not where they lay, so that it is the same from anywhere.
func TestADefinitionMayLieOutsideOfTheTree(t *testing.T) {
	o := fixture(t)
	o.commit(t)
	buildOf := func(file string) *manifest.Manifest {
		t.Helper()
		result, err := Run(context.Background(), o, file)
		if err != nil {
			t.Fatal(err)
		}
		m, err := manifest.Read(filepath.Join(o.Output, result.Plan.Name+".manifest.json"))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	file := elsewhere(t, "mine.yaml")
	m := buildOf(file)
	if m.Source != "elsewhere/mine.yaml" || !strings.Contains(m.CommandLine, "console=ttyS0 site=1") || strings.HasSuffix(m.Inputs.Version, ".dirty") {
		t.Errorf("built from %s, version %s, with %s", m.Source, m.Inputs.Version, m.CommandLine)
	}
	for _, name := range []string{"elsewhere/mine.yaml", "elsewhere/files/seed", "elsewhere/more/seed", "images/dev.yaml"} {
		if m.Inputs.Files[name] == "" {
			t.Errorf("the manifest does not name %s", name)
		}
	}
	if strings.Contains(m.Definition, filepath.Dir(file)) {
		t.Errorf("its definition says where it lay:\n%s", m.Definition)
	}
	if again := buildOf(elsewhere(t, "mine.yaml")); again.Outputs[0] != m.Outputs[0] {
		t.Errorf("from another directory: %v; want %v", again.Outputs[0], m.Outputs[0])
	}
	writeFile(t, filepath.Join(filepath.Dir(file), "files/seed"), []byte("three"))
	if result, err := Run(context.Background(), o, file); err != nil || result.UpToDate {
		t.Errorf("with another file: %+v, %v", result, err)
	}
}

func TestTwoFilesOfOneNameAreRefused(t *testing.T) {
	o := fixture(t)
	file := elsewhere(t, "mine.yaml")
	for _, dir := range []string{"a", "b"} {
		writeFile(t, filepath.Join(filepath.Dir(file), "..", dir, "seed"), []byte(dir))
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, file, []byte(strings.NewReplacer("files/seed", "../a/seed", "more/seed", "../b/seed").Replace(string(text))))
	_, err = Run(context.Background(), o, file)
	if problems := (definition.Problems)(nil); !errors.As(err, &problems) || !strings.HasPrefix(err.Error(), file+":4: partitions.extra: ") ||
		!strings.Contains(err.Error(), "/b/seed and ") || !strings.Contains(err.Error(), "are both elsewhere/seed in the manifest: rename one, or put it below "+filepath.Dir(file)) {
		t.Errorf("Run = %v", err)
	}
}

// Where the tree is reached by a link, what is in it has the same name.
func TestTheTreesDefinitionIsNotElsewhereByALink(t *testing.T) {
	o := fixture(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(o.Tree, link); err != nil {
		t.Fatal(err)
	}
	direct := names{o.Tree, filepath.Dir(o.definition())}
	linked := names{link, filepath.Join(link, "images")}
	for file, want := range map[string]string{o.definition(): "images/dev.yaml", filepath.Join(link, "images/dev.yaml"): "images/dev.yaml", "/etc/keys/db.crt": "elsewhere/db.crt"} {
		if a, b := direct.of(file), linked.of(file); a != want || b != want {
			t.Errorf("%s is %s, and by a link %s; want %s", file, a, b, want)
		}
	}
}

func TestAnImageOfADefinitionFromElsewhereIsVerified(t *testing.T) {
	o := fixture(t)
	file := elsewhere(t, "mine.yaml")
	result, err := Run(context.Background(), o, file)
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(o.Output, result.Plan.Name+".efi")
	fails := func(definition string, want error, says string) {
		t.Helper()
		o.Definition = definition
		if _, err := Verify(context.Background(), o, image); err == nil || want != nil && !errors.Is(err, want) || !strings.Contains(err.Error(), says) {
			t.Errorf("Verify with %q = %v; want %q", definition, err, says)
		}
	}
	fails("", ErrNoDefinition, "was built of mine.yaml: its definition lies in no source tree: name the file, with --definition FILE")
	fails(elsewhere(t, "other.yaml"), nil, "was built of mine.yaml, by that name")
	fails("/nowhere/mine.yaml", os.ErrNotExist, "/nowhere/mine.yaml")
	o.Definition = elsewhere(t, "mine.yaml") // a clone of his repository
	if v := verify(t, o, image); !v.Equal() || v.Tree != "the sources here" {
		t.Errorf("verified:\n%s", v)
	}
	writeFile(t, filepath.Join(filepath.Dir(file), "more/seed"), []byte("another"))
	fails(file, ErrOtherTree, "of the files that are in no commit these differ: elsewhere/more/seed")
	o.change(t, "images/dev.yaml", "outputs: [raw, qcow2, iso, pxe]", "outputs: [uki]")
	_, m := build(t, o)
	image = filepath.Join(o.Output, m.Image+".efi")
	fails(file, nil, "its definition is the tree's images/dev.yaml: leave out --definition")
}

// The builder of the commit that an image names is told where the tree is. The one in this tree hands out what was built before.
func TestAnImageOfADefinitionFromElsewhereIsBuiltAgainFromItsCommit(t *testing.T) {
	o := fixture(t)
	writeFile(t, filepath.Join(o.Tree, "tools/cosi-image/main.go"), []byte(`package main

import (
	"fmt"
	"os"
)

func main() {
	if text, err := os.ReadFile("api/api.go"); err != nil || len(os.Args) != 7 || os.Args[4] != "--tree" || os.Args[5] != "." || os.Args[6] != os.Getenv("COSI_TEST_DEFINITION_FILE") {
		fmt.Println(err, os.Args, string(text))
		os.Exit(1)
	}
	if err := os.CopyFS(os.Args[3], os.DirFS(os.Getenv("COSI_TEST_BUILT"))); err != nil {
		panic(err)
	}
}
`))
	o.commit(t)
	o.Definition = elsewhere(t, "mine.yaml")
	result, err := Run(context.Background(), o, o.Definition)
	if err != nil {
		t.Fatal(err)
	}
	o.change(t, "api/api.go", "one", "two")
	t.Setenv("COSI_TEST_BUILT", o.Output)
	t.Setenv("COSI_TEST_DEFINITION_FILE", o.Definition)
	if v := verify(t, o, filepath.Join(o.Output, result.Plan.Name+".efi")); !v.Equal() || !strings.HasPrefix(v.Tree, "commit ") || !strings.HasSuffix(v.Tree, ", and "+o.Definition) {
		t.Errorf("verified:\n%s", v)
	}
}
