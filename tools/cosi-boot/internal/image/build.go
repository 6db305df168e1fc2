package image

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cosi-os/cosi/images/build"
	"github.com/cosi-os/cosi/images/definition"
	"github.com/cosi-os/cosi/images/manifest"
)

// Builder builds images of definitions that people post, as cosi-image does, from a source tree, and keeps them in a store. It builds one at a time.
type Builder struct {
	// Options say from which tree, with which cache. The output is the builder's own.
	Options build.Options
	// Dir keeps what the next build of the same definition begins with.
	Dir   string
	Store *Store
	// Named are the images that are not thrown away: those that the book names.
	Named func() []string

	busy chan struct{} // holds one while nothing is built
}

// NewBuilder returns a builder that builds nothing yet.
func NewBuilder(o build.Options, dir string, store *Store, named func() []string) *Builder {
	b := &Builder{Options: o, Dir: dir, Store: store, Named: named, busy: make(chan struct{}, 1)}
	b.busy <- struct{}{}
	return b
}

// Posted is what a definition is called that was posted, where it is at fault.
const Posted = "posted.yaml"

// kept is how many images there are besides those that are named, and how many outputs of builds.
const kept = 8

// Built is an image in the store.
type Built struct {
	// ID is sha256: and the hash of its manifest, which names the hash of all that is in it and that it was made of.
	ID   string `json:"id"`
	Name string `json:"name"`
	// Cached says that nothing had to be made.
	Cached bool `json:"cached"`
}

// Build builds the image of a definition, which may extend those in the tree's images, by their names. A definition that was built before, from the same
// sources, is there at once. The error is a definition.Problems if the definition is at fault.
func (b *Builder) Build(ctx context.Context, text []byte) (*Built, error) {
	const name = Posted
	if err := definition.Foreign(name, text); err != nil {
		return nil, err
	}
	select {
	case <-b.busy:
		defer func() { b.busy <- struct{}{} }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	sum := sha256.Sum256(text)
	o := b.Options
	o.Output = filepath.Join(b.Dir, hex.EncodeToString(sum[:]))
	file, remove, err := b.place(name, text)
	if err != nil {
		return nil, err
	}
	defer remove()
	plan, err := build.Plan(o, file)
	if err == nil && !slices.Contains(plan.Definition.Outputs, definition.PXE) {
		err = definition.Problems{{File: name, Line: 1, Field: "outputs", Message: "want pxe among them: machines boot that"}}
	}
	if err != nil {
		return nil, posted(err)
	}
	result, err := build.Run(ctx, o, file)
	if err != nil {
		return nil, posted(err)
	}
	id, there, err := b.keep(filepath.Join(o.Output, result.Plan.Name))
	if err != nil {
		return nil, err
	}
	return &Built{ID: Prefix + id, Name: result.Plan.Name, Cached: result.UpToDate && there}, b.prune()
}

// posted takes the directory of the definition out of the mistakes that it has: nobody who posts one knows it.
func posted(err error) error {
	problems := definition.Problems(nil)
	if !errors.As(err, &problems) {
		return err
	}
	for i := range problems {
		problems[i].File = filepath.Base(problems[i].File)
	}
	return problems
}

// place puts a definition into a directory of its own, and returns its path: the same each time, as it is seen in no image.
func (b *Builder) place(name string, text []byte) (file string, remove func(), err error) {
	dir := filepath.Join(b.Dir, "definition")
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		return "", nil, err
	}
	file = filepath.Join(dir, name)
	return file, func() { os.RemoveAll(dir) }, os.WriteFile(file, text, 0o600)
}

// keep puts an image into the store and returns its id, and whether it was there.
func (b *Builder) keep(stem string) (id string, there bool, err error) {
	if id, err = manifest.Sum(stem + beside); err != nil {
		return "", false, err
	}
	target := filepath.Join(b.Store.Dir, id)
	now := time.Now()
	if os.Chtimes(target, now, now) == nil {
		return id, true, nil
	}
	if err := os.MkdirAll(b.Store.Dir, 0o755); err != nil {
		return "", false, err
	}
	work, err := os.MkdirTemp(b.Store.Dir, ".work-")
	if err != nil {
		return "", false, err
	}
	defer os.RemoveAll(work)
	for _, suffix := range append([]string{beside}, set...) {
		if err := os.Link(stem+suffix, filepath.Join(work, filepath.Base(stem)+suffix)); err != nil {
			return "", false, err
		}
	}
	return id, false, os.Rename(work, target)
}

// prune throws away the images that were posted longest ago, and the outputs of builds.
func (b *Builder) prune() error {
	named := b.Named()
	return errors.Join(
		pruneDir(b.Store.Dir, func(name string) bool { return slices.Contains(named, Prefix+name) }),
		pruneDir(b.Dir, func(name string) bool { return name == "definition" }),
	)
}

func pruneDir(dir string, keeps func(name string) bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	type item struct {
		path string
		time time.Time
	}
	var all []item
	for _, e := range entries {
		if info, err := e.Info(); err == nil && !keeps(e.Name()) && !strings.HasPrefix(e.Name(), ".") {
			all = append(all, item{filepath.Join(dir, e.Name()), info.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b item) int { return cmp.Compare(b.time.UnixNano(), a.time.UnixNano()) })
	var problems []error
	for _, old := range all[min(kept, len(all)):] {
		problems = append(problems, os.RemoveAll(old.path))
	}
	return errors.Join(problems...)
}
