package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	"github.com/cosi-os/cosi/api/document"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/api/kinds/descriptors"
	"github.com/cosi-os/cosi/api/rules"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

// extensions are those of files that a directory is searched for.
var extensions = []string{".yaml", ".yml", ".json", ".toml"}

// item is a resource that was read from a file.
type item struct {
	document *document.Document
	kind     *kinds.Kind
	resource *resourcepb.Resource
	defines  *kinds.Kind // if it is a definition
}

func (i *item) String() string { return i.kind.Singular() + "/" + i.resource.GetMetadata().GetId() }

// lookup finds a kind by one of its names.
type lookup func(ctx context.Context, name string) (*kinds.Kind, error)

// read parses and checks every document of files and directories ("-" is the standard input). Problems are printed and counted;
// with any there are no items.
func (a *app) read(ctx context.Context, paths []string, find lookup) ([]*item, error) {
	if len(paths) == 0 {
		return nil, commandline.Usagef("-f is missing: which file?")
	}
	files, err := expand(paths)
	if err != nil {
		return nil, err
	}
	var documents []*document.Document
	count := 0
	problem := func(all ...document.Problem) {
		for _, p := range all {
			fmt.Fprintln(a.err, p)
		}
		count += len(all)
	}
	for _, file := range files {
		data, err := a.readFile(file)
		if err != nil {
			return nil, err
		}
		parsed, problems := document.Parse(file, data)
		problem(problems...)
		documents = append(documents, parsed...)
	}
	r := &reader{rules: &rules.Checker{}, find: find}
	items, met := map[*document.Document]*item{}, map[string]*document.Document{}
	// Definitions first: the other documents may be of their kinds, wherever they stand.
	for _, definitions := range []bool{true, false} {
		for _, d := range documents {
			if k, err := builtin.Set().Lookup(d.Metadata.Type); (err == nil && k.Type() == definitionType) != definitions {
				continue
			}
			i, wrong := r.resolve(ctx, d)
			problem(wrong...)
			items[d] = i
			if i == nil {
				continue
			}
			if other := met[i.String()]; other != nil {
				problem(r.at(d, "metadata.id", fmt.Sprintf("%s is described by %s:%d already", i, other.Source, other.Line))...)
			}
			met[i.String()] = d
		}
	}
	switch {
	case count > 0:
		return nil, fmt.Errorf("%s", plural(count, "problem"))
	case len(documents) == 0:
		return nil, fmt.Errorf("%s: no resources", strings.Join(paths, ", "))
	}
	var all []*item
	for _, d := range documents {
		all = append(all, items[d])
	}
	return all, nil
}

func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// Where kinds are defined, and where what people want lives.
const (
	definitionType  = "ResourceDefinitions.meta.cosi.dev"
	namespaceConfig = "config"
)

// reader makes items of documents, and knows the kinds that they define.
type reader struct {
	rules   *rules.Checker
	find    lookup
	defined []*kinds.Kind
}

// kind prefers what the files define to what there is.
func (r *reader) kind(ctx context.Context, name string) (*kinds.Kind, error) {
	if set, err := kinds.NewSet(r.defined...); err == nil && len(r.defined) > 0 {
		if k, err := set.Lookup(name); err == nil {
			return k, nil
		}
	}
	return r.find(ctx, name)
}

// at is a problem with a field of d.
func (*reader) at(d *document.Document, field, message string) []document.Problem {
	return []document.Problem{{Source: d.Source, Document: d.Index, Line: d.FieldLine(field), Field: field, Message: message}}
}

func (r *reader) resolve(ctx context.Context, d *document.Document) (*item, []document.Problem) {
	at := func(field, message string) []document.Problem { return r.at(d, field, message) }
	k, err := r.kind(ctx, d.Metadata.Type)
	if err != nil {
		return nil, at("metadata.type", err.Error())
	}
	set, err := kinds.NewSet(k)
	if err != nil {
		return nil, at("metadata.type", err.Error())
	}
	resource, problems := d.Resolve(set)
	if len(problems) > 0 {
		return nil, problems
	}
	broken, err := r.rules.Check(k, resource.GetSpec().GetProtoSpec())
	if err != nil {
		return nil, at("spec", err.Error())
	}
	for _, b := range broken {
		problems = append(problems, at(b.Field, b.Message)...)
	}
	i := &item{document: d, kind: k, resource: resource}
	if k.Type() == definitionType && len(problems) == 0 {
		if i.defines, err = defines(resource); err != nil {
			return nil, at("spec.descriptors", err.Error())
		}
		r.defined = append(r.defined, i.defines)
	}
	return i, problems
}

// defines returns the kind of a definition.
func defines(r *resourcepb.Resource) (*kinds.Kind, error) {
	d := &metapb.ResourceDefinitionSpec{}
	if err := proto.Unmarshal(r.GetSpec().GetProtoSpec(), d); err != nil {
		return nil, err
	}
	return descriptors.Kind(d)
}

func (a *app) readFile(file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(a.in)
	}
	return os.ReadFile(file)
}

// expand replaces directories by the documents in them, in the order of their names, not those further below.
func expand(paths []string) ([]string, error) {
	var files []string
	for _, path := range paths {
		info, err := os.Stat(path)
		if path == "-" || err == nil && !info.IsDir() {
			files = append(files, path)
			continue
		}
		if err != nil {
			return nil, err
		}
		entries, err := os.ReadDir(path)
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			if !entry.IsDir() && slices.Contains(extensions, strings.ToLower(filepath.Ext(entry.Name()))) {
				files = append(files, filepath.Join(path, entry.Name()))
			}
		}
	}
	return files, nil
}
