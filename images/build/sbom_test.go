package build

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdxlib"

	"github.com/cosi-os/cosi/images/inspect"
	"github.com/cosi-os/cosi/images/sbom"
)

// withDependency is the fixture whose runtime is linked of another module too, which is in a module cache of its own: returned, too.
func withDependency(t *testing.T) (o Options, cache string) {
	t.Helper()
	o, cache = fixture(t), t.TempDir()
	other := filepath.Join(cache, "example.org/other@v1.2.3")
	writeFile(t, filepath.Join(other, "go.mod"), []byte("module example.org/other\n\ngo 1.26\n"))
	writeFile(t, filepath.Join(other, "other.go"), []byte("package other\n\nfunc Do() {}\n"))
	writeFile(t, filepath.Join(other, "LICENSE"), []byte(isc))
	o.change(t, "go.mod", "go 1.26\n", "go 1.26\n\nrequire example.org/other v1.2.3\n")
	o.change(t, "engine/runtime/main.go", "func main() {}", "import \"example.org/other\"\n\nfunc main() { other.Do() }")
	for path, text := range map[string]string{"go.mod": "module example.org/other\n\ngo 1.26\n", "other.go": "package other\n\nfunc Do() {}\n"} {
		writeFile(t, filepath.Join(o.Tree, "vendor/example.org/other", path), []byte(text))
	}
	writeFile(t, filepath.Join(o.Tree, "vendor/modules.txt"), []byte("# example.org/other v1.2.3\n## explicit; go 1.26\nexample.org/other\n"))
	return o, cache
}

const isc = `ISC License

Copyright (c) 2026 Somebody

Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted, provided that the above
copyright notice and this permission notice appear in all copies.

THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS SOFTWARE INCLUDING ALL IMPLIED WARRANTIES OF
MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT, INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES
WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR
IN CONNECTION WITH THE USE OR PERFORMANCE OF THIS SOFTWARE.
`

// The list of software of an image is an SPDX document in the eyes of those who wrote SPDX's tools, and names everything.
func TestTheSoftwareOfAnImageIsListed(t *testing.T) {
	o, cache := withDependency(t)
	o.change(t, "images/dev.yaml", "outputs: [raw, qcow2, iso, pxe]", "outputs: [uki]")
	writeFile(t, filepath.Join(o.Tree, "images/VERSION"), []byte("1.2.3+1\n"))
	_, m := build(t, o)
	image, err := inspect.Open(filepath.Join(o.Output, m.Outputs[0].Name))
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	var out, again, elsewhere bytes.Buffer
	for w, modules := range map[*bytes.Buffer]string{&out: cache, &again: cache, &elsewhere: ""} {
		if err := sbom.Write(w, image, modules); err != nil {
			t.Fatal(err)
		}
	}
	if out.String() != again.String() {
		t.Error("two lists of one image differ")
	}
	doc, err := spdxjson.Read(&out)
	if err != nil {
		t.Fatal(err)
	}
	if err := spdxlib.ValidateDocument(doc); err != nil {
		t.Error(err)
	}
	described, err := spdxlib.GetDescribedPackageIDs(doc)
	if err != nil || len(described) != 1 {
		t.Errorf("it describes %q, %v; want the image", described, err)
	}
	purls := map[string]string{}
	licences, links := map[string]string{}, map[common.ElementID][]string{}
	names := map[common.ElementID]string{}
	for _, p := range doc.Packages {
		names[p.PackageSPDXIdentifier] = p.PackageName
		if refs := p.PackageExternalReferences; len(refs) == 1 {
			purls[p.PackageName] = refs[0].Locator
		}
		licences[p.PackageName+" "+p.PackageVersion] = p.PackageLicenseDeclared
		if p.PackageDownloadLocation == "" || p.FilesAnalyzed || !fs.ValidPath(string(p.PackageSPDXIdentifier)) {
			t.Errorf("%+v", p)
		}
	}
	for _, r := range doc.Relationships {
		links[r.RefA.ElementRefID] = append(links[r.RefA.ElementRefID], names[r.RefB.ElementRefID])
	}
	for name, licence := range map[string]string{
		"cosi-dev-amd64 1.2.3+1": "NOASSERTION", "linux 1": "GPL-2.0-only WITH Linux-syscall-note", "stub 1": "LGPL-2.1-or-later",
		"/usr/bin/runtime 1.2.3+1": "NOASSERTION", "example.org/other v1.2.3": "ISC", "stdlib " + m.Inputs.Go: "BSD-3-Clause",
	} {
		if licences[name] != licence {
			t.Errorf("%s is under %q; want %q (of %v)", name, licences[name], licence, licences)
		}
	}
	for name, purl := range map[string]string{
		"/usr/bin/engine": "pkg:golang/example.org/small@v1.2.3%2B1#engine", "/usr/lib/cosi/bin/marker": "pkg:golang/example.org/small@v1.2.3%2B1#plugins/marker/main",
		"stdlib": "pkg:golang/stdlib@" + strings.TrimPrefix(m.Inputs.Go, "go"), "example.org/other": "pkg:golang/example.org/other@v1.2.3", "linux": "pkg:deb/debian/linux@1?arch=amd64",
	} {
		if purls[name] != purl {
			t.Errorf("%s is %s; want %s", name, purls[name], purl)
		}
	}
	for id, name := range names {
		got := strings.Join(links[id], " ")
		want, some := map[string]string{
			"/usr/bin/runtime": "stdlib example.org/other", "/usr/bin/engine": "stdlib",
			"cosi-dev-amd64": "linux stub /usr/bin/engine /usr/bin/runtime /usr/lib/cosi/bin/marker /usr/lib/cosi/bin/plugins",
		}[name]
		if some && got != want {
			t.Errorf("%s holds %s; want %s", name, got, want)
		}
	}
	if !strings.Contains(elsewhere.String(), `"example.org/other"`) || strings.Contains(elsewhere.String(), `"ISC"`) {
		t.Errorf("without a module cache:\n%s", elsewhere.String())
	}
}

// iPXE is beside what boots over the network, and in no disk or CD of the same definition.
func TestIPXEIsListedWhereItIs(t *testing.T) {
	o := fixture(t)
	_, m := build(t, o)
	for suffix, want := range map[string]bool{".raw": false, ".qcow2": false, ".iso": false, ".efi": true, ".initramfs": true} {
		image, err := inspect.Open(filepath.Join(o.Output, m.Image+suffix))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := sbom.Write(&out, image, ""); err != nil {
			t.Fatal(err)
		}
		image.Close()
		if listed := strings.Contains(out.String(), "pkg:deb/debian/ipxe@"); listed != want || !strings.Contains(out.String(), "pkg:deb/debian/linux@") {
			t.Errorf("%s: iPXE is listed: %v; want %v", suffix, listed, want)
		}
	}
}

// What somebody has built from a tree of his own has no version; it is not the image's.
func TestAProgramOfAnExtensionHasNotTheVersionOfTheImage(t *testing.T) {
	o := withExtension(t)
	theirs := t.TempDir()
	writeFile(t, filepath.Join(theirs, "go.mod"), []byte("module example.org/theirs\n\ngo 1.26\n"))
	writeFile(t, filepath.Join(theirs, "greeter/main.go"), []byte("package main\n\nfunc main() {}\n"))
	cmd := exec.Command("go", "build", "-o", filepath.Join(o.Tree, "images/hello/usr/lib/cosi/bin/greeter"), "./greeter")
	cmd.Dir, cmd.Env = theirs, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, m := build(t, o)
	image, err := inspect.Open(filepath.Join(o.Output, m.Image+".initramfs"))
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	var out bytes.Buffer
	if err := sbom.Write(&out, image, ""); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), `"pkg:golang/example.org/theirs#greeter"`) || !strings.Contains(out.String(), `"pkg:golang/example.org/small@v1.2.3#engine"`) {
		t.Errorf("the list is\n%s", out.String())
	}
}
