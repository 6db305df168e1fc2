// Package plan says what a build will do, before it does anything: which packages it fetches, what it compiles, what becomes of it.
//
// The plan is a pure function of a definition and the lock file. The builder follows it; cosi-image plan prints its explanation, with which line
// of which definition asks for what; golden files hold what it prints.
package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cosi-os/cosi/images/definition"
	"github.com/cosi-os/cosi/images/extension"
	"github.com/cosi-os/cosi/kernel/lock"
)

// Plan is what a build will do.
type Plan struct {
	Definition *definition.Definition
	// Name is the stem of all outputs: cosi-base-amd64.
	Name string
	// Kernel, Stub, Loader and Network are the packages to fetch. There is a Loader, for BIOSes, where the image has something that one
	// boots, or may become it, and the architecture has a BIOS; Network has iPXE, for what is booted over the network.
	Kernel, Stub, Loader, Network []lock.Package
	// Programs are compiled for the image.
	Programs []Program
	// Plugins have a declaration each, in the order of their names.
	Plugins []Plugin
	// CommandLine is the kernel's.
	CommandLine string
	// Root are the root file system's files beside modules and declarations.
	Root []string
	// Outputs are the files made, in the order they are made.
	Outputs []Output
}

// Program is one Go command.
type Program struct {
	Package string // "./engine/runtime"
	Path    string // in the root: "usr/bin/runtime"
}

// Plugin is one plugin of the image.
type Plugin struct {
	Name string
	// ID is the uid and gid that are the plugin's alone.
	ID uint32
	// Argv starts it.
	Argv []string
	// Extension is what brings it; nil: this repository.
	Extension *extension.Plugin
}

// Output is one file of the output directory.
type Output struct {
	Kind definition.Output
	File string
}

const (
	// firstPlugin is the uid of the first plugin; the runtime has the one before.
	firstPlugin = 901

	// BIOSArch is the architecture whose machines may have a BIOS instead of UEFI.
	BIOSArch = "amd64"

	// Executables is the directory of the plugins' executables.
	Executables = "usr/lib/cosi/bin"
	// Multi is the executable that is every first-party plugin.
	Multi = Executables + "/plugins"
	// Declarations is the directory of NAME.json.
	Declarations = "usr/lib/cosi/plugins"
	// Modules names the modules to load before the plugins start.
	Modules = "usr/lib/cosi/modules"
	// Resources are the image's default resources.
	Resources = "usr/lib/cosi/resources.yaml"
	// URLCA are the certificates that vouch for an https URL of user data.
	URLCA = "usr/lib/cosi/userdata-ca.pem"
	// Kinds has the descriptors of all kinds that a node has from the start, for whoever looks at the image: a FileDescriptorSet, with gzip.
	Kinds = "usr/lib/cosi/kinds.binpb.gz"
	// Manifest is what the image is made of: see package manifest.
	Manifest = "usr/lib/cosi/manifest.json.gz"
	// Image is the image's identity for the engine.
	Image = "usr/lib/cosi/image.json"
	// OSRelease is the image's identity for everybody: see os-release(5).
	OSRelease = "usr/lib/os-release"

	// BIOSNetwork and UEFINetwork are the suffixes of iPXE for firmware of amd64 that boots by TFTP. Both use the firmware's driver for the
	// card that it booted from.
	BIOSNetwork = ".undionly.kpxe"
	UEFINetwork = ".snponly.efi"
	// ARMNetwork is the same for arm64, with drivers of its own beside the firmware's: Debian has no smaller one.
	ARMNetwork = ".ipxe-arm64.efi"
)

// NetworkLoaders are the suffixes of iPXE in a PXE set, by the set's architecture.
var NetworkLoaders = map[string][]string{"amd64": {BIOSNetwork, UEFINetwork}, "arm64": {ARMNetwork}}

// MountPoints are the root's empty directories.
var MountPoints = []string{"dev", "etc", "proc", "run", "sys", "tmp", "var"}

// suffixes of the files that an output consists of, beside a PXE set's NetworkLoaders.
var suffixes = map[definition.Output][]string{
	definition.Raw:          {".raw"},
	definition.QCOW2:        {".qcow2"},
	definition.ISO:          {".iso"},
	definition.UKI:          {".efi"},
	definition.Direct:       {".vmlinuz", ".initramfs"},
	definition.PXE:          {".vmlinuz", ".initramfs", ".efi", ".ipxe"},
	definition.VHD:          {".vhd"},
	definition.VMDK:         {".vmdk"},
	definition.OVA:          {".ova"},
	definition.GCP:          {".gcp.tar.gz"},
	definition.OCI:          {".oci.tar"},
	definition.RawZstandard: {".raw.zst"},
	definition.RawGzip:      {".raw.gz"},
	definition.RawXZ:        {".raw.xz"},
	definition.UpgradeFile:  {".upgrade"},
}

// order is that in which outputs are listed: what is made of another one comes after it.
var order = []definition.Output{
	definition.Direct, definition.PXE, definition.UKI, definition.Raw, definition.QCOW2, definition.VHD, definition.VMDK, definition.OVA,
	definition.GCP, definition.ISO, definition.OCI,
	definition.RawZstandard, definition.RawGzip, definition.RawXZ, definition.UpgradeFile,
}

// kernelRole is that of the kernel's packages in the lock.
func kernelRole(d *definition.Definition) string {
	if d.Kernel.Series != "" {
		return "kernel-" + d.Kernel.Flavour + "-" + d.Kernel.Series
	}
	return "kernel-" + d.Kernel.Flavour
}

// New plans the build of d. It fails if the lock has no package for d's architecture, with a definition.Problems if it is the kernel's series that it lacks.
func New(d *definition.Definition, l *lock.Lock) (*Plan, error) {
	kernel, err := l.Parts(kernelRole(d), d.Arch)
	if errors.Is(err, lock.ErrNotPinned) && d.Kernel.Series != "" {
		return nil, caused{definition.Problems{noSeries(d, l)}, lock.ErrNotPinned}
	}
	if err != nil {
		return nil, err
	}
	stub, err := l.Parts(lock.EFIStub, d.Arch)
	if err != nil {
		return nil, err
	}
	p := &Plan{
		Definition: d, Name: "cosi-" + d.Name + "-" + d.Arch, Kernel: kernel, Stub: stub,
		Programs:    []Program{{"./engine", "usr/bin/engine"}, {"./engine/runtime", "usr/bin/runtime"}, {"./plugins", Multi}},
		CommandLine: commandLine(d),
		Root:        []string{Image, Modules, Resources, Kinds, Manifest, OSRelease},
	}
	if d.UserData.URLCA != "" {
		p.Root = append(p.Root, URLCA)
	}
	p.plugins()
	for _, kind := range order {
		if !slices.Contains(d.Outputs, kind) {
			continue
		}
		files := suffixes[kind]
		if kind == definition.PXE {
			files = slices.Concat(files, NetworkLoaders[d.Arch])
		}
		for _, suffix := range files {
			if !p.Writes(suffix) { // outputs share files
				p.Outputs = append(p.Outputs, Output{kind, p.Name + suffix})
			}
		}
	}
	if d.Arch == BIOSArch && (p.HasDisk() || p.Writes(".oci.tar")) {
		if p.Loader, err = l.Parts(lock.BIOSLoader, d.Arch); err != nil {
			return nil, err
		}
	}
	if p.Writes(".ipxe") {
		if p.Network, err = l.Parts(lock.NetLoader, d.Arch); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// caused are mistakes in definitions for a reason that callers may ask for.
type caused struct {
	definition.Problems
	cause error
}

func (c caused) Unwrap() []error { return []error{c.cause, c.Problems} }

// noSeries says which series of the kernel are pinned, of which d's is none.
func noSeries(d *definition.Definition, l *lock.Lock) definition.Problem {
	at := d.Origin("kernel.series", "")
	var there []string
	for _, p := range l.Packages {
		series, of := strings.CutPrefix(p.Role, "kernel-"+d.Kernel.Flavour+"-")
		if of && p.Architecture == d.Arch && !slices.Contains(there, series) {
			there = append(there, series)
		}
	}
	message := fmt.Sprintf("no kernel %s of the series %q is pinned for %s in kernel/lock.yaml", d.Kernel.Flavour, d.Kernel.Series, d.Arch)
	if len(there) > 0 {
		message += fmt.Sprintf(" (%s)", strings.Join(there, ", "))
	}
	return definition.Problem{File: at.File, Line: at.Line, Field: "kernel.series", Message: message}
}

// Packages are all packages to fetch.
func (p *Plan) Packages() []lock.Package { return slices.Concat(p.Kernel, p.Stub, p.Loader, p.Network) }

// HasDisk reports whether one of the outputs is a disk, or is made of one, as is what a medium installs.
func (p *Plan) HasDisk() bool {
	return slices.ContainsFunc([]string{".raw", ".qcow2", ".vhd", ".vmdk", ".ova", ".gcp.tar.gz", ".raw.zst", ".raw.gz", ".raw.xz", ".upgrade", ".iso"}, p.Writes)
}

// plugins gives each plugin its identifiers and its executable.
func (p *Plan) plugins() {
	brought := map[string]*extension.Plugin{}
	names := slices.Concat(p.Definition.Plugins, p.Definition.SeparatePlugins)
	for _, x := range p.Definition.Merged {
		for i := range x.Plugins {
			name := x.Plugins[i].Declaration.Name
			brought[name], names = &x.Plugins[i], append(names, name)
		}
	}
	slices.Sort(names)
	for i, name := range names {
		plugin := Plugin{Name: name, ID: uint32(firstPlugin + i), Argv: []string{"/" + Multi, name}, Extension: brought[name]}
		separate := slices.Contains(p.Definition.SeparatePlugins, name)
		if path := Executables + "/" + name; separate || plugin.Extension != nil {
			plugin.Argv = []string{"/" + path}
			if separate {
				p.Programs = append(p.Programs, Program{"./plugins/" + name + "/main", path})
			}
		}
		p.Plugins = append(p.Plugins, plugin)
	}
}

// Writes reports whether the file with a suffix, as in ".raw", is one of the outputs.
func (p *Plan) Writes(suffix string) bool {
	return slices.ContainsFunc(p.Outputs, func(o Output) bool { return o.File == p.Name+suffix })
}
