package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/rootfs"
)

// Root compiles the programs of a definition for this machine and writes the root file system, without the kernel's modules, into the
// directory o.Output: for an engine that runs beside another system. Files that are there are replaced whole, so that a running engine
// is not disturbed.
func Root(ctx context.Context, o Options, definitionFile string) (*Result, error) {
	p, err := Plan(o, definitionFile)
	if err != nil {
		return nil, err
	}
	p.Definition.Arch = runtime.GOARCH
	in, err := readInputs(ctx, o, p)
	if err != nil {
		return nil, err
	}
	c, err := readContents(o.Tree, p)
	if err != nil {
		return nil, err
	}
	done := o.Phase("programs")
	programs, cached, err := compile(ctx, o, p, in)
	if err != nil {
		return nil, err
	}
	done(compiledNote(cached))
	entries, err := userland(p, in, c, programs, false)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if err := writeEntry(filepath.Join(o.Output, e.Path), e); err != nil {
			return nil, fmt.Errorf("%s: %w", e.Path, err)
		}
	}
	return &Result{Plan: p}, nil
}

func writeEntry(target string, e rootfs.Entry) error {
	if e.Mode.IsDir() {
		return os.MkdirAll(target, e.Mode.Perm())
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(target+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, e.Mode.Perm())
	if err != nil {
		return err
	}
	if err := errors.Join(content.CopyAt(f, 0, e.Content), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), target)
}
