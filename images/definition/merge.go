package definition

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/cosi-os/cosi/images/extension"
	"github.com/cosi-os/cosi/images/strict"
)

// Origin is where a definition says something.
type Origin struct {
	File string
	Line int
}

func (o Origin) String() string { return fmt.Sprintf("%s:%d", o.File, o.Line) }

// Origin says which line asks for value in the list field, or gives the field its value if that is no list. It is the first of several that
// ask for the same; the zero Origin if none does.
func (d *Definition) Origin(field, value string) Origin {
	if o, ok := d.origins[item(field, value)]; ok {
		return o
	}
	return d.origins[field]
}

func item(field, value string) string { return field + " " + value }

// list is a list of a definition, by its field.
type list struct {
	field  string
	values []string
}

// lists are all lists of d. Resources are known by their names.
func (d *Definition) lists() []list {
	outputs := make([]string, len(d.Outputs))
	for i, o := range d.Outputs {
		outputs[i] = string(o)
	}
	return []list{
		{"plugins", d.Plugins}, {"separate_plugins", d.SeparatePlugins}, {"outputs", outputs}, {"resources", names(d.Resources, ResourceName)},
		{"partitions.extra", names(d.Partitions.Extra, partitionName)}, {"extensions", names(d.Extensions, extensionName)},
		{"kernel.modules.boot", d.Kernel.Modules.Boot}, {"kernel.modules.ship", d.Kernel.Modules.Ship}, {"kernel.arguments", d.Kernel.Arguments},
	}
}

// locate notes where d, which is file alone, says what it says.
func (d *Definition) locate(file string, lines map[string]int) {
	d.origins = map[string]Origin{}
	for field, line := range lines {
		if !strings.Contains(field, "[") {
			d.origins[field] = Origin{file, line}
		}
	}
	for _, l := range d.lists() {
		for i, value := range l.values {
			d.origins[item(l.field, value)] = Origin{file, lines[fmt.Sprintf("%s[%d]", l.field, i)]}
		}
	}
}

// ResourceName is TYPE/ID of a resource, as its metadata has them.
func ResourceName(node *yaml.Node) string {
	metadata := struct {
		Metadata struct{ Namespace, Type, ID string }
	}{}
	_ = node.Decode(&metadata) // what is no resource is refused by those who know the kinds
	m := metadata.Metadata
	return strings.TrimPrefix(m.Namespace+"/"+m.Type+"/"+m.ID, "/")
}

func partitionName(p *Partition) string { return p.Name }

func extensionName(path *string) string { return extension.Name(*path) }

func names[T any](items []T, name func(*T) string) []string {
	all := make([]string, len(items))
	for i := range items {
		all[i] = name(&items[i])
	}
	return all
}

// merge says over what base says. lines are those of over.
func merge(base, over *Definition, file string, lines map[string]int) (*Definition, Problems) {
	d := *base
	d.origins = maps.Clone(base.origins)
	problems := d.take(&over.Without, base.File, file, lines)
	said := func(field string) bool { _, ok := lines[field]; return ok }
	set(said("name"), &d.Name, over.Name)
	set(said("arch"), &d.Arch, over.Arch)
	set(said("platform"), &d.Platform, over.Platform)
	set(said("epoch"), &d.Epoch, over.Epoch)
	set(said("kernel.flavour"), &d.Kernel.Flavour, over.Kernel.Flavour)
	set(said("kernel.series"), &d.Kernel.Series, over.Kernel.Series)
	set(said("partitions.esp"), &d.Partitions.ESP, over.Partitions.ESP)
	set(said("partitions.root"), &d.Partitions.Root, over.Partitions.Root)
	set(said("state.size"), &d.State.Size, over.State.Size)
	set(said("state.seal"), &d.State.Seal, over.State.Seal)
	set(said("initramfs.compression"), &d.Initramfs.Compression, over.Initramfs.Compression)
	set(said("user_data.disks_under_secure_boot"), &d.UserData.DisksUnderSecureBoot, over.UserData.DisksUnderSecureBoot)
	set(said("user_data.url_ca"), &d.UserData.URLCA, over.UserData.URLCA)
	if said("user_data.url_ca") {
		d.UserData.URLCertificates = over.UserData.URLCertificates
	}
	set(said("upgrade.floor"), &d.Upgrade.Floor, over.Upgrade.Floor)
	d.mergeSigning(over, said)
	d.Kernel.Modules.Boot = join(d.Kernel.Modules.Boot, over.Kernel.Modules.Boot)
	d.Kernel.Modules.Ship = join(d.Kernel.Modules.Ship, over.Kernel.Modules.Ship)
	d.Kernel.Arguments = join(d.Kernel.Arguments, over.Kernel.Arguments)
	d.Plugins = join(d.Plugins, over.Plugins)
	d.SeparatePlugins = join(d.SeparatePlugins, over.SeparatePlugins)
	d.Resources = replace(d.Resources, over.Resources, ResourceName)
	d.Extensions = replace(d.Extensions, over.Extensions, extensionName)
	d.Partitions.Extra = replace(d.Partitions.Extra, over.Partitions.Extra, partitionName)
	if said("outputs") {
		for _, output := range d.Outputs {
			delete(d.origins, item("outputs", string(output)))
		}
		d.Outputs = over.Outputs
	}
	for key, origin := range over.origins {
		// Of what both ask for, the one that asked first is as good; what has a name is the last one's.
		if _, there := d.origins[key]; !there || !strings.Contains(key, " ") || replaced(key) {
			d.origins[key] = origin
		}
	}
	return &d, problems
}

// replaced reports whether key is that of an item which takes the place of another of its name.
func replaced(key string) bool {
	field, _, _ := strings.Cut(key, " ")
	return slices.Contains([]string{"resources", "partitions.extra", "extensions"}, field)
}

func set[T any](said bool, field *T, value T) {
	if said {
		*field = value
	}
}

// join appends what is new.
func join(base, over []string) []string {
	all := slices.Clone(base)
	for _, s := range over {
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// replace appends what has a name; what is there already under that name is replaced where it stands.
func replace[T any](base, over []T, name func(*T) string) []T {
	all, there := slices.Clone(base), names(base, name)
	for i, item := range names(over, name) {
		if at := slices.Index(there, item); at >= 0 {
			all[at] = over[i]
		} else {
			all = append(all, over[i])
		}
	}
	return all
}

// only returns what has one of the names.
func only[T any](all []T, left []string, name func(*T) string) []T {
	return slices.DeleteFunc(slices.Clone(all), func(item T) bool { return !slices.Contains(left, name(&item)) })
}

// take takes away from d what w names. What is not there is a problem: it is misspelt, or was never there.
func (d *Definition) take(w *Without, base, file string, lines map[string]int) (problems Problems) {
	resources, extra := names(d.Resources, ResourceName), names(d.Partitions.Extra, partitionName)
	extensions := names(d.Extensions, extensionName)
	for _, t := range []struct {
		field string
		names []string
		from  []list
		into  []*[]string
	}{
		{"without.plugins", w.Plugins, []list{{"plugins", d.Plugins}}, []*[]string{&d.Plugins}},
		{"without.separate_plugins", w.SeparatePlugins, []list{{"separate_plugins", d.SeparatePlugins}}, []*[]string{&d.SeparatePlugins}},
		{"without.resources", w.Resources, []list{{"resources", resources}}, []*[]string{&resources}},
		{"without.partitions", w.Partitions, []list{{"partitions.extra", extra}}, []*[]string{&extra}},
		{"without.extensions", w.Extensions, []list{{"extensions", extensions}}, []*[]string{&extensions}},
		{"without.kernel.arguments", w.Kernel.Arguments, []list{{"kernel.arguments", d.Kernel.Arguments}}, []*[]string{&d.Kernel.Arguments}},
		{"without.kernel.modules", w.Kernel.Modules,
			[]list{{"kernel.modules.boot", d.Kernel.Modules.Boot}, {"kernel.modules.ship", d.Kernel.Modules.Ship}},
			[]*[]string{&d.Kernel.Modules.Boot, &d.Kernel.Modules.Ship}},
	} {
		var there []string
		for k, from := range t.from {
			there = append(there, from.values...)
			for _, name := range t.names {
				delete(d.origins, item(from.field, name))
			}
			*t.into[k] = slices.DeleteFunc(slices.Clone(from.values), func(s string) bool { return slices.Contains(t.names, s) })
		}
		for i, name := range t.names {
			if field := fmt.Sprintf("%s[%d]", t.field, i); !slices.Contains(there, name) {
				problems = append(problems, Problem{File: file, Line: lines[field], Field: field, Message: fmt.Sprintf("%q is not in %s", name, base) + strict.Meant(name, there)})
			}
		}
	}
	slices.SortStableFunc(problems, func(a, b Problem) int { return a.Line - b.Line })
	d.Resources = only(d.Resources, resources, ResourceName)
	d.Partitions.Extra = only(d.Partitions.Extra, extra, partitionName)
	d.Extensions = only(d.Extensions, extensions, extensionName)
	return problems
}
