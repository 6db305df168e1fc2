package definition

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v4"
)

// Load reads the definition in file, and what it extends. The error is a Problems if the definition is at fault.
func Load(file string) (*Definition, error) {
	d, err := load(file, nil)
	if err != nil {
		return nil, err
	}
	d.File = file
	return d, nil
}

// load reads file, which was named by the definitions in chain, the first by the user.
func load(file string, chain []string) (*Definition, error) {
	if slices.Contains(chain, file) {
		return nil, fmt.Errorf("%s: extends itself, by way of %q", file, chain)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	d, lines, problems := parse(file, data)
	if d != nil {
		problems = append(problems, d.readURLCA(file, lines)...)
	}
	if len(problems) > 0 {
		slices.SortStableFunc(problems, func(a, b Problem) int { return a.Line - b.Line })
		return nil, problems
	}
	if d.Extends != "" {
		base, err := load(filepath.Join(filepath.Dir(file), d.Extends), append(chain, file))
		if err != nil {
			var nested Problems
			if errors.As(err, &nested) {
				return nil, err // they name their file
			}
			return nil, Problems{{file, lines["extends"], "extends", err.Error()}}
		}
		d = merge(base, d)
	}
	d.Files = append(d.Files, file)
	if len(chain) == 0 {
		if problems := d.missing(file); len(problems) > 0 {
			return nil, problems
		}
	}
	return d, nil
}

// parse reads one file on its own.
func parse(file string, data []byte) (*Definition, map[string]int, Problems) {
	document := yaml.Node{}
	if err := yaml.Load(data, &document); err != nil {
		line, message := broken(err)
		if errors.Is(yaml.NewDecoder(bytes.NewReader(data)).Decode(&document), io.EOF) {
			message = "is empty: a definition says at least its name and what it extends"
		}
		return nil, nil, Problems{{file, line, "", message}}
	}
	root := &document
	if root.Kind == yaml.DocumentNode && len(root.Content) == 1 {
		root = root.Content[0]
	}
	c := checker{file: file, lines: map[string]int{}}
	d := &Definition{}
	c.fill(root, "", d)
	c.meaning(d)
	return d, c.lines, c.problems
}

// broken says where and why the YAML itself cannot be read.
func broken(err error) (line int, message string) {
	var at *yaml.LoadError
	if errors.As(err, &at) && at.Mark.Line > 0 {
		return at.Mark.Line, at.Message
	}
	return 1, err.Error()
}

// merge says over what base says.
func merge(base, over *Definition) *Definition {
	d := *base
	d.Extends = ""
	set(&d.Name, over.Name)
	set(&d.Arch, over.Arch)
	set(&d.Kernel.Flavour, over.Kernel.Flavour)
	set(&d.Kernel.Series, over.Kernel.Series)
	set(&d.State.Size, over.State.Size)
	set(&d.Initramfs.Compression, over.Initramfs.Compression)
	set(&d.UserData.ESPUnderSecureBoot, over.UserData.ESPUnderSecureBoot)
	if over.UserData.URLCA != "" {
		d.UserData.URLCA, d.UserData.URLCertificates = over.UserData.URLCA, over.UserData.URLCertificates
	}
	if !over.Epoch.IsZero() {
		d.Epoch = over.Epoch
	}
	d.Kernel.Modules.Boot = join(base.Kernel.Modules.Boot, over.Kernel.Modules.Boot)
	d.Kernel.Modules.Ship = join(base.Kernel.Modules.Ship, over.Kernel.Modules.Ship)
	d.Kernel.Arguments = join(base.Kernel.Arguments, over.Kernel.Arguments)
	d.Plugins = join(base.Plugins, over.Plugins)
	d.SeparatePlugins = join(base.SeparatePlugins, over.SeparatePlugins)
	d.Resources = append(slices.Clone(base.Resources), over.Resources...)
	if len(over.Outputs) > 0 {
		d.Outputs = over.Outputs
	}
	return &d
}

func set[T comparable](field *T, value T) {
	var zero T
	if value != zero {
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
