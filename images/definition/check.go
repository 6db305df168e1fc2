package definition

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/cosi-os/cosi/api/layout/ext4"
	"github.com/cosi-os/cosi/images/strict"
	"github.com/cosi-os/cosi/initramfs"
)

// checker is strict.Checker with what a definition's values mean.
type checker struct{ *strict.Checker }

var (
	namePattern    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)
	modulePattern  = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	versionPattern = regexp.MustCompile(`^[0-9]+(\.[0-9]+)*$`)
	seriesPattern  = regexp.MustCompile(`^([0-9]+\.[0-9]+|backports)$`)
)

// built are the arguments of the kernel that a build adds, with the field that decides what they say. A second one would count in the first one's place, or not.
var built = map[string]string{"rootfstype": "", "roothash": "", "systemd.verity_root_options": "", "cosi.state_mib": "state.size", "cosi.state_seal": "state.seal"}

// leastState is the size of the file system that a node makes, in MiB, before it grows.
const leastState = ext4.Size >> 20

// meaning finds values that have the right type and make no sense.
func (c *checker) meaning(d *Definition) {
	at := func(field, format string, args ...any) { c.Problem(c.Lines[field], field, format, args...) }
	if d.Name != "" && !namePattern.MatchString(d.Name) {
		at("name", "%q: want lower-case letters, digits and hyphens, at most 31", d.Name)
	}
	if d.Arch != "" && !slices.Contains(Architectures, d.Arch) {
		at("arch", "%s", strict.Among(d.Arch, "an architecture", Architectures))
	}
	if d.Platform != "" && !slices.Contains(Platforms, d.Platform) {
		at("platform", "%s", strict.Among(d.Platform, "a platform", Platforms))
	}
	if d.Kernel.Flavour != "" && !slices.Contains(Flavours, d.Kernel.Flavour) {
		at("kernel.flavour", "%s", strict.Among(d.Kernel.Flavour, "a flavour", Flavours))
	}
	if d.Kernel.Series != "" && !seriesPattern.MatchString(d.Kernel.Series) {
		at("kernel.series", "%q is not a series of kernels (try 6.1 or backports)", d.Kernel.Series)
	}
	if d.Initramfs.Compression != "" && !slices.Contains(initramfs.Compressions, d.Initramfs.Compression) {
		at("initramfs.compression", "%s", strict.Among(string(d.Initramfs.Compression), "a compression", initramfs.Compressions))
	}
	if d.State.Size != "" {
		if n, ok := d.State.Size.MiB(); !ok {
			at("state.size", "%q is not a size (try 10GiB)", d.State.Size)
		} else if n < leastState {
			at("state.size", "%s is too small: a state takes %dMiB at least", d.State.Size, leastState)
		}
	}
	if d.State.Seal != "" && !slices.Contains(Seals, d.State.Seal) {
		at("state.seal", "%s", strict.Among(string(d.State.Seal), "a way to seal", Seals))
	}
	if d.Upgrade.Floor != "" && !versionPattern.MatchString(d.Upgrade.Floor) {
		at("upgrade.floor", "%q is not a version (try 1.2.0)", d.Upgrade.Floor)
	}
	for i, output := range d.Outputs {
		if !slices.Contains(Outputs, output) {
			at(fmt.Sprintf("outputs[%d]", i), "%s", strict.Among(string(output), "an output", Outputs))
		}
		if slices.Contains(d.Outputs[:i], output) {
			at(fmt.Sprintf("outputs[%d]", i), "%q is listed before", output)
		}
	}
	c.each("plugins", d.Plugins, func(s string) bool { return namePattern.MatchString(s) }, "%q is not a plugin's name")
	c.each("separate_plugins", d.SeparatePlugins, func(s string) bool { return namePattern.MatchString(s) && !slices.Contains(d.Plugins, s) }, "%q is not a plugin's name, or in plugins already")
	c.each("kernel.modules.boot", d.Kernel.Modules.Boot, modulePattern.MatchString, "%q is not a module's name")
	c.each("kernel.modules.ship", d.Kernel.Modules.Ship, modulePattern.MatchString, "%q is not a module's name")
	c.each("kernel.arguments", d.Kernel.Arguments, func(s string) bool { return s != "" && !strings.ContainsAny(s, "\x00\r\n\t ") }, "%q: want one argument without white space")
	for i, argument := range d.Kernel.Arguments {
		name, _, _ := strings.Cut(argument, "=")
		if field, is := built[name]; is && field != "" {
			at(fmt.Sprintf("kernel.arguments[%d]", i), "%q: say %s", argument, field)
		} else if is {
			at(fmt.Sprintf("kernel.arguments[%d]", i), "%q: a build says that itself", argument)
		}
	}
	c.without(d)
	c.each("extensions", names(d.Extensions, extensionName), notEmpty, "%q")
	c.partitions(&d.Partitions)
	c.signing(d)
	c.each("resources", names(d.Resources, ResourceName), func(string) bool { return true }, "%q")
	for i, node := range d.Resources {
		if node.Kind != yaml.MappingNode {
			at(fmt.Sprintf("resources[%d]", i), "want a resource (metadata and spec)")
		}
	}
}

// without finds mistakes in what is to be taken away. Whether it is there is seen when the definitions are merged.
func (c *checker) without(d *Definition) {
	w := &d.Without
	c.each("without.plugins", w.Plugins, notEmpty, "%q is not a plugin's name")
	c.each("without.separate_plugins", w.SeparatePlugins, notEmpty, "%q is not a plugin's name")
	c.each("without.kernel.modules", w.Kernel.Modules, notEmpty, "%q is not a module's name")
	c.each("without.kernel.arguments", w.Kernel.Arguments, notEmpty, "%q is not an argument")
	c.each("without.resources", w.Resources, notEmpty, "%q is not a resource (TYPE/ID)")
	c.each("without.partitions", w.Partitions, notEmpty, "%q is not a partition's name")
	c.each("without.extensions", w.Extensions, notEmpty, "%q is not an extension's name")
	if line, is := c.Lines["without"]; is && d.Extends == "" {
		c.Problem(line, "without", "there is nothing to take away: this definition extends none")
	}
}

func notEmpty(s string) bool { return s != "" }

func (c *checker) each(field string, values []string, ok func(string) bool, message string) {
	for i, value := range values {
		path := fmt.Sprintf("%s[%d]", field, i)
		switch {
		case !ok(value):
			c.Problem(c.Lines[path], path, message, value)
		case slices.Contains(values[:i], value):
			c.Problem(c.Lines[path], path, "%q is listed before", value)
		}
	}
}

// whole finds what a definition must say when nothing more is to come, and what it says twice in different places.
func (d *Definition) whole() Problems {
	var all Problems
	for _, plugin := range d.SeparatePlugins {
		if slices.Contains(d.Plugins, plugin) {
			at, other := d.Origin("separate_plugins", plugin), d.Origin("plugins", plugin)
			all = append(all, Problem{File: at.File, Line: at.Line, Field: "separate_plugins", Message: fmt.Sprintf("%q is in plugins, too, by %s", plugin, other)})
		}
	}
	const unreadable = "%q is for VMware, whose user data a node for arm64 cannot read"
	for _, output := range []Output{VMDK, OVA} {
		if d.Arch == "arm64" && slices.Contains(d.Outputs, output) {
			at := d.Origin("outputs", string(output))
			all = append(all, Problem{File: at.File, Line: at.Line, Field: "outputs", Message: fmt.Sprintf(unreadable, output)})
		}
	}
	if d.Arch == "arm64" && d.Platform == "vmware" {
		at := d.Origin("platform", "")
		all = append(all, Problem{File: at.File, Line: at.Line, Field: "platform", Message: fmt.Sprintf(unreadable, d.Platform)})
	}
	for _, want := range []struct {
		field string
		is    bool
	}{
		{"name", d.Name != ""}, {"arch", d.Arch != ""}, {"kernel.flavour", d.Kernel.Flavour != ""}, {"initramfs.compression", d.Initramfs.Compression != ""},
		{"plugins", len(d.Plugins) > 0}, {"outputs", len(d.Outputs) > 0}, {"epoch", !d.Epoch.IsZero()},
	} {
		if !want.is {
			all = append(all, Problem{File: d.File, Line: 1, Field: want.field, Message: "missing"})
		}
	}
	return append(all, d.wholeSigning()...)
}
