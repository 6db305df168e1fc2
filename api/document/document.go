// Package document reads and writes resource documents: YAML, JSON and TOML of {metadata, spec}.
//
// The same file works as user data, for cosictl apply, and in an image definition; this package is what they share. Problems carry
// the line of the whole input and the path of the field. A broken document does not keep the others from being read.
package document

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/kinds"
)

// Document is one resource as somebody wrote it, its kind not looked at yet.
type Document struct {
	// Source is where it comes from, for people: a file name, "fw_cfg".
	Source string
	// Index counts the documents of the source from 1, broken ones included, empty ones not.
	Index int
	// Line is where it begins.
	Line     int
	Metadata Metadata

	root *yaml.Node // the mapping {metadata, spec}
	spec *yaml.Node // nil without one
}

// Metadata is what a writer says about a resource. What a node adds (version, owner, phase, times, finalizers) may stand in a
// document, so that what was read can be applied again, and does not count.
type Metadata struct {
	// Namespace is empty or the kind's.
	Namespace string
	// Type is any name of the kind.
	Type        string
	ID          string
	Labels      map[string]string
	Annotations map[string]string
}

// Problem is one thing wrong with one document.
type Problem struct {
	Source string
	// Document counts from 1; 0 when no document could be told apart.
	Document int
	// Line of the whole input, from 1; 0 when unknown.
	Line int
	// Field is a path: "spec.flags[1]".
	Field   string
	Message string
	// Resource is "mountpoints/data" as far as it could be read.
	Resource string
}

// String is "images/base.yaml:14: spec.flags[1]: what is wrong".
func (p Problem) String() string {
	place := p.Source
	if p.Line > 0 {
		place = fmt.Sprintf("%s:%d", place, p.Line)
	}
	return strings.Join(slices.DeleteFunc([]string{place, p.Field, p.Message}, func(s string) bool { return s == "" }), ": ")
}

func (d *Document) resource() string {
	return strings.Trim(d.Metadata.Type+"/"+d.Metadata.ID, "/")
}

func (d *Document) problem(p kinds.Problem) Problem {
	if p.Line == 0 {
		p.Line = d.Line
	}
	return Problem{Source: d.Source, Document: d.Index, Line: p.Line, Field: p.Field, Message: p.Message, Resource: d.resource()}
}

// Resolve returns the resource that d describes: type and namespace from the kind, content in both forms. It has no version.
func (d *Document) Resolve(set *kinds.Set) (*resourcepb.Resource, []Problem) {
	k, err := set.Lookup(d.Metadata.Type)
	if err != nil {
		return nil, []Problem{d.problem(kinds.Problem{Line: d.FieldLine("metadata.type"), Field: "metadata.type", Message: err.Error()})}
	}
	d.Metadata.Type = k.Type()
	var problems []Problem
	if ns := d.Metadata.Namespace; ns != "" && ns != k.Namespace() {
		message := fmt.Sprintf("%s live in the namespace %q, not %q", k.ShortName(), k.Namespace(), ns)
		problems = append(problems, d.problem(kinds.Problem{Line: d.FieldLine("metadata.namespace"), Field: "metadata.namespace", Message: message}))
	}
	spec, wrong := k.DecodeNode(d.spec)
	for _, p := range wrong {
		problems = append(problems, d.problem(p))
	}
	if len(problems) > 0 {
		return nil, problems
	}
	text, err := k.Encode(spec)
	if err != nil {
		return nil, []Problem{d.problem(kinds.Problem{Field: "spec", Message: err.Error()})}
	}
	return &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{
			Namespace: k.Namespace(), Type: k.Type(), Id: d.Metadata.ID, Labels: d.Metadata.Labels, Annotations: d.Metadata.Annotations,
		},
		Spec: &resourcepb.Spec{ProtoSpec: spec, YamlSpec: text},
	}, nil
}
