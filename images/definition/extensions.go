package definition

import (
	"fmt"
	"slices"

	"github.com/cosi-os/cosi/images/extension"
)

// openExtensions reads the extensions, and finds plugins that come twice.
func (d *Definition) openExtensions() (problems Problems) {
	d.Merged = nil
	brought := map[string]string{}
	for _, plugin := range slices.Concat(d.Plugins, d.SeparatePlugins) {
		brought[plugin] = "the definition names one, too"
	}
	for _, path := range d.Extensions {
		at := d.Origin("extensions", extension.Name(path))
		problem := func(format string, args ...any) {
			problems = append(problems, Problem{File: at.File, Line: at.Line, Field: "extensions", Message: fmt.Sprintf(format, args...)})
		}
		x, err := extension.Open(path, d.Arch)
		if err != nil {
			problem("%v", err)
			continue
		}
		for _, p := range x.Plugins {
			name := p.Declaration.Name
			if other, twice := brought[name]; twice {
				problem("%s: plugin %s: %s", path, name, other)
			}
			brought[name] = fmt.Sprintf("%s brings one, too", path)
		}
		d.Merged = append(d.Merged, x)
	}
	return problems
}
