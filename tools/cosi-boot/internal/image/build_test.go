package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cosi-os/cosi/images/build"
	"github.com/cosi-os/cosi/images/definition"
)

// tree is this repository.
const tree = "../../../.."

func newBuilder(t *testing.T, named func() []string) *Builder {
	t.Helper()
	cache, err := build.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	o := build.Options{Tree: tree, Cache: cache, Mirror: os.Getenv("COSI_MIRROR"), Phase: func(string) func(string) { return func(string) {} }, Log: t.Logf}
	return NewBuilder(o, filepath.Join(dir, "build"), &Store{Dir: filepath.Join(dir, "images")}, named)
}

// The image of a posted definition is the one of its content, which has another if an argument is another, and the second time it is there.
func TestAPostedDefinitionIsBuilt(t *testing.T) {
	if testing.Short() {
		t.Skip("builds an image")
	}
	b := newBuilder(t, func() []string { return nil })
	text := "name: posted\nextends: base.yaml\nkernel: {arguments: [posted=1]}\noutputs: [pxe]\n"
	first, err := b.Build(t.Context(), []byte(text))
	if err != nil || first.Cached || first.Name != "cosi-posted-amd64" {
		t.Fatalf("Build = %+v, %v", first, err)
	}
	again, err := b.Build(t.Context(), []byte(text))
	if err != nil || !again.Cached || again.ID != first.ID {
		t.Errorf("the second time: %+v, %v", again, err)
	}
	image, err := b.Store.Open(first.ID)
	if err != nil {
		t.Fatal(err)
	}
	f, err := image.Open(image.Name + Script)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	script := make([]byte, f.Size())
	if _, err := f.ReadAt(script, 0); err != nil || !strings.Contains(string(script), "posted=1") {
		t.Errorf("the script, %v:\n%s", err, script)
	}
	entries, err := os.ReadDir(b.Dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v is left beside the outputs", entries, err)
	}
}

func TestWhatCannotBeBuiltIsSaid(t *testing.T) {
	b := newBuilder(t, nil)
	for text, want := range map[string]string{
		"name: a\nextends: base.yaml\noutputs: [raw]\n":                      "posted.yaml:1: outputs: want pxe among them",
		"name: a\nextends: base.yaml\nkernel: {flavour: huge}\n":             "posted.yaml:3: kernel.flavour: ",
		"name: a\nextends: base.yaml\nplugins: [nonesuch]\noutputs: [pxe]\n": "posted.yaml:3: plugins: ",
		"name: a\nextends: none.yaml\n":                                      "posted.yaml:2: extends: ",
		"name: a\nextends: ../kernel/lock.yaml\n":                            "posted.yaml:2: extends: ",
		"name: a\nextends: base.yaml\nextensions: [/etc]\n":                  "posted.yaml:3: extensions[0]: ",
		"name: a\nextends: base.yaml\nextends: /etc/hostname.yaml":           "posted.yaml:3: extends: ",
	} {
		_, err := b.Build(t.Context(), []byte(text))
		if problems := (definition.Problems)(nil); !errors.As(err, &problems) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("Build(%q) = %v; want %q", text, err, want)
		}
	}
}

// What is named is kept, of the rest the newest.
func TestOldImagesAreThrownAway(t *testing.T) {
	id := func(i int) string { return fmt.Sprintf("%064d", i) }
	b := newBuilder(t, func() []string { return []string{"/srv/other", Prefix + id(0)} })
	for i := range kept + 3 {
		dir := filepath.Join(b.Store.Dir, id(i))
		when := time.Now().Add(time.Duration(i-100) * time.Minute)
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.MkdirAll(b.Dir, 0o700), os.Chtimes(dir, when, when)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.prune(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(b.Store.Dir)
	if err != nil || len(entries) != kept+1 || entries[0].Name() != id(0) || entries[1].Name() != id(3) {
		t.Errorf("%d are left, %v: %v", len(entries), err, entries)
	}
}
