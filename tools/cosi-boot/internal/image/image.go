// Package image opens the images that machines boot over the network: PXE sets as the image builder writes them, at a path that the boot server's
// owner names, or built on request and kept under their id.
//
// Of a set, the files that its manifest lists can be had by their names, and no others.
package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/manifest"
	"github.com/cosi-os/cosi/images/plan"
)

// Suffixes of the files that machines ask for, behind the image's name.
const (
	Script = ".ipxe"
	Kernel = ".vmlinuz"
	UKI    = ".efi"

	beside = ".manifest.json"
)

// set are the suffixes of a whole PXE set, beside those of iPXE for firmware.
var set = []string{Kernel, ".initramfs", UKI, Script}

// Image is a PXE set.
type Image struct {
	Name  string // cosi-base-amd64
	Arch  string // amd64
	dir   string
	files []string
}

// Open opens a file of the image. The error is fs.ErrNotExist if the image has none of the name.
func (i *Image) Open(name string) (*content.File, error) {
	if !slices.Contains(i.files, name) {
		return nil, fmt.Errorf("%s: %q: %w", i.Name, name, fs.ErrNotExist)
	}
	return content.Open(filepath.Join(i.dir, name))
}

// Store finds images. It is safe for concurrent use.
type Store struct {
	// Dir has those that were built on request, each in a directory that is called like its id.
	Dir string

	mu   sync.Mutex // guards read
	read map[string]dated
}

// dated is an image as it was read from a manifest of a time.
type dated struct {
	image *Image
	time  time.Time
	size  int64
}

// Prefix is what an image's id begins with.
const Prefix = "sha256:"

var idPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Open returns an image by its id, or by the path of its set without suffixes. It fails if that is not a whole PXE set.
func (s *Store) Open(reference string) (*Image, error) {
	stem := reference
	if id, is := strings.CutPrefix(reference, Prefix); is {
		if !idPattern.MatchString(id) {
			return nil, fmt.Errorf("image %s: an id has 64 hexadecimal digits", reference)
		}
		found, err := filepath.Glob(filepath.Join(s.Dir, id, "*"+beside))
		if err != nil || len(found) != 1 {
			return nil, fmt.Errorf("image %s: is not here: post its definition", reference)
		}
		stem = strings.TrimSuffix(found[0], beside)
	}
	image, err := s.open(stem)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", reference, err)
	}
	return image, nil
}

func (s *Store) open(stem string) (*Image, error) {
	info, err := os.Stat(stem + beside)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: build it with outputs: [pxe]", err)
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.read[stem]; ok && known.time.Equal(info.ModTime()) && known.size == info.Size() {
		return known.image, nil
	}
	image, err := load(stem)
	if err != nil {
		return nil, err
	}
	if s.read == nil {
		s.read = map[string]dated{}
	}
	s.read[stem] = dated{image, info.ModTime(), info.Size()}
	return image, nil
}

func load(stem string) (*Image, error) {
	m, err := manifest.Read(stem + beside)
	if err != nil {
		return nil, err
	}
	i := &Image{Name: filepath.Base(stem), Arch: m.Arch(), dir: filepath.Dir(stem)}
	for _, file := range m.Outputs {
		if filepath.Base(file.Name) == file.Name && strings.HasPrefix(file.Name, i.Name+".") {
			i.files = append(i.files, file.Name)
		}
	}
	for _, suffix := range slices.Concat(set, plan.NetworkLoaders[i.Arch]) {
		if !slices.Contains(i.files, i.Name+suffix) {
			return nil, fmt.Errorf("has no %s: it takes outputs: [pxe] in its definition", i.Name+suffix)
		}
	}
	return i, nil
}
