package build

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/api/kinds/descriptors"
)

// withExtension is the fixture with an extension that brings a file and a plugin with a kind.
func withExtension(t *testing.T) Options {
	t.Helper()
	o := fixture(t)
	o.change(t, "images/dev.yaml", "outputs: [raw, qcow2, iso, pxe]", "extensions: [hello]\noutputs: [direct]")
	kind, err := builtin.Set().Lookup("mount")
	if err != nil {
		t.Fatal(err)
	}
	kinds, err := descriptors.Of(kind)
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		"extension-release.d/extension-release.hello": "ID=cosi\n",
		"hello/greeting":             "hello\n",
		"cosi/plugins/greeter.json":  `{"name": "greeter", "description": "greets", "inputs": [{"type": "MountPoints.storage.cosi.dev"}, {"type": "Links.network.cosi.dev"}]}`,
		"cosi/plugins/greeter.binpb": string(kinds),
	} {
		writeFile(t, filepath.Join(o.Tree, "images/hello/usr/lib", path), []byte(text))
	}
	cmd := exec.Command("go", "build", "-o", filepath.Join(o.Tree, "images/hello/usr/lib/cosi/bin/greeter"), "./plugins")
	cmd.Dir, cmd.Env = o.Tree, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return o
}

// A plugin of an extension is one like the others: it has a user of its own, and the node knows its kinds.
func TestAnExtensionIsMergedIntoTheRoot(t *testing.T) {
	o := withExtension(t)
	if _, err := Root(context.Background(), o, o.definition()); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(o.Output, "usr/lib/cosi/plugins")
	all, err := declaration.Load(dir)
	if err != nil || len(all) != 3 {
		t.Fatalf("Load = %v, %v; want 3 plugins", all, err)
	}
	if d := all[0]; d.Name != "greeter" || d.UID != 901 || strings.Join(d.Argv, " ") != "/usr/lib/cosi/bin/greeter" {
		t.Errorf("the first plugin is %+v", d)
	}
	if err := all[0].LoadDefinitions(dir); err != nil {
		t.Fatal(err)
	}
	var types []string
	known, err := descriptors.Kinds(all[0].Definitions)
	for _, k := range known {
		types = append(types, k.Type())
	}
	if got := strings.Join(types, " "); err != nil || !strings.Contains(got, "MountPoints.storage") || !strings.Contains(got, "Links.network") {
		t.Errorf("its kinds are %s, %v", got, err)
	}
	for path, mode := range map[string]fs.FileMode{"usr/lib/hello/greeting": 0o644, "usr/lib/cosi/bin/greeter": 0o755, "usr/lib/extension-release.d/extension-release.hello": 0o644} {
		if info, err := os.Stat(filepath.Join(o.Output, path)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
}

func TestAnExtensionIsAnInput(t *testing.T) {
	o := withExtension(t)
	_, m := build(t, o)
	if again, _ := build(t, o); !again.UpToDate || m.Inputs.Files["images/hello"] == "" {
		t.Errorf("up to date %v, manifest %q", again.UpToDate, m.Inputs.Files["images/hello"])
	}
	o.change(t, "images/hello/usr/lib/hello/greeting", "hello", "hallo")
	again, changed := build(t, o)
	if again.UpToDate || changed.Inputs.Files["images/hello"] == m.Inputs.Files["images/hello"] || changed.Outputs[1] == m.Outputs[1] {
		t.Errorf("changed: up to date %v, %v", again.UpToDate, changed.Outputs)
	}
	writeFile(t, filepath.Join(o.Tree, "images/hello/usr/lib/os-release"), []byte("ID=mine\n"))
	if _, err := Run(context.Background(), o, o.definition()); err == nil || !strings.Contains(err.Error(), "dev.yaml:11: extension hello brings /usr/lib/os-release, which the image has already") {
		t.Errorf("over a file of the image: %v", err)
	}
}

func TestAPluginComesOnce(t *testing.T) {
	o := withExtension(t)
	o.change(t, "images/dev.yaml", "\nplugins: [mount]", "\nplugins: [mount, greeter]")
	if _, err := Plan(o, o.definition()); err == nil || !strings.Contains(err.Error(), "dev.yaml:11: extensions: ") || !strings.Contains(err.Error(), "plugin greeter: the definition names one, too") {
		t.Errorf("Plan = %v", err)
	}
}
