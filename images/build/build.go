// Package build makes images: it follows a plan from sources and packages to the files of the output directory.
//
// The same sources, definition and packages give the same bytes, in any directory and for any user; the manifest names them all. A build
// whose inputs have not changed since its outputs were made does nothing. Outputs appear whole or not at all, and those of two builds into one
// directory one after the other.
package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/cosi-os/cosi/images/definition"
	"github.com/cosi-os/cosi/images/grub"
	"github.com/cosi-os/cosi/images/manifest"
	"github.com/cosi-os/cosi/images/plan"
	"github.com/cosi-os/cosi/kernel"
	"github.com/cosi-os/cosi/kernel/fetch"
	"github.com/cosi-os/cosi/kernel/lock"
)

// Options say where a build happens.
type Options struct {
	// Tree is the directory of the module that the image is made of: the one with go.mod.
	Tree string
	// Output is where the outputs go. It is made.
	Output string
	// Cache outlives builds: packages and compiled programs.
	Cache string
	// Mirror is the URL of a Debian archive; empty: as apt is configured.
	Mirror string
	// SourceDateEpoch is the time of everything in the image, in seconds, if the user sets it.
	SourceDateEpoch string
	// Signatures is an image, or a manifest beside outputs, whose signatures are put where they belong: no private key is opened then. What they are
	// not over is left without a good signature.
	Signatures string
	// Definition is the file that Verify builds an image of whose definition lies outside of the tree.
	Definition string
	// Phase is called when a phase begins; what it returns is called when the phase ends, with a note. Phases overlap.
	Phase func(name string) (done func(note string))
	// Progress is told again and again how many bytes of a package a phase has downloaded; it may be nil.
	Progress func(phase string, bytes int64)
	// Log is told what people must know.
	Log func(format string, args ...any)

	// etc is where this machine is configured, if not in /etc: tests have an archive of their own.
	etc string
}

// Result says what a build did.
type Result struct {
	Plan *plan.Plan
	// UpToDate says that nothing had to be made.
	UpToDate bool
	// Unpinned says that a package had to be replaced by a newer one.
	Unpinned bool
	// Outputs are the files, with their sizes.
	Outputs []manifest.File
}

const (
	// LockFile is the lock's place in the tree.
	LockFile = "kernel/lock.yaml"
	// Definitions is where the tree has those that others extend by their names.
	Definitions = "images"
)

// Plan plans the build of a definition, which may lie anywhere, without doing anything.
func Plan(o Options, definitionFile string) (*plan.Plan, error) {
	d, err := definition.Load(definitionFile, filepath.Join(o.Tree, Definitions))
	if err != nil {
		return nil, err
	}
	l, err := lock.Load(filepath.Join(o.Tree, LockFile))
	if err != nil {
		return nil, err
	}
	p, err := plan.New(d, l)
	if err != nil && !errors.As(err, &definition.Problems{}) {
		err = fmt.Errorf("%s: %w", LockFile, err)
	}
	return p, err
}

// Run builds the image of a definition.
func Run(ctx context.Context, o Options, definitionFile string) (*Result, error) {
	p, err := Plan(o, definitionFile)
	if err != nil {
		return nil, err
	}
	in, err := readInputs(ctx, o, p)
	if err != nil {
		return nil, err
	}
	if err := in.addKernel(ctx, o, p); err != nil {
		return nil, err
	}
	stamp := filepath.Join(o.Output, "."+p.Name+".stamp")
	if outputs, ok := fresh(stamp, in, o.Output); ok {
		return &Result{Plan: p, UpToDate: true, Outputs: outputs}, nil
	}
	result, err := assemble(ctx, o, p, in, stamp)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err() // rather than how the compiler has ended
	}
	return result, err
}

// assemble builds what is not up to date.
func assemble(ctx context.Context, o Options, p *plan.Plan, in *Inputs, stamp string) (*Result, error) {
	contents, err := readContents(o.Tree, p)
	if err != nil {
		return nil, err
	}
	keys, err := openKeys(o, p.Definition, in)
	if err != nil {
		return nil, err
	}
	defer keys.close()
	parts, err := gather(ctx, o, p, in)
	if err != nil {
		return nil, err
	}
	parts.contents, parts.keys = contents, keys
	if err := os.MkdirAll(o.Output, 0o755); err != nil {
		return nil, err
	}
	work, remove, err := workDir(o.Output)
	if err != nil {
		return nil, err
	}
	defer remove()
	says, err := describe(o, p, in, parts)
	if err != nil {
		return nil, err
	}
	outputs, err := write(ctx, o, p, in, parts, says, work)
	if err != nil {
		return nil, err
	}
	says.Signatures = *keys.made
	release, err := alone(o.Output)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := publish(o.Output, work, says, outputs); err != nil {
		return nil, err
	}
	result := &Result{Plan: p, Unpinned: parts.unpinned(), Outputs: outputs}
	if result.Unpinned || o.Signatures != "" {
		// The pinned package may be reachable the next time, or the key: no stamp.
		return result, nil
	}
	return result, writeStamp(stamp, in, o.Output, outputs)
}

// parts are what an image is put together from.
type parts struct {
	kernel   *kernel.Tree
	packages []fetch.Result // in the plan's order
	stub     []byte
	manager  []byte       // systemd-boot, which starts the unified kernel image of a disk, and enrols keys
	loader   *grub.Loader // nil: no BIOS boots the image
	network  string       // the directory with iPXE's files; "" if nothing is booted over the network
	keys     keys
	programs map[string]string // path in the root → file on the build machine
	contents contents
}

func (p *parts) unpinned() bool {
	return slices.ContainsFunc(p.packages, func(r fetch.Result) bool { return r.Unpinned })
}

// fetcher is the one of a phase.
func (o Options) fetcher(phase string) *fetch.Fetcher {
	f := &fetch.Fetcher{Cache: o.Cache, Mirror: o.Mirror, Etc: cmp.Or(o.etc, "/etc"), Log: o.Log}
	if o.Progress != nil {
		f.Progress = func(bytes int64) { o.Progress(phase, bytes) }
	}
	return f
}

// gather fetches packages and compiles programs, at the same time.
func gather(ctx context.Context, o Options, p *plan.Plan, in *Inputs) (*parts, error) {
	parts := &parts{}
	const packages = "kernel"
	fetcher := o.fetcher(packages)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		done := o.Phase(packages)
		var dirs []string
		for _, wanted := range p.Packages() {
			fetched := fetch.Result{Package: wanted}
			if in.own != nil && wanted == in.own.Source {
				fetched.Dir, err = cachedKernel(o, in.own)
			} else {
				fetched, err = fetcher.Fetch(ctx, wanted)
			}
			if err != nil {
				return err
			}
			parts.packages, dirs = append(parts.packages, fetched), append(dirs, fetched.Dir)
		}
		if parts.kernel, err = kernel.Open(dirs[:len(p.Kernel)]...); err != nil {
			return err
		}
		for file, data := range map[string]*[]byte{stubs[p.Definition.Arch]: &parts.stub, managers[p.Definition.Arch]: &parts.manager} {
			if *data, err = os.ReadFile(filepath.Join(dirs[len(p.Kernel)], "usr/lib/systemd/boot/efi", file)); err != nil {
				return err
			}
		}
		if len(p.Loader) > 0 {
			parts.loader, err = grub.Open(dirs[len(p.Kernel)+len(p.Stub)])
		}
		if len(p.Network) > 0 {
			parts.network = filepath.Join(dirs[len(dirs)-1], "usr/lib/ipxe")
		}
		done(parts.kernel.Release)
		return err
	})
	group.Go(func() (err error) {
		done := o.Phase("programs")
		var cached bool
		parts.programs, cached, err = compile(ctx, o, p, in)
		done(compiledNote(cached))
		return err
	})
	return parts, group.Wait()
}

// stubs are systemd's names of its EFI stubs, managers those of its boot manager.
var (
	stubs    = map[string]string{"amd64": "linuxx64.efi.stub", "arm64": "linuxaa64.efi.stub"}
	managers = map[string]string{"amd64": "systemd-bootx64.efi", "arm64": "systemd-bootaa64.efi"}
)
