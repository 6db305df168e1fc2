package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cosi-os/cosi/images/build"
)

// complete fills in what the environment says. Without p nothing is shown of what happens.
func complete(o build.Options, definition string, p *progress) (build.Options, error) {
	var err error
	if o.Tree, err = module(definition); err != nil {
		return o, err
	}
	if o.Cache, err = build.CacheDir(); err != nil {
		return o, err
	}
	o.Mirror, o.SourceDateEpoch = os.Getenv("COSI_MIRROR"), os.Getenv("SOURCE_DATE_EPOCH")
	if p != nil {
		o.Phase, o.Log = p.phase, p.log
	}
	return o, nil
}

// errNoModule says that a directory is in no source tree.
var errNoModule = errors.New("in no Go module: an image is built of the source tree that its definition lies in, as those in images do")

// module is the directory of the module that a definition, or a directory, belongs to: the nearest with a go.mod.
func module(definition string) (string, error) {
	path, err := filepath.Abs(definition)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		path = filepath.Dir(path)
	}
	for dir := path; ; dir = filepath.Dir(dir) {
		_, err := os.Stat(filepath.Join(dir, "go.mod"))
		if err == nil {
			return dir, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s: %w", definition, errNoModule)
		}
	}
}
