package definition

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cosi-os/cosi/images/strict"
)

// Load reads the definition in file, and what it extends, merged: nothing is extended any more, and nothing taken away. What is not beside the definition
// that extends it, and named by a name alone, is looked for in the directory images, if that is not empty. The error is a Problems if the definition is at
// fault.
func Load(file, images string) (*Definition, error) {
	return load(file, images, nil)
}

// load reads file, which was named by the definitions in chain, the first by the user.
func load(file, images string, chain []string) (*Definition, error) {
	if slices.ContainsFunc(chain, func(before string) bool { return same(before, file) }) {
		return nil, fmt.Errorf("%s extends itself, by way of %s", file, strings.Join(chain, " and "))
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	d, lines, problems := parse(file, data)
	if d != nil {
		problems = append(problems, d.readURLCA(file, lines)...)
		problems = append(problems, d.readSigning(file, lines)...)
		problems = append(problems, d.findContents(file, lines)...)
		for i, path := range d.Extensions {
			d.Extensions[i] = beside(file, path)
		}
	}
	if len(problems) > 0 {
		slices.SortStableFunc(problems, func(a, b Problem) int { return a.Line - b.Line })
		return nil, problems
	}
	if d.Extends != "" {
		base, err := d.loadBase(file, images, append(chain, file))
		if err != nil {
			var nested Problems
			if errors.As(err, &nested) {
				return nil, err // they name their file
			}
			return nil, Problems{{File: file, Line: lines["extends"], Field: "extends", Message: err.Error()}}
		}
		if d, problems = merge(base, d, file, lines); len(problems) > 0 {
			return nil, problems
		}
	}
	d.File, d.Files, d.Extends, d.Without = file, append(d.Files, file), "", Without{}
	if len(chain) == 0 {
		if problems := d.whole(); len(problems) > 0 {
			return nil, problems
		}
		if problems := d.openExtensions(); len(problems) > 0 {
			return nil, problems
		}
	}
	return d, nil
}

// loadBase reads what d, which is file alone, extends. A name that is file's own can only mean one of images.
func (d *Definition) loadBase(file, images string, chain []string) (*Definition, error) {
	near, far := beside(file, d.Extends), filepath.Join(images, d.Extends)
	switch alone := filepath.Base(d.Extends) == d.Extends; {
	case images == "" || !alone || exists(near) && !same(near, file):
		return load(near, images, chain)
	case exists(far):
		return load(far, images, chain)
	case exists(near):
		return load(near, images, chain) // which fails: it is file
	}
	there := slices.Concat(definitionsIn(filepath.Dir(file)), definitionsIn(images))
	there = slices.DeleteFunc(there, func(name string) bool { return name == filepath.Base(file) })
	return nil, fmt.Errorf("%q is neither beside it nor in %s%s", d.Extends, images, strict.Meant(d.Extends, there))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// same reports whether two paths are those of one file.
func same(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}

// definitionsIn are the names of the definitions in a directory.
func definitionsIn(dir string) (names []string) {
	files, _ := filepath.Glob(filepath.Join(dir, "*.yaml")) // what cannot be read has nothing that may have been meant
	for _, file := range files {
		names = append(names, filepath.Base(file))
	}
	return names
}

// parse reads one file on its own.
func parse(file string, data []byte) (*Definition, map[string]int, Problems) {
	d := &Definition{}
	read, ok := strict.Parse(file, data, d)
	if !ok {
		if strict.Empty(data) {
			read.Problems[0].Message = "is empty: a definition says at least its name and what it extends"
		}
		return nil, nil, read.Problems
	}
	c := checker{read}
	c.meaning(d)
	d.locate(file, c.Lines)
	return d, c.Lines, c.Problems
}

// Problem is one mistake in a definition, and Problems are all, as an error.
type (
	Problem  = strict.Problem
	Problems = strict.Problems
)
