package plan

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/images/definition"
	"github.com/cosi-os/cosi/images/disk"
	"github.com/cosi-os/cosi/images/strict"
	"github.com/cosi-os/cosi/kernel"
	"github.com/cosi-os/cosi/kernel/lock"
)

// Explanation is what a build will make, and why, for people and, as JSON or YAML, for programs.
type Explanation struct {
	Name       string    `json:"name"`
	Definition string    `json:"definition"`
	Sections   []Section `json:"sections"`
}

// Section is a part of an Explanation: "modules".
type Section struct {
	Name  string `json:"name"`
	Items []Item `json:"items"`
}

// Item is one thing of an image.
type Item struct {
	Name string `json:"name"`
	// Note is what else there is to know: "uid 901".
	Note string `json:"note,omitempty"`
	// Size is in bytes; 0: it is not known before the build.
	Size int64 `json:"size,omitempty"`
	// Why are the lines of definitions that ask for it, and what else does.
	Why []string `json:"why"`
}

// Known is what an Explanation takes from beside the definition. What is not known yet is left out.
type Known struct {
	// Declarations are those of the plugins.
	Declarations []*declaration.Declaration
	// Kernel is nil when its packages were not fetched yet.
	Kernel *kernel.Tree
	// Mounting are the modules that mounting the root takes.
	Mounting []string
	// Programs are the sizes of those that were compiled before, of the same sources, by their paths in the root.
	Programs map[string]int64
}

// Wish is a module that somebody asks for.
type Wish struct {
	Module, Note, Why string

	field string            // that asks for it
	at    definition.Origin // the zero one if a plugin does
}

// Wishes are all modules that the definition and the plugins ask for, those to load at boot first.
func (p *Plan) Wishes(declarations []*declaration.Declaration) []Wish {
	var all []Wish
	d := p.Definition
	for _, name := range d.Kernel.Modules.Boot {
		all = append(all, p.wish("kernel.modules.boot", name, "at boot"))
	}
	for _, name := range d.Kernel.Modules.Ship {
		all = append(all, p.wish("kernel.modules.ship", name, ""))
	}
	for _, declared := range declarations {
		for _, name := range declared.Modules {
			all = append(all, Wish{Module: name, Why: "plugin " + declared.Name, field: "modules"})
		}
	}
	return all
}

func (p *Plan) wish(field, name, note string) Wish {
	at := p.Definition.Origin(field, name)
	return Wish{name, note, at.String(), field, at}
}

// Resolve returns the modules that are wished for, and all that they need. It fails with kernel.ErrUnknownModule, and definition.Problems that name each
// that the kernel lacks, and who wishes for it.
func Resolve(tree *kernel.Tree, wishes []Wish) ([]*kernel.Module, error) {
	names := make([]string, len(wishes))
	for i, w := range wishes {
		names[i] = w.Module
	}
	all, err := tree.Resolve(names...)
	if err == nil {
		return all, nil
	}
	unknown := caused{cause: kernel.ErrUnknownModule}
	for _, w := range wishes {
		_, err := tree.Resolve(w.Module)
		if err == nil {
			continue
		}
		if !errors.Is(err, kernel.ErrUnknownModule) {
			return nil, fmt.Errorf("%s: %s: %w", w.Why, w.field, err)
		}
		problem := definition.Problem{File: cmp.Or(w.at.File, w.Why), Line: w.at.Line, Field: w.field, Message: err.Error() + " in Linux " + tree.Release}
		problem.Message += strict.Meant(w.Module, tree.Names())
		unknown.Problems = append(unknown.Problems, problem)
	}
	return nil, unknown
}

func (p *Plan) origin(field, value string) string { return p.Definition.Origin(field, value).String() }

// Explain says what p makes and why. It fails if the kernel has not what is asked of it.
func (p *Plan) Explain(k Known) (*Explanation, error) {
	modules, err := p.explainModules(k)
	if err != nil {
		return nil, err
	}
	e := &Explanation{Name: p.Name, Definition: p.Definition.File}
	for _, s := range []Section{
		{"settings", p.explainSettings()},
		{"packages", p.explainPackages()},
		{"programs", p.explainPrograms(k)},
		{"plugins", p.explainPlugins(k)},
		{"extensions", p.explainExtensions()},
		{"files", p.explainFiles()},
		{"resources", p.explainResources()},
		{"modules", modules},
		{"arguments", p.explainArguments()},
		{"partitions", p.explainPartitions()},
		{"outputs", p.explainOutputs()},
	} {
		if len(s.Items) > 0 {
			e.Sections = append(e.Sections, s)
		}
	}
	return e, nil
}

func (p *Plan) explainSettings() []Item {
	d := p.Definition
	var items []Item
	for _, s := range []struct{ field, value string }{
		{"arch", d.Arch}, {"platform", d.Platform}, {"kernel.flavour", d.Kernel.Flavour}, {"kernel.series", d.Kernel.Series}, {"initramfs.compression", string(d.Initramfs.Compression)},
		{"user_data.disks_under_secure_boot", fmt.Sprint(d.UserData.DisksUnderSecureBoot)}, {"user_data.url_ca", d.UserData.URLCA},
		{"secure_boot.key", d.SecureBoot.Key}, {"secure_boot.certificate", d.SecureBoot.Certificate}, {"secure_boot.enroll", d.SecureBoot.Enroll},
		{"secure_boot.variables", d.SecureBoot.Variables}, {"pcr_policy.key", d.PCRPolicy.Key}, {"pcr_policy.public_key", d.PCRPolicy.PublicKey},
		{"upgrade.key", d.Upgrade.Key}, {"upgrade.public_key", d.Upgrade.PublicKey}, {"upgrade.floor", d.Upgrade.Floor}, {"epoch", d.Epoch.Format("2006-01-02T15:04:05Z07:00") + ", without git"},
	} {
		if at := d.Origin(s.field, ""); at.File != "" && s.value != "" {
			items = append(items, Item{Name: s.field, Note: s.value, Why: []string{at.String()}})
		}
	}
	return items
}

func (p *Plan) explainPackages() []Item {
	why := []string{p.origin("kernel.flavour", "")}
	if p.Definition.Kernel.Series != "" {
		why = append(why, p.origin("kernel.series", ""))
	}
	var items []Item
	add := func(all []lock.Package, why ...string) {
		for _, one := range all {
			note := fmt.Sprintf("%s, of Debian's %s, SHA-256 %s…", one.Version, one.Suite, one.SHA256[:12])
			items = append(items, Item{Name: one.Name, Note: note, Why: why})
		}
	}
	add(p.Kernel, slices.Compact(why)...)
	add(p.Stub, "what UEFI starts: the kernel, its arguments and the initramfs behind it")
	add(p.Loader, "what a BIOS starts")
	add(p.Network, "what firmware loads by TFTP, to load the rest by HTTP")
	return items
}

func (p *Plan) explainPrograms(k Known) []Item {
	var items []Item
	for _, program := range p.Programs {
		why := "every node runs it"
		switch name := strings.TrimPrefix(program.Path, Executables+"/"); {
		case program.Path == Multi:
			why = "the plugins that are not separate"
		case slices.Contains(p.Definition.SeparatePlugins, name):
			why = p.origin("separate_plugins", name)
		}
		items = append(items, Item{Name: "/" + program.Path, Note: "compiled from " + program.Package, Size: k.Programs[program.Path], Why: []string{why}})
	}
	return items
}

func (p *Plan) explainPlugins(k Known) []Item {
	var items []Item
	for _, plugin := range p.Plugins {
		field := "plugins"
		if slices.Contains(p.Definition.SeparatePlugins, plugin.Name) {
			field = "separate_plugins"
		}
		item := Item{Name: plugin.Name, Note: fmt.Sprintf("uid %d", plugin.ID), Why: []string{p.origin(field, plugin.Name)}}
		if plugin.Extension != nil {
			item.Why = nil
			for _, x := range p.Definition.Merged {
				for _, brought := range x.Plugins {
					if brought.Declaration.Name == plugin.Name {
						item.Why = append(item.Why, "extension "+x.Name)
					}
				}
			}
		}
		items = append(items, item)
	}
	return items
}

func (p *Plan) explainExtensions() []Item {
	var items []Item
	for _, x := range p.Definition.Merged {
		item := Item{Name: x.Name, Note: fmt.Sprintf("%d files, %d plugins, SHA-256 %s…", len(x.Entries), len(x.Plugins), x.Digest[:12]), Why: []string{p.origin("extensions", x.Name)}}
		for _, e := range x.Entries {
			if e.Content != nil {
				item.Size += e.Content.Size()
			}
		}
		items = append(items, item)
	}
	return items
}

// rootFiles are why there are files in every root.
var rootFiles = map[string]string{
	Image:     "the image's identity, for the node",
	OSRelease: "the image's identity, for everybody",
	Modules:   "what is loaded at boot",
	Resources: "the default resources",
	Manifest:  "what the image is made of",
	Kinds:     "the kinds that a node has from the start",
}

func (p *Plan) explainFiles() []Item {
	var items []Item
	for _, file := range p.Root {
		item := Item{Name: "/" + file, Why: []string{rootFiles[file]}}
		if file == URLCA {
			item.Note, item.Why = "from "+p.Definition.UserData.URLCA, []string{p.origin("user_data.url_ca", "")}
		}
		items = append(items, item)
	}
	return items
}

func (p *Plan) explainResources() []Item {
	var items []Item
	for i := range p.Definition.Resources {
		name := definition.ResourceName(&p.Definition.Resources[i])
		items = append(items, Item{Name: name, Why: []string{p.origin("resources", name)}})
	}
	return items
}

// explainModules lists what is asked for, and behind it what that needs. Without a kernel nobody knows what that is.
func (p *Plan) explainModules(k Known) ([]Item, error) {
	asked := map[string]*Item{}
	var order []*Item
	at := func(name string) *Item {
		name = strings.ReplaceAll(name, "-", "_")
		if asked[name] == nil {
			asked[name] = &Item{Name: name}
			order = append(order, asked[name])
		}
		return asked[name]
	}
	wishes := p.Wishes(k.Declarations)
	for _, name := range k.Mounting {
		wishes = append(wishes, Wish{Module: name, Note: "in the initramfs", Why: "mounting the root takes it", field: "modules"})
	}
	for _, w := range wishes {
		item := at(w.Module)
		item.Note, item.Why = cmp.Or(item.Note, w.Note), append(item.Why, w.Why)
	}
	if k.Kernel != nil {
		if err := needs(k.Kernel, wishes, at); err != nil {
			return nil, err
		}
	}
	items := make([]Item, len(order))
	for i, item := range order {
		items[i] = *item
	}
	return items, nil
}

// needs fills in what a kernel knows: sizes, what is built in, and what the named modules need.
func needs(tree *kernel.Tree, wishes []Wish, at func(string) *Item) error {
	all, err := Resolve(tree, wishes)
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, m := range all {
		there[m.Name] = true
	}
	for _, w := range wishes {
		if item := at(w.Module); !there[item.Name] && !strings.Contains(item.Note, "built") {
			item.Note = strings.TrimPrefix(item.Note+", built into the kernel", ", ")
		}
	}
	slices.Reverse(all) // what needs something comes before it
	for _, m := range all {
		at(m.Name).Size = int64(len(m.Data))
		for _, needed := range slices.Concat(m.Info.Depends, m.Info.Before) {
			if !there[needed] {
				continue // built in, or a wish that the kernel does not fulfil
			}
			if item, why := at(needed), m.Name+" needs it"; !slices.Contains(item.Why, why) {
				item.Why = append(item.Why, why)
			}
		}
	}
	return nil
}

func (p *Plan) explainPartitions() []Item {
	if !p.HasDisk() {
		return nil
	}
	sizes := p.Definition.Partitions
	item := func(name string, size int64, field, value string) Item {
		why := "every disk has it"
		if at := p.Definition.Origin(field, value); field != "" && at.File != "" {
			why = at.String()
		}
		return Item{Name: name, Size: size, Why: []string{why}}
	}
	root := cmp.Or(sizes.Root.Bytes(), disk.DefaultSize)
	items := []Item{
		item("bios-boot", 1<<20, "", ""), item("esp", cmp.Or(sizes.ESP.Bytes(), disk.DefaultSize), "partitions.esp", ""),
		item("root-a", root, "partitions.root", ""), item("root-b", root, "partitions.root", ""),
	}
	for _, extra := range sizes.Extra {
		one := item(extra.Name, extra.Size.Bytes(), "partitions.extra", extra.Name)
		if extra.Content != "" {
			one.Note = "from " + extra.Content
		}
		items = append(items, one)
	}
	state := item("state", p.Definition.State.Size.Bytes(), "state.size", "")
	state.Note = "made by the node, of what is left of its disk"
	return append(items, state)
}

func (p *Plan) explainOutputs() []Item {
	var items []Item
	for _, output := range p.Outputs {
		items = append(items, Item{Name: output.File, Why: []string{p.origin("outputs", string(output.Kind))}})
	}
	return append(items,
		Item{Name: p.Name + ".manifest.json", Why: []string{"what the image is made of, and the hashes of these files"}},
		Item{Name: p.Name + ".sha256", Why: []string{"for sha256sum --check"}},
	)
}

// String is the explanation for people: a table a section.
func (e *Explanation) String() string {
	out := &strings.Builder{}
	fmt.Fprintf(out, "%s, from %s\n", e.Name, e.Definition)
	for _, s := range e.Sections {
		fmt.Fprintf(out, "\n%s\n", s.Name)
		table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
		noted, sized := columns(s.Items)
		for _, item := range s.Items {
			row := "  " + item.Name
			if noted {
				row += "\t" + item.Note
			}
			if sized {
				row += "\t" + MB(item.Size)
			}
			fmt.Fprintf(table, "%s\t%s\n", row, strings.Join(item.Why, ", "))
		}
		table.Flush() // to memory
	}
	return out.String()
}

// columns says which columns have something in them.
func columns(items []Item) (noted, sized bool) {
	for _, item := range items {
		noted, sized = noted || item.Note != "", sized || item.Size != 0
	}
	return noted, sized
}

// MB is a size for people; empty if there is none.
func MB(size int64) string {
	switch {
	case size == 0:
		return ""
	case size%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", size>>30)
	case size%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", size>>20)
	case size < 1e3:
		return fmt.Sprintf("%d bytes", size)
	case size < 1e5:
		return fmt.Sprintf("%.1f kB", float64(size)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(size)/1e6)
}
