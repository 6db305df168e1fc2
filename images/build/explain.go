package build

import (
	"context"
	"errors"
	"os"

	"github.com/cosi-os/cosi/images/plan"
	"github.com/cosi-os/cosi/kernel"
	"github.com/cosi-os/cosi/kernel/fetch"
	"github.com/cosi-os/cosi/kernel/lock"
	"github.com/cosi-os/cosi/kernel/own"
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
	dirs, err := kernelDirs(ctx, o, p)
	if err != nil {
		return nil, err
	}
	if len(dirs) > 0 {
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

// kernelDirs are the directories of the kernel, none if it is not in the cache, or nobody knows here which it would be.
func kernelDirs(ctx context.Context, o Options, p *plan.Plan) (dirs []string, err error) {
	if p.Kernel[0].Role == lock.KernelOwn {
		k, err := own.New(ctx, o.Tree, p.Definition.Arch, p.Kernel[0])
		if err != nil && !errors.Is(err, own.ErrNoTool) {
			return nil, err
		}
		if err == nil {
			if dir, err := k.Cached(o.Cache); err == nil {
				return []string{dir}, nil
			}
		}
		return nil, nil
	}
	fetcher := &fetch.Fetcher{Cache: o.Cache}
	for _, one := range p.Kernel {
		result, there := fetcher.Cached(one)
		if !there {
			return nil, nil
		}
		dirs = append(dirs, result.Dir)
	}
	return dirs, nil
}
