package build

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/cosi-os/cosi/images/plan"
	"github.com/cosi-os/cosi/kernel/lock"
)

// Manifest names everything that an image is made of and everything that was made, by SHA-256. It holds no time of day and no path of
// the build machine: the same inputs give the same manifest.
type Manifest struct {
	Image    string         `json:"image"`
	Unpinned bool           `json:"unpinned"`
	Inputs   *Inputs        `json:"inputs"`
	Packages []lock.Package `json:"packages"`
	Kernel   string         `json:"kernel"`
	// CommandLine is what the kernel needs to be told where no unified kernel image does: qemu -kernel.
	CommandLine string `json:"command_line"`
	Outputs     []File `json:"outputs"`
}

// ReadManifest reads what a build wrote.
func ReadManifest(file string) (*Manifest, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	m := &Manifest{}
	if err := json.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if m.Image == "" || m.Inputs == nil {
		return nil, fmt.Errorf("%s: not the manifest of an image", file)
	}
	return m, nil
}

// Verify hashes the outputs beside the manifest in dir. It fails if one is missing or is not what was built, naming all of these.
func (m *Manifest) Verify(dir string) error {
	var problems []error
	for _, output := range m.Outputs {
		got, err := sumFile(filepath.Join(dir, output.Name))
		if err == nil && got != output.SHA256 {
			err = fmt.Errorf("%s: SHA-256 %s; want %s", output.Name, got, output.SHA256)
		}
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// publish writes the manifest, and the checksums of it and the outputs, and moves all of them from work into the output directory.
func publish(dir, work string, p *plan.Plan, in *Inputs, parts *parts, outputs []File) error {
	m := Manifest{Image: p.Name, Unpinned: parts.unpinned(), Inputs: in, Kernel: parts.kernel.Release, CommandLine: p.CommandLine, Outputs: outputs}
	for _, fetched := range parts.packages {
		m.Packages = append(m.Packages, fetched.Package)
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	manifest, sums := p.Name+".manifest.json", p.Name+".sha256"
	if err := os.WriteFile(filepath.Join(work, manifest), data, 0o644); err != nil {
		return err
	}
	all := append(slices.Clone(outputs), File{Name: manifest, SHA256: sum(data)})
	if err := os.WriteFile(filepath.Join(work, sums), checksums(all), 0o644); err != nil {
		return err
	}
	for _, file := range append(all, File{Name: sums}) {
		if err := os.Rename(filepath.Join(work, file.Name), filepath.Join(dir, file.Name)); err != nil {
			return err
		}
	}
	return nil
}

// checksums are for sha256sum -c: whoever has a file without the builder checks it with that.
func checksums(files []File) []byte {
	var out []byte
	for _, f := range files {
		out = fmt.Appendf(out, "%s  %s\n", f.SHA256, f.Name)
	}
	return out
}

// stamp says of what the outputs in a directory were made.
type stamp struct {
	Inputs  string           `json:"inputs"`
	Outputs []File           `json:"outputs"`
	Times   map[string]int64 `json:"times"` // when each output was changed last, in nanoseconds
}

func writeStamp(file string, in *Inputs, dir string, outputs []File) error {
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
func fresh(file string, in *Inputs, dir string) ([]File, bool) {
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
