package build

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/api/kinds/descriptors"
	"github.com/cosi-os/cosi/images/plan"
)

// declarations reads the plugin.json of each plugin and fills in what only the image knows: how it is started, as whom, and the
// definitions of its kinds.
func declarations(tree string, p *plan.Plan) ([]*declaration.Declaration, error) {
	set := builtin.Set()
	var all []*declaration.Declaration
	var problems []error
	for _, plugin := range p.Plugins {
		file := filepath.Join("plugins", plugin.Name, "plugin.json")
		d, err := declare(filepath.Join(tree, file), plugin, set)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", file, err))
			continue
		}
		all = append(all, d)
	}
	if err := declaration.CheckClaims(all, set.Desired); err != nil {
		problems = append(problems, err)
	}
	return all, errors.Join(problems...)
}

func declare(file string, plugin plan.Plugin, set *kinds.Set) (*declaration.Declaration, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	d, err := declaration.Parse(data)
	if err != nil {
		return nil, err
	}
	if d.Name != plugin.Name {
		return nil, fmt.Errorf("name: %q; want the folder's, %q", d.Name, plugin.Name)
	}
	d.Argv = plugin.Argv
	d.UID, d.GID = plugin.ID, plugin.ID
	if d.Definitions == nil {
		d.Definitions, err = definitions(d, set)
	}
	return d, err
}

// definitions is the descriptor set of all kinds that d reads and writes, imports first.
func definitions(d *declaration.Declaration, set *kinds.Set) ([]byte, error) {
	types := slices.Clone(d.Outputs)
	for _, input := range d.Inputs {
		types = append(types, input.Type)
	}
	slices.Sort(types)
	all := newFileSet()
	for _, typ := range slices.Compact(types) {
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
