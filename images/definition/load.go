package definition

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cosi-os/cosi/images/strict"
)

// Load reads the definition in file, and what it extends, merged: nothing is extended any more, and nothing taken away. The error is a Problems if the definition is at fault.
func Load(file string) (*Definition, error) {
	return load(file, nil)
}

// load reads file, which was named by the definitions in chain, the first by the user.
func load(file string, chain []string) (*Definition, error) {
	if slices.Contains(chain, file) {
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
		base, err := load(beside(file, d.Extends), append(chain, file))
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
