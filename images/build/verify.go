package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/cosi-os/cosi/images/inspect"
	"github.com/cosi-os/cosi/images/manifest"
)

// Verification is what came of building an image again.
type Verification struct {
	File    string `json:"file"`
	Image   string `json:"image"`
	Version string `json:"version"`
	// Tree says of what it was built again.
	Tree string `json:"tree"`
	// Outputs are the hashes of the file, or of all that a manifest names, and of those built again.
	Outputs []Compared `json:"outputs"`
	// Signed says how many signatures the image has, or all that a manifest names, and Covered how many of them are over what was built again. They were
	// put there: no private key was used.
	Signed  int `json:"signed,omitempty"`
	Covered int `json:"covered,omitempty"`
	// Differences are those between the image and the one built again: a is the image.
	Differences []inspect.Difference `json:"differences,omitempty"`
}

// Compared is a file's hash, and what it should be.
type Compared struct {
	Name string `json:"name"`
	Is   string `json:"is"`
	Want string `json:"want"`
}

// Equal reports whether everything is as it should be.
func (v *Verification) Equal() bool {
	return len(v.Differences) == 0 && !slices.ContainsFunc(v.Outputs, func(c Compared) bool { return c.Is != c.Want })
}

// String is the verification for people.
func (v *Verification) String() string {
	out := &strings.Builder{}
	fmt.Fprintf(out, "%s is %s %s, built again from %s\n", v.File, v.Image, v.Version, v.Tree)
	for _, c := range v.Outputs {
		if c.Is == c.Want {
			fmt.Fprintf(out, "equal       %s  %s\n", c.Is, c.Name)
		} else {
			fmt.Fprintf(out, "NOT EQUAL   %s  %s, built again %s\n", c.Is, c.Name, c.Want)
		}
	}
	if v.Signed > 0 {
		fmt.Fprintf(out, "signatures  %d of %d are over what was built again, without a private key: they were taken from here\n", v.Covered, v.Signed)
	}
	if len(v.Differences) > 0 {
		fmt.Fprintf(out, "\n%s", inspect.Table("HERE", "BUILT AGAIN", v.Differences))
	}
	return out.String()
}

// ErrNoDefinition says that an image was built of a definition that lies in no source tree, and that nobody names.
var ErrNoDefinition = errors.New("its definition lies in no source tree: name the file, with --definition FILE")

// ErrOtherTree says that an image was built of sources that are not here.
var ErrOtherTree = errors.New("its sources are not here")

// Verify builds an image again, by the manifest in it, and compares. file is an image, or the manifest beside outputs: then all of these are
// compared. The sources are those of o.Tree if they are the ones that the manifest names, or else the commit that it names, from o.Tree's
// repository, built by that commit's builder; it fails with ErrOtherTree if neither can be. A definition that lies outside of the tree is o.Definition, with
// the files that it names where they lay then; without, it fails with ErrNoDefinition.
//
// No private key is needed. What is built again gets the signatures of the image, each where it is one: if all else is equal, so is the whole.
func Verify(ctx context.Context, o Options, file string) (*Verification, error) {
	m, image, err := manifestOf(file)
	if err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp("", "cosi-verify-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	v := &Verification{File: file, Image: m.Image, Version: m.Inputs.Version}
	o.SourceDateEpoch = strconv.FormatInt(m.Inputs.Epoch.Unix(), 10)
	o.Output = filepath.Join(work, "output")
	names, err := namesKeys(m)
	if err != nil {
		return nil, fmt.Errorf("%s: its definition: %w", file, err)
	}
	signatures, err := signaturesOf(file)
	if err != nil && names { // a damaged image that is not signed can be compared all the same
		return nil, err
	}
	if names {
		if o.Signatures, err = filepath.Abs(file); err != nil {
			return nil, err
		}
	}
	if v.Tree, err = rebuild(ctx, o, m, work); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	again, err := manifest.Read(filepath.Join(o.Output, m.Image+".manifest.json"))
	if err != nil {
		return nil, err
	}
	v.Signed, v.Covered = len(signatures), inBoth(signatures, again.Signatures)
	if image == "" {
		return v, v.outputs(file, m, again)
	}
	return v, v.image(image, o.Output, again)
}

// namesKeys reports whether the image's definition has anything signed: of such a one, builders know what to do with signatures.
func namesKeys(m *manifest.Manifest) (bool, error) {
	var d struct {
		SecureBoot map[string]string `yaml:"secure_boot"`
		PCRPolicy  map[string]string `yaml:"pcr_policy"`
		Upgrade    struct {
			Key string `yaml:"key"`
		} `yaml:"upgrade"`
	}
	err := yaml.Load([]byte(m.Definition), &d)
	return len(d.SecureBoot)+len(d.PCRPolicy) > 0 || d.Upgrade.Key != "", err
}

// manifestOf reads the manifest in an image, or a file that is one; image is empty then.
func manifestOf(file string) (m *manifest.Manifest, image string, err error) {
	if filepath.Ext(file) == ".json" {
		m, err = manifest.Read(file)
		return m, "", err
	}
	i, err := inspect.Open(file)
	if err != nil {
		return nil, "", err
	}
	defer i.Close()
	m, err = i.Manifest()
	return m, file, err
}

// outputs compares the files beside a manifest with what it says, and what it says with what was built.
func (v *Verification) outputs(file string, m, again *manifest.Manifest) error {
	for _, output := range m.Outputs {
		is, err := manifest.Sum(filepath.Join(filepath.Dir(file), output.Name))
		if err != nil {
			return err
		}
		want := ""
		for _, built := range again.Outputs {
			if built.Name == output.Name {
				want = built.SHA256
			}
		}
		v.Outputs = append(v.Outputs, Compared{output.Name, is, want})
		if is != output.SHA256 {
			v.Differences = append(v.Differences, inspect.Difference{Section: "manifest", Name: output.Name, A: output.SHA256, B: is})
		}
	}
	return nil
}

// suffixOf is that of the output of a format.
func suffixOf(f inspect.Format) string {
	if f == inspect.UKI {
		return ".efi"
	}
	return "." + string(f)
}

// image compares an image, byte for byte and part by part, with the output of its kind.
func (v *Verification) image(file, output string, again *manifest.Manifest) error {
	here, err := inspect.Open(file)
	if err != nil {
		return err
	}
	defer here.Close()
	name := again.Image + suffixOf(here.Format)
	built := slices.IndexFunc(again.Outputs, func(f manifest.File) bool { return f.Name == name })
	if built < 0 {
		return fmt.Errorf("%s: its definition makes no %s", file, name)
	}
	is, err := manifest.Sum(file)
	if err != nil {
		return err
	}
	v.Outputs = []Compared{{filepath.Base(file), is, again.Outputs[built].SHA256}}
	if v.Equal() {
		return nil
	}
	there, err := inspect.Open(filepath.Join(output, name))
	if err != nil {
		return err
	}
	defer there.Close()
	a, err := here.Facts()
	if err != nil {
		v.Differences = []inspect.Difference{{Section: "image", Name: "what is in it", A: err.Error(), B: "can be read"}}
		return nil
	}
	b, err := there.Facts()
	if err != nil {
		return err
	}
	v.Differences = inspect.Compare(a, b)
	return nil
}

// definitionOf is the definition that m was made of: in the tree, or the one that the user names where m's lies elsewhere.
func definitionOf(o Options, m *manifest.Manifest) (string, error) {
	name, foreign := strings.CutPrefix(m.Source, outside)
	switch {
	case !foreign && o.Definition != "":
		return "", fmt.Errorf("its definition is the tree's %s: leave out --definition", m.Source)
	case !foreign:
		return filepath.Join(o.Tree, filepath.FromSlash(m.Source)), nil
	case o.Definition == "":
		return "", fmt.Errorf("was built of %s: %w", name, ErrNoDefinition)
	case filepath.Base(o.Definition) != name:
		return "", fmt.Errorf("was built of %s, by that name: %s has another", name, o.Definition)
	}
	if _, err := os.Stat(o.Definition); err != nil {
		return "", err
	}
	return filepath.Abs(o.Definition)
}

// rebuild makes the outputs of m in o.Output, and says of what.
func rebuild(ctx context.Context, o Options, m *manifest.Manifest, work string) (tree string, err error) {
	definition, err := definitionOf(o, m)
	if err != nil {
		return "", err
	}
	other, err := different(ctx, o, m, definition)
	if err != nil {
		return "", err
	}
	if len(other) == 0 {
		_, err := Run(ctx, o, definition)
		return "the sources here", err
	}
	if foreign := outsideOf(other); len(foreign) > 0 {
		return "", fmt.Errorf("%w: of the files that are in no commit these differ: %s", ErrOtherTree, strings.Join(foreign, ", "))
	}
	commit := commitOf(m.Inputs.Version)
	if commit == "" {
		return "", fmt.Errorf("%w: version %s is no commit, and of the tree here these differ: %s", ErrOtherTree, m.Inputs.Version, strings.Join(some(other), ", "))
	}
	o.Tree, err = checkout(ctx, o, commit, work)
	if err != nil {
		return "", fmt.Errorf("%w: commit %s: %w", ErrOtherTree, commit, err)
	}
	if o.Definition == "" {
		return "commit " + commit, runBuilder(ctx, o, m.Source)
	}
	return fmt.Sprintf("commit %s, and %s", commit, o.Definition), runBuilder(ctx, o, "--tree", ".", definition)
}

// outsideOf are those of the files that lie outside of the tree.
func outsideOf(files []string) []string {
	return slices.DeleteFunc(slices.Clone(files), func(name string) bool { return !strings.HasPrefix(name, outside) })
}

// some are the first ones of many.
func some(all []string) []string {
	const most = 10
	if len(all) <= most {
		return all
	}
	return append(slices.Clone(all[:most]), fmt.Sprintf("and %d more", len(all)-most))
}

// different lists what is not the same in the tree here and in what m was made of.
func different(ctx context.Context, o Options, m *manifest.Manifest, definition string) ([]string, error) {
	p, err := Plan(o, definition)
	if err != nil {
		return []string{err.Error()}, nil
	}
	in, err := readInputs(ctx, o, p)
	if err == nil {
		err = in.addKernel(ctx, o, p)
	}
	if err != nil {
		return nil, err
	}
	var other []string
	for name, hash := range m.Inputs.Files {
		if in.Files[name] != hash {
			other = append(other, name)
		}
	}
	for name := range in.Files {
		if _, there := m.Inputs.Files[name]; !there {
			other = append(other, name)
		}
	}
	slices.Sort(other)
	if in.Version != m.Inputs.Version {
		other = append(other, "version "+in.Version)
	}
	if in.Go != m.Inputs.Go {
		other = append(other, in.Go+" instead of "+m.Inputs.Go)
	}
	if !slices.Equal(in.KernelTools, m.Inputs.KernelTools) {
		other = append(other, fmt.Sprintf("the kernel's tools %q instead of %q", in.KernelTools, m.Inputs.KernelTools))
	}
	return other, nil
}

// commitOf is the commit that a version names, empty if it names none or more than a commit.
func commitOf(version string) string {
	_, commit, _ := strings.Cut(version, "+")
	if strings.HasSuffix(commit, ".dirty") {
		return ""
	}
	return commit
}

// checkout puts a commit of o.Tree's repository into a directory of work.
func checkout(ctx context.Context, o Options, commit, work string) (string, error) {
	top, err := run(ctx, o.Tree, "git", "-c", "safe.directory=*", "rev-parse", "--show-toplevel")
	if err != nil {
		return "", err
	}
	inside, err := filepath.Rel(top, o.Tree)
	if err != nil {
		return "", err
	}
	tree := filepath.Join(work, "tree")
	if _, err := run(ctx, work, "git", "-c", "safe.directory=*", "clone", "--quiet", "--shared", "--no-checkout", top, tree); err != nil {
		return "", err
	}
	_, err = run(ctx, tree, "git", "-c", "safe.directory=*", "checkout", "--quiet", "--detach", commit)
	return filepath.Join(tree, inside), err
}

// runBuilder builds a definition with the builder that is in a tree.
func runBuilder(ctx context.Context, o Options, definition ...string) error {
	done := o.Phase("builder")
	builder := filepath.Join(filepath.Dir(o.Output), "cosi-image")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", builder, "./tools/cosi-image")
	cmd.Dir, cmd.Env = o.Tree, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, bytes.TrimSpace(out))
	}
	done("")
	done = o.Phase("image")
	defer done("")
	arguments := []string{"build", "-o", o.Output}
	if o.Signatures != "" {
		arguments = append(arguments, "--signatures", o.Signatures)
	}
	cmd = exec.CommandContext(ctx, builder, append(arguments, definition...)...)
	cmd.Dir = o.Tree
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+o.SourceDateEpoch, "COSI_CACHE="+o.Cache, "COSI_MIRROR="+o.Mirror)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cosi-image build: %w\n%s", err, bytes.TrimSpace(out))
	}
	return nil
}
