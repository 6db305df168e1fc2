package build

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/api/kinds/descriptors"
	"github.com/cosi-os/cosi/images/definition"
	"github.com/cosi-os/cosi/images/plan"
	"github.com/cosi-os/cosi/images/strict"
)

// declarations reads the plugin.json of each plugin and fills in what only the image knows: how it is started, as whom, and the
// definitions of its kinds.
func declarations(tree string, p *plan.Plan) ([]*declaration.Declaration, error) {
	set := builtin.Set()
	var all []*declaration.Declaration
	var unknown definition.Problems
	var problems []error
	for _, plugin := range p.Plugins {
		file := filepath.Join("plugins", plugin.Name, "plugin.json")
		read := func() (*declaration.Declaration, []byte, error) { return readDeclaration(filepath.Join(tree, file)) }
		if x := plugin.Extension; x != nil {
			file = "extension's plugin " + plugin.Name
			read = func() (*declaration.Declaration, []byte, error) { d := *x.Declaration; return &d, x.Kinds, nil }
		}
		d, err := declare(read, plugin, set)
		if plugin.Extension == nil && errors.Is(err, fs.ErrNotExist) {
			unknown = append(unknown, noPlugin(tree, p.Definition, plugin.Name))
			continue
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", file, err))
			continue
		}
		all = append(all, d)
	}
	if err := declaration.CheckClaims(all, set.Desired); err != nil {
		problems = append(problems, err)
	}
	if len(unknown) > 0 {
		problems = append(problems, unknown)
	}
	return all, errors.Join(problems...)
}

// noPlugin says that the tree has no plugin of a name, where that is asked for, and which may have been meant.
func noPlugin(tree string, d *definition.Definition, name string) definition.Problem {
	field := "plugins"
	if slices.Contains(d.SeparatePlugins, name) {
		field = "separate_plugins"
	}
	var names []string
	files, _ := filepath.Glob(filepath.Join(tree, "plugins", "*", "plugin.json")) // at worst nothing was meant
	for _, file := range files {
		names = append(names, filepath.Base(filepath.Dir(file)))
	}
	at := d.Origin(field, name)
	message := fmt.Sprintf("%q: there is no plugins/%s/plugin.json", name, name) + strict.Meant(name, names)
	return definition.Problem{File: at.File, Line: at.Line, Field: field, Message: message}
}

func readDeclaration(file string) (*declaration.Declaration, []byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	d, err := declaration.Parse(data)
	return d, nil, err
}

// declare completes what read returns: a declaration, and the descriptors of the kinds that its plugin brings.
func declare(read func() (*declaration.Declaration, []byte, error), plugin plan.Plugin, set *kinds.Set) (*declaration.Declaration, error) {
	d, brought, err := read()
	if err != nil {
		return nil, err
	}
	if d.Name != plugin.Name {
		return nil, fmt.Errorf("name: %q; want the folder's, %q", d.Name, plugin.Name)
	}
	d.Argv = plugin.Argv
	d.UID, d.GID = plugin.ID, plugin.ID
	d.Definitions, err = definitions(d, set, brought)
	return d, err
}

// definitions is the descriptor set of all kinds that d reads and writes, imports first. What is not of this repository must be among those that
// its plugin brings.
func definitions(d *declaration.Declaration, set *kinds.Set, brought []byte) ([]byte, error) {
	own, err := descriptors.Kinds(brought)
	if err != nil {
		return nil, fmt.Errorf("its kinds: %w", err)
	}
	types := slices.Clone(d.Outputs)
	for _, input := range d.Inputs {
		types = append(types, input.Type)
	}
	slices.Sort(types)
	all := newFileSet()
	if err := all.add(brought); err != nil {
		return nil, err
	}
	for _, typ := range slices.Compact(types) {
		if slices.ContainsFunc(own, func(k *kinds.Kind) bool { return k.Type() == typ }) {
			continue
		}
		kind := set.ByType(typ)
		if kind == nil {
			_, err := set.Lookup(typ) // names the nearest
			return nil, fmt.Errorf("%s: not a type of this repository: %w", typ, err)
		}
		if err := all.kind(kind); err != nil {
			return nil, err
		}
	}
	return all.marshal()
}

// fileSet is a FileDescriptorSet that names no file twice.
type fileSet struct {
	set *descriptorpb.FileDescriptorSet
	met map[string]bool
}

func newFileSet() *fileSet {
	return &fileSet{&descriptorpb.FileDescriptorSet{}, map[string]bool{}}
}

func (d *fileSet) kind(k *kinds.Kind) error {
	data, err := descriptors.Of(k)
	if err != nil {
		return err
	}
	return d.add(data)
}

// add adds the files of a marshalled FileDescriptorSet.
func (d *fileSet) add(data []byte) error {
	one := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(data, one); err != nil {
		return err
	}
	for _, file := range one.File {
		if !d.met[file.GetName()] {
			d.met[file.GetName()] = true
			d.set.File = append(d.set.File, file)
		}
	}
	return nil
}

func (d *fileSet) marshal() ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(d.set)
}

func encodeDeclaration(d *declaration.Declaration) ([]byte, error) {
	data, err := json.MarshalIndent(d, "", "  ")
	return append(data, '\n'), err
}

// kindsOf are the descriptors of this repository's kinds and of those that plugins bring, with gzip.
func kindsOf(all []*declaration.Declaration) ([]byte, error) {
	merged := newFileSet()
	for _, k := range builtin.Set().All() {
		if err := merged.kind(k); err != nil {
			return nil, err
		}
	}
	for _, d := range all {
		if err := merged.add(d.Definitions); err != nil {
			return nil, fmt.Errorf("plugin %s: definitions: %w", d.Name, err)
		}
	}
	data, err := merged.marshal()
	if err != nil {
		return nil, err
	}
	var compressed bytes.Buffer
	w, err := gzip.NewWriterLevel(&compressed, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	err = w.Close()
	return compressed.Bytes(), err
}
