package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/cosi-os/cosi/images/build"
	"github.com/cosi-os/cosi/images/inspect"
	"github.com/cosi-os/cosi/images/plan"
	"github.com/cosi-os/cosi/images/secureboot"
)

func cosiImage(t *testing.T, arguments ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(context.Background(), arguments, &out, &err)
	return code, out.String(), err.String()
}

func TestPlanOfTheBaseImageIsPrinted(t *testing.T) {
	t.Setenv("COSI_CACHE", t.TempDir())
	code, stdout, stderr := cosiImage(t, "plan", "../../images/base.yaml")
	if code != 0 || stderr != "" {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	for _, want := range []string{"cosi-base-amd64, from ../../images/base.yaml", "-cloud-amd64 ", "./engine/runtime", "cosi-base-amd64.qcow2 ", "cosi-base-amd64.manifest.json", "../../images/base.yaml:1"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in the plan:\n%s", want, stdout)
		}
	}
	for format, read := range map[string]func([]byte, any) error{"json": json.Unmarshal, "yaml": func(b []byte, v any) error { return yaml.Load(b, v) }} {
		code, stdout, stderr := cosiImage(t, "plan", "-o", format, "../../images/base.yaml")
		var plan struct {
			Name     string
			Sections []struct {
				Name  string
				Items []struct {
					Name string
					Why  []string
				}
			}
		}
		if err := read([]byte(stdout), &plan); err != nil || code != 0 {
			t.Fatalf("exit %d: %v, %s", code, err, stderr)
		}
		if plan.Name != "cosi-base-amd64" || len(plan.Sections) < 8 || plan.Sections[0].Items[0].Name != "arch" || !strings.Contains(plan.Sections[0].Items[0].Why[0], "base.yaml:") {
			t.Errorf("as %s: %+v", format, plan)
		}
	}
}

// Where the kernel was fetched already, that it has all the modules is seen as well.
func TestEveryCommittedDefinitionHasAPlan(t *testing.T) {
	files, err := filepath.Glob("../../images/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, file := range files {
		if code, _, stderr := cosiImage(t, "plan", file); code != 0 {
			t.Errorf("%s: exit %d, %s", file, code, stderr)
		}
	}
}

// heirs returns what writes a definition that says text beside what the base image's says, and returns its file. It lies in a module of its
// own with this repository's plugins and packages.
func heirs(t *testing.T) func(name, text string) string {
	t.Helper()
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	tree := t.TempDir()
	base, err := filepath.Rel(tree, filepath.Join(repository, "images/base.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"go.mod", "kernel", "plugins"} {
		if err := os.Symlink(filepath.Join(repository, name), filepath.Join(tree, name)); err != nil {
			t.Fatal(err)
		}
	}
	return func(name, text string) string {
		t.Helper()
		file := filepath.Join(tree, name)
		if err := os.WriteFile(file, []byte("name: heir\nextends: "+base+"\n"+text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
}

func TestExitCodesTellMistakesOfUsageFromFailures(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "image.yaml")
	if err := os.WriteFile(outside, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	heir := heirs(t)
	t.Setenv("COSI_CACHE", t.TempDir())
	t.Setenv("COSI_TREE", "")
	for name, test := range map[string]struct {
		arguments []string
		code      int
		says      string
	}{
		"help":                       {nil, 0, ""},
		"version":                    {[]string{"version"}, 0, ""},
		"an unknown command":         {[]string{"bild"}, 2, "bild"},
		"an unknown flag":            {[]string{"build", "--fast", "x.yaml"}, 2, "--fast"},
		"no definition":              {[]string{"build"}, 2, "arg"},
		"a kernel for no processor":  {[]string{"kernel"}, 2, "arg"},
		"a kernel for another one":   {[]string{"kernel", "riscv64"}, 2, "riscv64: want one of amd64, arm64"},
		"two definitions":            {[]string{"plan", "a", "b"}, 2, "arg"},
		"no directory for the root":  {[]string{"root", "x.yaml"}, 2, "output"},
		"an unknown format":          {[]string{"plan", "-o", "xml", "x.yaml"}, 2, "must be one of table, json, yaml"},
		"a definition of nowhere":    {[]string{"build", "gone.yaml"}, 1, "gone.yaml: no such file"},
		"a definition in no tree":    {[]string{"plan", outside}, 1, outside + ": in no source tree (a directory with go.mod and kernel/lock.yaml): name the one to build of, with --tree DIR or in COSI_TREE\n"},
		"a tree that is none":        {[]string{"plan", "--tree", filepath.Dir(outside), outside}, 1, "--tree " + filepath.Dir(outside) + ": in no source tree"},
		"a tree that is not there":   {[]string{"build", "--tree", "/nowhere", outside}, 1, "--tree stat /nowhere: no such file"},
		"a wrong definition":         {[]string{"plan", "../../images/definition/testdata/wrong.yaml"}, 1, "wrong.yaml:6: kernel.flavour"},
		"a count of mistakes":        {[]string{"plan", heir("two.yaml", "plugins: [mountt, nonesuch]\n")}, 1, "\ncosi-image: 2 problems\n"},
		"a plugin that is not there": {[]string{"plan", heir("plugin.yaml", "plugins: [mountt, nonesuch]\n")}, 1, "plugin.yaml:3: plugins: \"mountt\": there is no plugins/mountt/plugin.json; did you mean \"mount\"?\n"},
		"a resource of no kind":      {[]string{"plan", heir("kind.yaml", "resources:\n  - metadata: {type: mountt, id: x}\n    spec: {}\n")}, 1, "kind.yaml:4: resources[1].metadata.type: unknown kind"},
		"the same definition":        {[]string{"diff", "../../images/base.yaml", "../../images/base.yaml"}, 0, ""},
		"another definition":         {[]string{"diff", "../../images/base.yaml", "../../images/test.yaml"}, 1, ""},
		"no second thing":            {[]string{"diff", "../../images/base.yaml"}, 2, "arg"},
		"nothing to compare":         {[]string{"diff", "../../images/base.yaml", "gone.raw"}, 2, "gone.raw: no such file"},
		"no image":                   {[]string{"inspect", "main.go"}, 1, "main.go: is no image"},
		"a plan has no software":     {[]string{"plan", "-o", "spdx", "main.go"}, 2, "must be one of table, json, yaml"},
		"no image to verify":         {[]string{"verify", "main.go"}, 2, "main.go: is no image"},
		"no tree":                    {[]string{"verify", "--tree", t.TempDir(), "main.go"}, 2, "in no source tree"},
		"no manifest":                {[]string{"inspect", "../../images/base.yaml"}, 1, "base.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, stderr := cosiImage(t, test.arguments...)
			if code != test.code || !strings.Contains(stderr, test.says) {
				t.Errorf("exit %d, %q; want %d and %q", code, stderr, test.code, test.says)
			}
		})
	}
}

// A definition lies where its author keeps it, be that a module of its own; the tree is named by a flag, or by the environment, unless it lies in one.
func TestADefinitionMayLieAnywhere(t *testing.T) {
	t.Setenv("COSI_CACHE", t.TempDir())
	t.Setenv("COSI_TREE", "")
	dir := t.TempDir()
	file := filepath.Join(dir, "mine.yaml")
	for name, text := range map[string]string{"mine.yaml": "name: mine\nextends: base.yaml\nplugins: [probe]\n", "go.mod": "module example.org/mine\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	planned := func(arguments ...string) {
		t.Helper()
		code, stdout, stderr := cosiImage(t, append([]string{"plan"}, arguments...)...)
		if code != 0 || !strings.Contains(stdout, "cosi-mine-amd64, from "+file) || !strings.Contains(stdout, file+":3") || !strings.Contains(stdout, "/images/base.yaml:") {
			t.Errorf("plan %q: exit %d: %s%s", arguments, code, stderr, stdout)
		}
	}
	planned("--tree", "../../images", file) // any directory of the tree
	code, stdout, stderr := cosiImage(t, "diff", "--tree", "../..", "../../images/base.yaml", file)
	if code != 1 || !strings.Contains(stdout, "probe") {
		t.Errorf("diff: exit %d: %s%s", code, stderr, stdout)
	}
	t.Setenv("COSI_TREE", "../..")
	planned(file)
	t.Setenv("COSI_TREE", "/nowhere")
	if code, _, stderr := cosiImage(t, "plan", file); code != 1 || !strings.Contains(stderr, "COSI_TREE: stat /nowhere") {
		t.Errorf("a tree that is not there: exit %d: %s", code, stderr)
	}
	planned("--tree", "../..", file)
	if code, _, stderr := cosiImage(t, "plan", "../../images/base.yaml"); code != 0 {
		t.Errorf("what lies in a tree: exit %d: %s", code, stderr)
	}
}

func TestAnUnpinnedImageIsSaidToBeOne(t *testing.T) {
	p := &plan.Plan{Name: "cosi-dev-amd64"}
	for _, test := range []struct {
		result build.Result
		want   string
	}{
		{build.Result{Plan: p}, "cosi-dev-amd64 built in 1.50 s"},
		{build.Result{Plan: p, UpToDate: true}, "cosi-dev-amd64 is up to date (1.50 s)"},
		{build.Result{Plan: p, Unpinned: true}, "cosi-dev-amd64 built in 1.50 s, UNPINNED: see the warnings above"},
	} {
		if got := summary(&test.result, 1.5); got != test.want {
			t.Errorf("%q; want %q", got, test.want)
		}
	}
}

func TestDiffPrintsWhatIsDifferent(t *testing.T) {
	_, stdout, stderr := cosiImage(t, "diff", "../../images/base.yaml", "../../images/test-6-1.yaml")
	for _, want := range []string{"../../images/test-6-1.yaml\n", "definition   kernel.flavour ", " metal\n", " probe\n", "package      kernel-metal-6.1 "} {
		if !strings.Contains(stdout, want) || stderr != "" {
			t.Errorf("no %q in\n%s%s", want, stdout, stderr)
		}
	}
	var all []inspect.Difference
	if _, stdout, _ = cosiImage(t, "diff", "-o", "json", "../../images/base.yaml", "../../images/base.yaml"); json.Unmarshal([]byte(stdout), &all) != nil || all == nil || len(all) > 0 {
		t.Errorf("of the same: %s; want an empty list", stdout)
	}
	if _, stdout, _ = cosiImage(t, "diff", "-o", "json", "../../images/base.yaml", "../../images/test.yaml"); json.Unmarshal([]byte(stdout), &all) != nil || len(all) < 5 || all[0].Section != "definition" {
		t.Errorf("as JSON: %s", stdout)
	}
}

func TestCompletionOffersFilesAndFormats(t *testing.T) {
	for want, words := range map[string][]string{
		"yaml\n:8\n":            {"plan", ""},
		"json\n":                {"plan", "-o", ""},
		"yaml\nraw\nqcow2\niso": {"diff", "a.raw", ""},
		"raw\nqcow2\niso\nupgrade\nefi\ninitramfs\nvhd\nvmdk\nova\ngcp.tar.gz\noci.tar\nraw.zst\nraw.gz\nraw.xz\n:8": {"inspect", ""},
		":4\n": {"inspect", "a.raw", ""},
	} {
		code, stdout, stderr := cosiImage(t, append([]string{"__complete"}, words...)...)
		if code != 0 || !strings.Contains(stdout, want) {
			t.Errorf("%q: exit %d, %q, %s; want %q", words, code, stdout, stderr, want)
		}
	}
}

func TestKeysForSecureBootAreMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	code, stdout, stderr := cosiImage(t, "gen", "secure-boot-keys", "--name", "Example", dir)
	if code != 0 || !strings.Contains(stdout, filepath.Join(dir, "db.key")+"\n") || !strings.Contains(stdout, "PK.auth") {
		t.Fatalf("exit %d: %s%s", code, stdout, stderr)
	}
	certificate, err := secureboot.ReadCertificate(filepath.Join(dir, "KEK.crt"))
	if err != nil || certificate.Subject.String() != "CN=Example KEK" {
		t.Errorf("KEK.crt: %v, %v", certificate, err)
	}
	if code, _, stderr := cosiImage(t, "gen", "secure-boot-keys", dir); code != 1 || !strings.Contains(stderr, "is there already") {
		t.Errorf("again: exit %d: %s", code, stderr)
	}
}

func TestAKeyForUpgradesIsMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	code, stdout, stderr := cosiImage(t, "gen", "upgrade-keys", dir)
	if want := filepath.Join(dir, "upgrade.key") + "\n" + filepath.Join(dir, "upgrade.pub") + "\n" + filepath.Join(dir, "upgrade-policy.yaml") + "\n"; code != 0 || stdout != want {
		t.Fatalf("exit %d: %s%s; want %s", code, stdout, stderr, want)
	}
	if code, _, stderr := cosiImage(t, "gen", "upgrade-keys", dir); code != 1 || !strings.Contains(stderr, "upgrade.key is there already") {
		t.Errorf("again: exit %d: %s", code, stderr)
	}
}
