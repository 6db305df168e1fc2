package build

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"

	"github.com/cosi-os/cosi/kernel/fetch"
	"github.com/cosi-os/cosi/kernel/lock"
	"github.com/cosi-os/cosi/kernel/own"
)

// Kernel builds our own kernel for an architecture, unless the cache has it, and says where it lies there. It fails if the archive has dropped
// the source that is pinned: nothing else is built in its place.
func Kernel(ctx context.Context, o Options, architecture string) (dir string, built bool, err error) {
	l, err := lock.Load(filepath.Join(o.Tree, LockFile))
	if err != nil {
		return "", false, err
	}
	sources, err := l.Parts(lock.KernelOwn, architecture)
	if err != nil {
		return "", false, fmt.Errorf("%s: %w", LockFile, err)
	}
	k, err := own.New(ctx, o.Tree, architecture, sources[0])
	if err != nil {
		return "", false, err
	}
	if dir, err := k.Cached(o.Cache); err == nil {
		return dir, false, nil
	}
	done := o.Phase("source")
	fetcher := &fetch.Fetcher{Cache: o.Cache, Mirror: o.Mirror, Etc: cmp.Or(o.etc, "/etc"), Log: o.Log}
	source, err := fetcher.Fetch(ctx, k.Source)
	if err != nil {
		return "", false, err
	}
	if source.Unpinned {
		return "", false, fmt.Errorf("%s: %s %s: %w: pin %s, SHA-256 %s", LockFile, k.Source.Name, k.Source.Version, fetch.ErrGone, source.Package.Version, source.Package.SHA256)
	}
	done(k.Source.Version)
	builder := own.Builder{Cache: o.Cache, Phase: o.Phase}
	dir, err = builder.Build(ctx, k, source.Dir)
	return dir, true, err
}
