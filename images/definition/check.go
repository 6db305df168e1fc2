package definition

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/cosi-os/cosi/api/layout/ext4"
	"github.com/cosi-os/cosi/initramfs"
)

// checker fills structures from YAML nodes and collects all mistakes, each with its line. The decoder of the YAML library stops short of
// that: it knows no field paths.
type checker struct {
	file     string
	lines    map[string]int // field path → line
	problems Problems
}

// problem notes a mistake, unless the field is known to be wrong already.
func (c *checker) problem(line int, field, format string, args ...any) {
	if slices.ContainsFunc(c.problems, func(p Problem) bool { return p.Field == field }) {
		return
	}
	line = max(line, 1)
	c.problems = append(c.problems, Problem{c.file, line, field, fmt.Sprintf(format, args...)})
}

var (
	nodeType = reflect.TypeFor[yaml.Node]()
	timeType = reflect.TypeFor[time.Time]()
)

// fill sets what target points to from node.
func (c *checker) fill(node *yaml.Node, field string, target any) {
	c.value(node, field, reflect.ValueOf(target).Elem())
}

func (c *checker) value(node *yaml.Node, field string, v reflect.Value) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	c.lines[field] = node.Line
	switch {
	case v.Type() == nodeType:
		if alias := aliasIn(node); alias != nil {
			c.problem(alias.Line, field, "*%s stands for what is written elsewhere: write it out, a resource is kept as it is", alias.Value)
			return
		}
		v.Set(reflect.ValueOf(*node))
	case v.Type() == timeType || v.Kind() == reflect.String || v.Kind() == reflect.Bool:
		c.scalar(node, field, v)
	case v.Kind() == reflect.Slice:
		if node.Kind != yaml.SequenceNode {
			c.problem(node.Line, field, "want a list")
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(node.Content), len(node.Content)))
		for i, item := range node.Content {
			c.value(item, fmt.Sprintf("%s[%d]", field, i), v.Index(i))
		}
	case v.Kind() == reflect.Struct:
		c.structure(node, field, v)
	}
}

// aliasIn returns an alias in a node.
func aliasIn(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n
	}
	for _, child := range n.Content {
		if found := aliasIn(child); found != nil {
			return found
		}
	}
	return nil
}

func (c *checker) scalar(node *yaml.Node, field string, v reflect.Value) {
	want := map[bool]string{true: "want true or false", false: "want text"}[v.Kind() == reflect.Bool]
	if v.Type() == timeType {
		want = "want a time, as in 2026-01-31T00:00:00Z"
	}
	if node.Kind != yaml.ScalarNode || node.Tag == "!!null" {
		c.problem(node.Line, field, "%s", want)
		return
	}
	switch {
	case v.Type() == timeType:
		t, err := time.Parse(time.RFC3339, node.Value)
		if err != nil {
			c.problem(node.Line, field, "%q: %s", node.Value, want)
			return
		}
		v.Set(reflect.ValueOf(t.UTC()))
	case v.Kind() == reflect.Bool:
		if node.Tag != "!!bool" {
			c.problem(node.Line, field, "%q: %s", node.Value, want)
			return
		}
		v.SetBool(node.Value == "true")
	default:
		v.SetString(node.Value)
	}
}

func (c *checker) structure(node *yaml.Node, field string, v reflect.Value) {
	if node.Kind != yaml.MappingNode {
		c.problem(node.Line, field, "want fields (name: value)")
		return
	}
	fields := map[string]int{}
	var known []string
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("yaml"); name != "-" {
			fields[name] = i
			known = append(known, name)
		}
	}
	met := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		path := key.Value
		if field != "" {
			path = field + "." + path
		}
		n, ok := fields[key.Value]
		if !ok {
			c.problem(key.Line, path, "%s", among(key.Value, "a field", known))
			continue
		}
		if line, twice := met[key.Value]; twice {
			c.problem(key.Line, path, "stands in line %d already", line)
			continue
		}
		met[key.Value] = key.Line
		c.value(value, path, v.Field(n))
	}
}

var (
	namePattern    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)
	modulePattern  = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	versionPattern = regexp.MustCompile(`^[0-9]+(\.[0-9]+)*$`)
	seriesPattern  = regexp.MustCompile(`^([0-9]+\.[0-9]+|backports)$`)
)

// leastState is the size of the file system that a node makes, in MiB, before it grows.
const leastState = ext4.Size >> 20

// meaning finds values that have the right type and make no sense.
func (c *checker) meaning(d *Definition) {
	at := func(field, format string, args ...any) { c.problem(c.lines[field], field, format, args...) }
	if d.Name != "" && !namePattern.MatchString(d.Name) {
		at("name", "%q: want lower-case letters, digits and hyphens, at most 31", d.Name)
	}
	if d.Arch != "" && !slices.Contains(Architectures, d.Arch) {
		at("arch", "%s", among(d.Arch, "an architecture", Architectures))
	}
	if d.Platform != "" && !slices.Contains(Platforms, d.Platform) {
		at("platform", "%s", among(d.Platform, "a platform", Platforms))
	}
	if d.Kernel.Flavour != "" && !slices.Contains(Flavours, d.Kernel.Flavour) {
		at("kernel.flavour", "%s", among(d.Kernel.Flavour, "a flavour", Flavours))
	}
	if d.Kernel.Series != "" && !seriesPattern.MatchString(d.Kernel.Series) {
		at("kernel.series", "%q is not a series of kernels (try 6.1 or backports)", d.Kernel.Series)
	}
	if d.Initramfs.Compression != "" && !slices.Contains(initramfs.Compressions, d.Initramfs.Compression) {
		at("initramfs.compression", "%s", among(string(d.Initramfs.Compression), "a compression", initramfs.Compressions))
	}
	if d.State.Size != "" {
		if n, ok := d.State.Size.MiB(); !ok {
			at("state.size", "%q is not a size (try 10GiB)", d.State.Size)
		} else if n < leastState {
			at("state.size", "%s is too small: a state takes %dMiB at least", d.State.Size, leastState)
		}
	}
	if d.State.Seal != "" && !slices.Contains(Seals, d.State.Seal) {
		at("state.seal", "%s", among(string(d.State.Seal), "a way to seal", Seals))
	}
	if d.Upgrade.Floor != "" && !versionPattern.MatchString(d.Upgrade.Floor) {
		at("upgrade.floor", "%q is not a version (try 1.2.0)", d.Upgrade.Floor)
	}
	for i, output := range d.Outputs {
		if !slices.Contains(Outputs, output) {
			at(fmt.Sprintf("outputs[%d]", i), "%s", among(string(output), "an output", Outputs))
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
	if line, is := c.lines["without"]; is && d.Extends == "" {
		c.problem(line, "without", "there is nothing to take away: this definition extends none")
	}
}

func notEmpty(s string) bool { return s != "" }

func (c *checker) each(field string, values []string, ok func(string) bool, message string) {
	for i, value := range values {
		path := fmt.Sprintf("%s[%d]", field, i)
		switch {
		case !ok(value):
			c.problem(c.lines[path], path, message, value)
		case slices.Contains(values[:i], value):
			c.problem(c.lines[path], path, "%q is listed before", value)
		}
	}
}

// whole finds what a definition must say when nothing more is to come, and what it says twice in different places.
func (d *Definition) whole() Problems {
	var all Problems
	for _, plugin := range d.SeparatePlugins {
		if slices.Contains(d.Plugins, plugin) {
			at, other := d.Origin("separate_plugins", plugin), d.Origin("plugins", plugin)
			all = append(all, Problem{at.File, at.Line, "separate_plugins", fmt.Sprintf("%q is in plugins, too, by %s", plugin, other)})
		}
	}
	const unreadable = "%q is for VMware, whose user data a node for arm64 cannot read"
	for _, output := range []Output{VMDK, OVA} {
		if d.Arch == "arm64" && slices.Contains(d.Outputs, output) {
			at := d.Origin("outputs", string(output))
			all = append(all, Problem{at.File, at.Line, "outputs", fmt.Sprintf(unreadable, output)})
		}
	}
	if d.Arch == "arm64" && d.Platform == "vmware" {
		at := d.Origin("platform", "")
		all = append(all, Problem{at.File, at.Line, "platform", fmt.Sprintf(unreadable, d.Platform)})
	}
	for _, want := range []struct {
		field string
		is    bool
	}{
		{"name", d.Name != ""}, {"arch", d.Arch != ""}, {"kernel.flavour", d.Kernel.Flavour != ""}, {"initramfs.compression", d.Initramfs.Compression != ""},
		{"plugins", len(d.Plugins) > 0}, {"outputs", len(d.Outputs) > 0}, {"epoch", !d.Epoch.IsZero()},
	} {
		if !want.is {
			all = append(all, Problem{d.File, 1, want.field, "missing"})
		}
	}
	return append(all, d.wholeSigning()...)
}
