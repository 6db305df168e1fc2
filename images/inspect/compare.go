package inspect

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"go.yaml.in/yaml/v4"

	"github.com/cosi-os/cosi/images/definition"
	"github.com/cosi-os/cosi/images/plan"
	"github.com/cosi-os/cosi/kernel/lock"
)

// Facts are what is known of an image, or of one to be made. Two of them can be compared.
type Facts struct {
	sections []string // of which all is known
	facts    []fact
}

// fact is one value, or those of a list.
type fact struct {
	section, name string
	list          bool
	values        []string
}

// Difference is one between two images or definitions. Where one of them has nothing, it is empty.
type Difference struct {
	Section string `json:"section"`
	Name    string `json:"name"`
	A       string `json:"a"`
	B       string `json:"b"`
}

func (f *Facts) begin(section string) { f.sections = append(f.sections, section) }

func (f *Facts) add(section, name, value string) {
	f.facts = append(f.facts, fact{section, name, false, []string{value}})
}

// DefinitionFacts are those of a definition, as an image says it, and of the packages that it takes.
func DefinitionFacts(text []byte, packages []lock.Package) (*Facts, error) {
	document := yaml.Node{}
	if err := yaml.Load(text, &document); err != nil {
		return nil, err
	}
	f := &Facts{}
	f.begin("definition")
	if len(document.Content) == 1 {
		f.flatten(document.Content[0], "")
	}
	f.begin("package")
	for _, p := range packages {
		f.add("package", p.Role+" "+withoutVersion(p), p.Name+" "+p.Version+" "+short(p.SHA256))
	}
	return f, nil
}

// withoutVersion is what stays of a package's name from one version to the next.
func withoutVersion(p lock.Package) string {
	upstream, _, _ := strings.Cut(p.Version, "-")
	name, rest, found := strings.Cut(p.Name, upstream)
	if !found {
		return p.Name
	}
	return name + "*" + rest
}

func short(hash string) string { return hash[:min(12, len(hash))] }

// flatten adds what a node says, each value under its path.
func (f *Facts) flatten(n *yaml.Node, path string) {
	switch {
	case n.Kind == yaml.ScalarNode:
		f.add("definition", path, n.Value)
	case n.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			f.flatten(n.Content[i+1], strings.TrimPrefix(path+"."+n.Content[i].Value, "."))
		}
	case n.Kind != yaml.SequenceNode:
	case slices.ContainsFunc(n.Content, func(item *yaml.Node) bool { return item.Kind != yaml.ScalarNode }):
		for i, item := range n.Content {
			f.flatten(item, path+"["+identity(item, i)+"]")
		}
	default:
		list := fact{section: "definition", name: path, list: true}
		for _, item := range n.Content {
			list.values = append(list.values, item.Value)
		}
		f.facts = append(f.facts, list)
	}
}

// identity is by what an item of a list is known: its name, a resource's type and id, or its place.
func identity(n *yaml.Node, place int) string {
	named := struct{ Name string }{}
	if n.Decode(&named) == nil && named.Name != "" {
		return named.Name
	}
	if name := strings.Trim(definition.ResourceName(n), "/"); name != "" {
		return name
	}
	return strconv.Itoa(place)
}

// Facts are those of the image.
func (i *Image) Facts() (*Facts, error) {
	m, err := i.Manifest()
	if err != nil {
		return nil, err
	}
	r, err := i.Report()
	if err != nil {
		return nil, err
	}
	f, err := DefinitionFacts([]byte(m.Definition), m.Packages)
	if err != nil {
		return nil, fmt.Errorf("%s: its definition: %w", i.path, err)
	}
	f.begin("image")
	f.add("image", "version", r.Version)
	f.add("image", "built", r.Built.UTC().Format("2006-01-02T15:04:05Z"))
	f.add("image", "go", r.Go)
	f.add("image", "kernel", r.Kernel)
	f.add("image", "unpinned", strconv.FormatBool(r.Unpinned))
	for _, s := range r.Signatures {
		f.add("image", "signature of "+s.Of, strings.TrimPrefix(s.String(), s.Of+": "))
	}
	if i.table != nil {
		f.begin("partition")
		for _, p := range r.Partitions {
			f.add("partition", p.Name, fmt.Sprintf("%d: %s", p.Number, plan.MB(p.Size)))
		}
		f.begin("disk")
		f.add("disk", "guid", i.table.DiskGUID.String())
	}
	if i.esp != nil {
		f.begin(string(ESP))
	}
	if i.boot != nil {
		f.begin(string(Boot))
	}
	f.begin(string(Early))
	f.begin(string(RootPlace))
	for _, file := range r.Files {
		f.add(string(file.Place), file.Path, strings.TrimLeft(fmt.Sprintf("%s %d bytes, %s", file.Mode, file.Size, short(file.SHA256)), " "))
	}
	f.begin("source")
	for name, hash := range m.Inputs.Files {
		f.add("source", name, short(hash))
	}
	return f, nil
}

// Compare returns what is different in a and b, of the sections that both know.
func Compare(a, b *Facts) []Difference {
	all := []Difference{}
	for _, section := range a.sections {
		if !slices.Contains(b.sections, section) {
			continue
		}
		ofA, ofB := a.of(section), b.of(section)
		var names []string
		for name := range ofA {
			names = append(names, name)
		}
		for name := range ofB {
			if _, both := ofA[name]; !both {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		for _, name := range names {
			all = append(all, differ(section, name, ofA[name], ofB[name])...)
		}
	}
	return all
}

func (f *Facts) of(section string) map[string]fact {
	all := map[string]fact{}
	for _, one := range f.facts {
		if one.section == section {
			all[one.name] = one
		}
	}
	return all
}

// differ compares two values, or two lists item by item; of the same items, the order.
func differ(section, name string, a, b fact) (all []Difference) {
	if slices.Equal(a.values, b.values) {
		return nil
	}
	if !a.list && !b.list {
		return []Difference{{section, name, strings.Join(a.values, ""), strings.Join(b.values, "")}}
	}
	for _, value := range a.values {
		if !slices.Contains(b.values, value) {
			all = append(all, Difference{section, name, value, ""})
		}
	}
	for _, value := range b.values {
		if !slices.Contains(a.values, value) {
			all = append(all, Difference{section, name, "", value})
		}
	}
	if len(all) == 0 {
		return []Difference{{section, name + ", in another order", strings.Join(a.values, " "), strings.Join(b.values, " ")}}
	}
	return all
}

// Table is differences for people.
func Table(a, b string, all []Difference) string {
	if len(all) == 0 {
		return ""
	}
	out := &strings.Builder{}
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintf(table, "SECTION\tNAME\t%s\t%s\n", a, b)
	for _, d := range all {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", d.Section, d.Name, orNothing(d.A), orNothing(d.B))
	}
	table.Flush() // to memory
	return trimmed(out.String())
}

func orNothing(value string) string {
	if value == "" {
		return "-"
	}
	return value
}
