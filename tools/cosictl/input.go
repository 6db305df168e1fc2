package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cosi-os/cosi/api/kinds"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/document"
)

// extensions are those of files that a directory is searched for.
var extensions = []string{".yaml", ".yml", ".json", ".toml"}

// item is a resource that was read from a file.
type item struct {
	document *document.Document
	kind     *kinds.Kind
	resource *resourcepb.Resource
}

func (i *item) String() string { return i.kind.Singular() + "/" + i.resource.GetMetadata().GetId() }

// lookup finds a kind by one of its names.
type lookup func(ctx context.Context, name string) (*kinds.Kind, error)

// read parses and checks every document of files and directories ("-" is the standard input). Problems are printed and counted;
// with any there are no items.
func (a *app) read(ctx context.Context, paths []string, find lookup) ([]*item, error) {
	if len(paths) == 0 {
		return nil, usagef("-f is missing: which file?")
	}
	files, err := expand(paths)
	if err != nil {
		return nil, err
	}
	rules := &rules{}
	var items []*item
	count := 0
	for _, file := range files {
		data, err := a.readFile(file)
		if err != nil {
			return nil, err
		}
		documents, problems := document.Parse(file, data)
		for _, d := range documents {
			i, wrong := resolve(ctx, d, find, rules)
			if len(wrong) == 0 {
				items = append(items, i)
			}
			problems = append(problems, wrong...)
		}
		for _, p := range problems {
			fmt.Fprintln(a.err, p)
		}
		count += len(problems)
	}
	switch {
	case count > 0:
		return nil, fmt.Errorf("%s", plural(count, "problem"))
	case len(items) == 0:
		return nil, fmt.Errorf("%s: no resources", strings.Join(paths, ", "))
	}
	return items, nil
}

func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

func resolve(ctx context.Context, d *document.Document, find lookup, rules *rules) (*item, []document.Problem) {
	at := func(field, message string) []document.Problem {
		return []document.Problem{{Source: d.Source, Document: d.Index, Line: d.FieldLine(field), Field: field, Message: message}}
	}
	k, err := find(ctx, d.Metadata.Type)
	if err != nil {
		return nil, at("metadata.type", err.Error())
	}
	set, err := kinds.NewSet(k)
	if err != nil {
		return nil, at("metadata.type", err.Error())
	}
	r, problems := d.Resolve(set)
	if len(problems) > 0 {
		return nil, problems
	}
	broken, err := rules.check(k, r.GetSpec().GetProtoSpec())
	if err != nil {
		return nil, at("spec", err.Error())
	}
	for _, b := range broken {
		problems = append(problems, at(b.field, b.message)...)
	}
	return &item{document: d, kind: k, resource: r}, problems
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
