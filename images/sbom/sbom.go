// Package sbom lists what software is in an image, for those who must know: in SPDX 2.3 (https://spdx.github.io/spdx-spec/v2.3/).
//
// The list is read out of the image: each program says of which modules it was linked (its Go build info), and the manifest names the packages of
// Debian. Licences are known for those, and for modules that are in this machine's module cache; of others it says NOASSERTION. cosi-image
// prints it.
package sbom

import (
	"bytes"
	"cmp"
	"debug/buildinfo"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/google/uuid"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"

	"github.com/cosi-os/cosi/images/inspect"
	"github.com/cosi-os/cosi/images/manifest"
	"github.com/cosi-os/cosi/kernel/lock"
)

const (
	unknown = "NOASSERTION"
	// engine is PID 1.
	engine = "usr/bin/engine"
)

// ours is this repository's module, and the licence that it is under.
const (
	ours        = "github.com/cosi-os/cosi"
	oursLicence = "Apache-2.0"
)

// debian are the licences of the packages by the beginning of their role.
var debian = map[string]string{
	"kernel":   "GPL-2.0-only WITH Linux-syscall-note",
	"efi-stub": "LGPL-2.1-or-later",
	"bios":     "GPL-3.0-or-later",
}

// list is a document being made.
type list struct {
	doc     *v2_3.Document
	modules string // the module cache, empty if there is none
	tree    string // the module that the image was built from, which has the image's version
	met     map[common.ElementID]bool
}

// Write writes the list of an image. modules is the directory of Go's module cache; there may be none.
func Write(w io.Writer, image *inspect.Image, modules string) error {
	m, err := image.Manifest()
	if err != nil {
		return err
	}
	l := &list{modules: modules, tree: treeOf(image.Root), met: map[common.ElementID]bool{}}
	l.begin(m)
	for _, p := range m.Packages {
		if p.Role == lock.NetLoader && !ofNetwork(image.Format) {
			continue
		}
		l.relate(l.root(), common.TypeRelationshipContains, l.debian(p))
	}
	if err := l.programs(image.Root, m); err != nil {
		return err
	}
	return spdxjson.Write(l.doc, w, spdxjson.Indent("  "), spdxjson.EscapeHTML(false))
}

// ofNetwork reports whether an image of a format is one of a PXE set, which has iPXE beside it: other outputs of the same definition have none.
func ofNetwork(f inspect.Format) bool { return f == inspect.UKI || f == inspect.Initramfs }

// treeOf is the module that PID 1 was built from; empty if nobody knows.
func treeOf(root fs.FS) string {
	data, err := fs.ReadFile(root, engine)
	if err != nil {
		return ""
	}
	info, err := buildinfo.Read(bytes.NewReader(data))
	if err != nil {
		return ""
	}
	return info.Main.Path
}

// begin describes the document and the image. It has the image's time and an identity that follows from what the image is made of: the list of
// one image is the same each time.
func (l *list) begin(m *manifest.Manifest) {
	packed, err := m.JSON()
	if err != nil {
		packed = []byte(m.Image) // not for a manifest that was read
	}
	l.doc = &v2_3.Document{
		SPDXVersion: v2_3.Version, DataLicense: v2_3.DataLicense, SPDXIdentifier: "DOCUMENT",
		DocumentName:      m.Image + " " + m.Inputs.Version,
		DocumentNamespace: "urn:uuid:" + uuid.NewSHA1(uuid.NameSpaceOID, packed).String(),
		CreationInfo: &v2_3.CreationInfo{
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "cosi-image"}},
			Created:  m.Inputs.Epoch.UTC().Format("2006-01-02T15:04:05Z"),
		},
	}
	l.add(&v2_3.Package{PackageName: m.Image, PackageVersion: m.Inputs.Version, PrimaryPackagePurpose: "OPERATING-SYSTEM"})
	l.relate("DOCUMENT", common.TypeRelationshipDescribe, l.root())
}

// root is the image itself.
func (l *list) root() common.ElementID { return l.doc.Packages[0].PackageSPDXIdentifier }

// add takes p in, unless it is there, and returns its identifier.
func (l *list) add(p *v2_3.Package) common.ElementID {
	p.PackageSPDXIdentifier = identifier(cmp.Or(p.PrimaryPackagePurpose, "PACKAGE"), p.PackageName, p.PackageVersion)
	if l.met[p.PackageSPDXIdentifier] {
		return p.PackageSPDXIdentifier
	}
	l.met[p.PackageSPDXIdentifier] = true
	p.IsFilesAnalyzedTagPresent = true
	p.PackageDownloadLocation = unknown
	p.PackageLicenseConcluded = unknown
	p.PackageLicenseDeclared = cmp.Or(p.PackageLicenseDeclared, unknown)
	p.PackageCopyrightText = unknown
	l.doc.Packages = append(l.doc.Packages, p)
	return p.PackageSPDXIdentifier
}

var notInIdentifier = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

func identifier(parts ...string) common.ElementID {
	return common.ElementID(strings.Trim(notInIdentifier.ReplaceAllString(strings.Join(parts, "-"), "-"), "-"))
}

func (l *list) relate(a common.ElementID, how string, b common.ElementID) {
	relation := &v2_3.Relationship{RefA: common.DocElementID{ElementRefID: a}, RefB: common.DocElementID{ElementRefID: b}, Relationship: how}
	if !slices.ContainsFunc(l.doc.Relationships, func(r *v2_3.Relationship) bool { return *r == *relation }) {
		l.doc.Relationships = append(l.doc.Relationships, relation)
	}
}

// debian adds a package of Debian.
func (l *list) debian(p lock.Package) common.ElementID {
	licence := unknown
	for role, known := range debian {
		if strings.HasPrefix(p.Role, role) {
			licence = known
		}
	}
	purl := fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s", inPURL(p.Name), inPURL(p.Version), p.Architecture)
	return l.add(&v2_3.Package{
		PackageName: p.Name, PackageVersion: p.Version, PackageLicenseDeclared: licence,
		PackageChecksums:          []common.Checksum{{Algorithm: common.SHA256, Value: p.SHA256}},
		PackageExternalReferences: reference(purl),
	})
}

func reference(purl string) []*v2_3.PackageExternalReference {
	return []*v2_3.PackageExternalReference{{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: purl}}
}

// golang is the purl of a package of a Go module: https://github.com/package-url/purl-spec. version is as Go has it, empty if nobody knows it.
func golang(module, version, inside string) string {
	purl := "pkg:golang/" + module
	if version != "" {
		purl += "@" + inPURL(version)
	}
	if inside != "" {
		purl += "#" + inside
	}
	return purl
}

// inPURL is a name or a version as a purl has it.
func inPURL(word string) string { return strings.ReplaceAll(url.PathEscape(word), "+", "%2B") }

// programs adds every program of the root, with what it was linked of.
func (l *list) programs(root fs.FS, m *manifest.Manifest) error {
	return fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err != nil || info.Mode().Perm()&0o111 == 0 {
			return err
		}
		data, err := fs.ReadFile(root, name)
		if err != nil || !bytes.HasPrefix(data, []byte(elf.ELFMAG)) {
			return err
		}
		l.program("/"+name, data, m)
		return nil
	})
}

func (l *list) program(path string, data []byte, m *manifest.Manifest) {
	file, _ := inspect.Hash(bytes.NewReader(data)) // of memory
	p := &v2_3.Package{
		PackageName: path, PackageVersion: m.Inputs.Version, PrimaryPackagePurpose: "APPLICATION", PackageFileName: path,
		PackageChecksums: []common.Checksum{{Algorithm: common.SHA256, Value: file.SHA256}},
	}
	info, err := buildinfo.Read(bytes.NewReader(data))
	if err != nil { // of an extension, and in another language: that it is there is all that is known
		p.PackageVersion = ""
		l.relate(l.root(), common.TypeRelationshipContains, l.add(p))
		return
	}
	version := "v" + m.Inputs.Version
	if info.Main.Path != l.tree {
		if version = info.Main.Version; version == "(devel)" {
			version = "" // of an extension, built from somebody's own tree
		}
		p.PackageVersion = version
	}
	p.PackageExternalReferences = reference(golang(info.Main.Path, version, strings.TrimPrefix(strings.TrimPrefix(info.Path, info.Main.Path), "/")))
	p.PackageLicenseDeclared = l.licence(info.Main)
	id := l.add(p)
	l.relate(l.root(), common.TypeRelationshipContains, id)
	// Those who list what is wrong with Go's library call it stdlib, and its versions as numbers: https://pkg.go.dev/vuln.
	number, _, _ := strings.Cut(strings.TrimPrefix(info.GoVersion, "go"), " ")
	l.relate(id, "STATIC_LINK", l.add(&v2_3.Package{
		PackageName: "stdlib", PackageVersion: info.GoVersion, PrimaryPackagePurpose: "LIBRARY", PackageLicenseDeclared: "BSD-3-Clause",
		PackageExternalReferences: reference(golang("stdlib", number, "")),
	}))
	for _, dep := range info.Deps {
		used := *dep
		if dep.Replace != nil {
			used = *dep.Replace
		}
		l.relate(id, "STATIC_LINK", l.add(&v2_3.Package{
			PackageName: used.Path, PackageVersion: used.Version, PrimaryPackagePurpose: "LIBRARY", PackageLicenseDeclared: l.licence(used),
			PackageExternalReferences: reference(golang(used.Path, used.Version, "")),
		}))
	}
}

// licence is that of a module, as far as it is known.
func (l *list) licence(m debug.Module) string {
	if m.Path == ours {
		return oursLicence
	}
	return cmp.Or(inCache(l.modules, m.Path, m.Version), unknown)
}
