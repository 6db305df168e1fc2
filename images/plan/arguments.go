package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cosi-os/cosi/images/definition"
	"github.com/cosi-os/cosi/kernel/lock"
)

const (
	// rootArgument has the initramfs in a ramfs: Linux mounts an erofs image straight from a file there, but not from a tmpfs, which is
	// what it takes otherwise (6.12: ENOTBLK).
	rootArgument = "rootfstype=ramfs"

	// Arguments about the node's state partition, how many MiB it has at most and whether it is sealed: see engine/disk.
	stateArgument = "cosi.state_mib"
	sealArgument  = "cosi.state_seal"
)

// withoutLinks keep our own kernel from making links that nobody has asked for. Debian's makes them when somebody loads the module; what is built
// in would at each boot: bond0, dummy0, tunl0, sit0 and others, nine in all.
var withoutLinks = []string{"bonding.max_bonds=0", "dummy.numdummies=0", "fb_tunnels=none"}

// kernelArguments are those that a kernel gets whatever the definition is, unless that gives the same one another value.
func kernelArguments(d *definition.Definition) []string {
	if kernelRole(d) != lock.KernelOwn {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(withoutLinks), func(argument string) bool {
		return slices.ContainsFunc(d.Kernel.Arguments, func(said string) bool { return argumentName(said) == argumentName(argument) })
	})
}

func argumentName(argument string) string {
	name, _, _ := strings.Cut(argument, "=")
	return name
}

// commandLine is what the kernel is told.
func commandLine(d *definition.Definition) string {
	arguments := slices.Concat([]string{rootArgument}, kernelArguments(d), d.Kernel.Arguments)
	if n, ok := d.State.Size.MiB(); ok {
		arguments = append(arguments, fmt.Sprintf("%s=%d", stateArgument, n))
	}
	if s := d.State.Seal; s != "" && s != definition.SealAuto {
		arguments = append(arguments, sealArgument+"="+string(s))
	}
	return strings.Join(arguments, " ")
}

func (p *Plan) explainArguments() []Item {
	given := kernelArguments(p.Definition)
	var items []Item
	for argument := range strings.FieldsSeq(p.CommandLine) {
		why := ""
		switch name := argumentName(argument); {
		case argument == rootArgument:
			why = "the root is mounted from a file of the initramfs, except on disks"
		case slices.Contains(given, argument):
			why = "without it our own kernel makes links that nobody asks for"
		case name == stateArgument:
			why = p.origin("state.size", "")
		case name == sealArgument:
			why = p.origin("state.seal", "")
		default:
			why = p.origin("kernel.arguments", argument)
		}
		items = append(items, Item{Name: argument, Why: []string{why}})
	}
	if p.HasDisk() {
		items = append(items,
			Item{Name: "roothash=…", Why: []string{"on disks: the root in a slot, which the kernel checks as it reads"}},
			Item{Name: "systemd.verity_root_options=…", Why: []string{"on disks: where in the slot the hashes begin"}})
	}
	return items
}
