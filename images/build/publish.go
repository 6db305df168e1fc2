package build

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/cosi-os/cosi/images/manifest"
	"github.com/cosi-os/cosi/images/plan"
)

// describe is the manifest of an image, without its outputs.
func describe(o Options, p *plan.Plan, in *Inputs, parts *parts) (*manifest.Manifest, error) {
	name := namesOf(o, p.Definition).of
	definition, err := p.Definition.YAML(name)
	if err != nil {
		return nil, err
	}
	m := &manifest.Manifest{
		Image: p.Name, Unpinned: parts.unpinned(), Source: name(p.Definition.File), Definition: string(definition),
		Inputs: &in.Inputs, Kernel: parts.kernel.Release, CommandLine: p.CommandLine,
	}
	for _, fetched := range parts.packages {
		m.Packages = append(m.Packages, fetched.Package)
	}
	return m, nil
}

// publish writes the manifest, and the checksums of it and the outputs, and moves all of them from work into the output directory.
func publish(dir, work string, m *manifest.Manifest, outputs []manifest.File) error {
	m.Outputs = outputs
	data, err := m.JSON()
	if err != nil {
		return err
	}
	beside, sums := m.Image+".manifest.json", m.Image+".sha256"
	if err := os.WriteFile(filepath.Join(work, beside), data, 0o644); err != nil {
		return err
	}
	all := append(slices.Clone(outputs), manifest.File{Name: beside, SHA256: sum(data)})
	if err := os.WriteFile(filepath.Join(work, sums), checksums(all), 0o644); err != nil {
		return err
	}
	for _, file := range append(all, manifest.File{Name: sums}) {
		if err := os.Rename(filepath.Join(work, file.Name), filepath.Join(dir, file.Name)); err != nil {
			return err
		}
	}
	return nil
}

// checksums are for sha256sum -c: whoever has a file without the builder checks it with that.
func checksums(files []manifest.File) []byte {
	var out []byte
	for _, f := range files {
		out = fmt.Appendf(out, "%s  %s\n", f.SHA256, f.Name)
	}
	return out
}

// stamp says of what the outputs in a directory were made.
type stamp struct {
	Inputs  string           `json:"inputs"`
	Outputs []manifest.File  `json:"outputs"`
	Times   map[string]int64 `json:"times"` // when each output was changed last, in nanoseconds
}

func writeStamp(file string, in *Inputs, dir string, outputs []manifest.File) error {
	s := stamp{Inputs: in.digest(), Outputs: outputs, Times: map[string]int64{}}
	for _, output := range outputs {
		info, err := os.Stat(filepath.Join(dir, output.Name))
		if err != nil {
			return err
		}
		s.Times[output.Name] = info.ModTime().UnixNano()
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}

// fresh reports whether the outputs in dir were made of the inputs, and by nobody touched since. Their bytes are not read again: a disk
// that was booted from has another time.
func fresh(file string, in *Inputs, dir string) ([]manifest.File, bool) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, false
	}
	s := stamp{}
	if json.Unmarshal(data, &s) != nil || s.Inputs != in.digest() {
		return nil, false
	}
	for _, output := range s.Outputs {
		info, err := os.Stat(filepath.Join(dir, output.Name))
		if err != nil || info.Size() != output.Size || info.ModTime().UnixNano() != s.Times[output.Name] {
			return nil, false
		}
	}
	return s.Outputs, true
}
