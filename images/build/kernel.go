package build

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cosi-os/cosi/kernel/fetch"
	"github.com/cosi-os/cosi/kernel/lock"
	"github.com/cosi-os/cosi/kernel/own"
)

// OwnKernel is what Kernel has found or built.
type OwnKernel struct {
	// Dir is where it lies.
	Dir string
	// Built says that it was not there before.
	Built bool
	// Unrecorded are the lines that own.RecordFile lacks of it; empty: it is the one that this file knows.
	Unrecorded string
}

// Kernel builds our own kernel for an architecture, unless the cache has it, and says where it lies there. With record it adds it to the kernels that the
// tree knows. It fails if the archive has dropped the source that is pinned: nothing else is built in its place; and with own.ErrOther if the kernel
// is not the one that the tree knows.
func Kernel(ctx context.Context, o Options, architecture string, record bool) (*OwnKernel, error) {
	l, err := lock.Load(filepath.Join(o.Tree, LockFile))
	if err != nil {
		return nil, err
	}
	sources, err := l.Parts(lock.KernelOwn, architecture)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", LockFile, err)
	}
	k, err := own.New(ctx, o.Tree, architecture, sources[0])
	if err != nil {
		return nil, err
	}
	found := &OwnKernel{}
	if found.Dir, err = k.Cached(o.Cache); err != nil {
		found.Built = true
		if found.Dir, err = buildKernel(ctx, o, k); err != nil {
			return nil, err
		}
	}
	if record {
		return found, k.Record(o.Tree, found.Dir)
	}
	if err := k.Check(found.Dir); !errors.Is(err, own.ErrNotRecorded) {
		return found, err
	}
	found.Unrecorded, err = k.Lines(found.Dir)
	return found, err
}

func buildKernel(ctx context.Context, o Options, k *own.Kernel) (dir string, err error) {
	const phase = "source"
	done := o.Phase(phase)
	source, err := o.fetcher(phase).Fetch(ctx, k.Source)
	if err != nil {
		return "", err
	}
	if source.Unpinned {
		return "", fmt.Errorf("%s: %s %s: %w: pin %s, SHA-256 %s", LockFile, k.Source.Name, k.Source.Version, fetch.ErrGone, source.Package.Version, source.Package.SHA256)
	}
	done(k.Source.Version)
	builder := own.Builder{Cache: o.Cache, Phase: o.Phase}
	return builder.Build(ctx, k, source.Dir)
}

// cachedKernel is the directory of our own kernel in the cache. One that is not what the tree has recorded enters no image.
func cachedKernel(o Options, k *own.Kernel) (dir string, err error) {
	if dir, err = k.Cached(o.Cache); err != nil {
		return "", err
	}
	if err := k.Check(dir); err != nil && !errors.Is(err, own.ErrNotRecorded) {
		return "", err
	}
	return dir, nil
}
