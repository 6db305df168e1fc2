package build

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/api/document"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/api/rules"
	"github.com/cosi-os/cosi/images/definition"
	"github.com/cosi-os/cosi/images/plan"
	"github.com/cosi-os/cosi/images/rootfs"
	rootrules "github.com/cosi-os/cosi/images/rules"
	"github.com/cosi-os/cosi/kernel"
)

// contents are what the image says, as against what it runs. They are checked before anything is fetched or compiled.
type contents struct {
	declarations []*declaration.Declaration
	resources    []byte
}

func readContents(tree string, p *plan.Plan) (c contents, err error) {
	var problems [2]error
	c.declarations, problems[0] = declarations(tree, p)
	c.resources, problems[1] = resources(p.Definition)
	return c, errors.Join(problems[:]...)
}

// userland are the root's entries without the kernel's modules: what a node runs, whatever kernel is below it.
func userland(p *plan.Plan, in *Inputs, c contents, programs map[string]string, unpinned bool) (entries []rootfs.Entry, err error) {
	for _, dir := range plan.MountPoints {
		entries = append(entries, rootfs.Entry{Path: dir, Mode: fs.ModeDir | 0o755})
	}
	for _, program := range p.Programs {
		data, err := os.ReadFile(programs[program.Path])
		if err != nil {
			return nil, err
		}
		entries = append(entries, rootfs.Entry{Path: program.Path, Mode: 0o755, Content: bytes.NewReader(data)})
	}
	for _, d := range c.declarations {
		data, err := encodeDeclaration(d)
		if err != nil {
			return nil, err
		}
		entries = append(entries,
			file(plan.Declarations+"/"+d.Name+".json", data),
			file(plan.Declarations+"/"+declaration.DefinitionsFile(d.Name), d.Definitions))
	}
	for _, x := range p.Definition.Merged {
		entries = append(entries, x.Entries...)
	}
	identity, err := imageJSON(p, in, unpinned)
	if err != nil {
		return nil, err
	}
	known, err := kindsOf(c.declarations)
	if err != nil {
		return nil, err
	}
	if certificates := p.Definition.UserData.URLCertificates; certificates != nil {
		entries = append(entries, file(plan.URLCA, certificates))
	}
	entries = append(entries, file(plan.Kinds, known), file(plan.Resources, c.resources), file(plan.Image, identity), file(plan.OSRelease, osRelease(p, in, unpinned)))
	return entries, lawful(entries, p.Definition)
}

// lawful fails with all that must not be in a root, and with what an extension and somebody else both bring.
func lawful(entries []rootfs.Entry, d *definition.Definition) error {
	var problems []error
	bringer := map[string]string{}
	for _, x := range d.Merged {
		for _, e := range x.Entries {
			if other, twice := bringer[e.Path]; twice {
				problems = append(problems, fmt.Errorf("%s: extension %s and extension %s both bring /%s", d.Origin("extensions", x.Name), other, x.Name, e.Path))
			}
			bringer[e.Path] = x.Name
		}
	}
	met := map[string]bool{}
	for _, e := range entries {
		if x := bringer[e.Path]; met[e.Path] && x != "" {
			problems = append(problems, fmt.Errorf("%s: extension %s brings /%s, which the image has already", d.Origin("extensions", x), x, e.Path))
		}
		met[e.Path] = true
		if err := rootrules.Check(e, d.Arch); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

func file(path string, data []byte) rootfs.Entry {
	return rootfs.Entry{Path: path, Mode: 0o644, Content: bytes.NewReader(data)}
}

// modules are the kernel's part of the root.
func modules(p *plan.Plan, parts *parts) ([]rootfs.Entry, error) {
	all, err := plan.Resolve(parts.kernel, p.Wishes(parts.contents.declarations))
	if err != nil {
		return nil, err
	}
	dir := "usr/lib/modules/" + parts.kernel.Release + "/"
	entries := []rootfs.Entry{
		file(dir+"modules.builtin", parts.kernel.BuiltIn),
		file(plan.Modules, []byte(lines(p.Definition.Kernel.Modules.Boot))),
	}
	if len(all) > 0 { // without, the engine need not ask the devices which ones they want
		entries = append(entries, file(dir+"modules.dep", []byte(kernel.Dependencies(all))), file(dir+"modules.alias", []byte(kernel.Aliases(all))))
	}
	for _, m := range all {
		entries = append(entries, file(dir+m.Path, m.Data))
	}
	return entries, nil
}

func lines(all []string) string {
	if len(all) == 0 {
		return ""
	}
	return strings.Join(all, "\n") + "\n"
}

// resources are the definition's default resources as documents. What a node would refuse is refused here, with the definition's lines.
func resources(d *definition.Definition) ([]byte, error) {
	set := builtin.Set()
	out, checker := &bytes.Buffer{}, &rules.Checker{}
	var problems definition.Problems
	for i, node := range d.Resources {
		data, err := yaml.Marshal(&node)
		if err != nil {
			return nil, err
		}
		documents, found := document.Parse("resources.yaml", data)
		for _, parsed := range documents {
			r, unresolved := parsed.Resolve(set)
			found = append(found, unresolved...)
			if r == nil || len(unresolved) > 0 {
				continue
			}
			broken, err := checker.Check(set.ByType(r.GetMetadata().GetType()), r.GetSpec().GetProtoSpec())
			if err != nil {
				return nil, err
			}
			for _, b := range broken {
				found = append(found, document.Problem{Field: b.Field, Message: b.Message})
			}
		}
		for _, problem := range found {
			field := strings.TrimSuffix(fmt.Sprintf("resources[%d].%s", i, problem.Field), ".")
			at := d.Origin("resources", definition.ResourceName(&node))
			problems = append(problems, definition.Problem{File: at.File, Line: at.Line, Field: field, Message: problem.Message})
		}
		out.WriteString("---\n")
		out.Write(data)
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return out.Bytes(), nil
}

// imageJSON is what the engine, the runtime and the console know of the image.
func imageJSON(p *plan.Plan, in *Inputs, unpinned bool) ([]byte, error) {
	data, err := json.MarshalIndent(struct {
		Version    string    `json:"version"`
		Built      time.Time `json:"built"`
		Definition string    `json:"definition"`
		Unpinned   bool      `json:"unpinned"`
		Disks      bool      `json:"disk_user_data_under_secure_boot"`
		Platform   string    `json:"platform,omitempty"`
	}{in.Version, in.Epoch, p.Definition.Name, unpinned, p.Definition.UserData.DisksUnderSecureBoot, p.Definition.Platform}, "", "  ")
	return append(data, '\n'), err
}

func osRelease(p *plan.Plan, in *Inputs, unpinned bool) []byte {
	out := fmt.Appendf(nil, "NAME=COSI\nID=cosi\nPRETTY_NAME=\"COSI %s\"\nVERSION_ID=%s\nIMAGE_ID=%s\nIMAGE_VERSION=%s\n", in.Version, in.Version, p.Name, in.Version)
	if unpinned {
		out = append(out, "COSI_UNPINNED=1\n"...)
	}
	return out
}
