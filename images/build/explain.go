package build

import (
	"context"
	"os"

	"github.com/cosi-os/cosi/images/plan"
	"github.com/cosi-os/cosi/kernel"
	"github.com/cosi-os/cosi/kernel/fetch"
	"github.com/cosi-os/cosi/kernel/lock"
)

// Explain says what the build of a definition will make and why. It makes nothing: of packages that are not in the cache and programs that were
// not compiled yet it knows less.
func Explain(ctx context.Context, o Options, definitionFile string) (*plan.Explanation, error) {
	p, err := Plan(o, definitionFile)
	if err != nil {
		return nil, err
	}
	contents, err := readContents(o.Tree, p)
	if err != nil {
		return nil, err
	}
	known := plan.Known{Declarations: contents.declarations, Programs: map[string]int64{}}
	if dirs, ok := cached(o, p.Kernel); ok {
		if known.Kernel, err = kernel.Open(dirs...); err != nil {
			return nil, err
		}
		if known.Mounting = rootModules(known.Kernel.Release); p.HasDisk() {
			known.Mounting = append(known.Mounting, "dm_verity")
		}
	}
	in, err := readInputs(ctx, o, p)
	if err != nil {
		return nil, err
	}
	_, all := programs(o, p, in)
	for path, file := range all {
		if info, err := os.Stat(file); err == nil {
			known.Programs[path] = info.Size()
		}
	}
	return p.Explain(known)
}

// cached are the directories of packages, if all are in the cache.
func cached(o Options, packages []lock.Package) (dirs []string, all bool) {
	fetcher := &fetch.Fetcher{Cache: o.Cache}
	for _, p := range packages {
		result, there := fetcher.Cached(p)
		if !there {
			return nil, false
		}
		dirs = append(dirs, result.Dir)
	}
	return dirs, true
}
