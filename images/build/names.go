package build

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cosi-os/cosi/images/definition"
	"github.com/cosi-os/cosi/images/extension"
	"github.com/cosi-os/cosi/images/manifest"
	"github.com/cosi-os/cosi/images/pkcs11"
	"github.com/cosi-os/cosi/images/secureboot"
)

// outside is the directory, in manifests, of files that lie outside of the tree.
const outside = "elsewhere/"

// names says what an image calls the files that it is made of. Where they lie on the build machine must not be seen in it.
type names struct{ tree, definitions string }

// namesOf are those of the files of d.
func namesOf(o Options, d *definition.Definition) names { return names{o.Tree, filepath.Dir(d.File)} }

// of is the path of file in the tree, with slashes. Outside of it, it is that below the definition's directory, or else its last word, in outside.
func (n names) of(file string) string {
	if path, ok := below(n.tree, file); ok {
		return path
	}
	if path, ok := below(n.definitions, file); ok {
		return outside + path
	}
	return outside + filepath.Base(file)
}

// below is the path of file from dir, with slashes, if it lies there, by whatever links either is named.
func below(dir, file string) (path string, ok bool) {
	for _, plain := range []func(string) string{filepath.Clean, withoutLinks} {
		directory, err := filepath.Abs(plain(dir))
		if err != nil {
			continue
		}
		// The last word may be a link: it is the name that the file has here.
		absolute, err := filepath.Abs(filepath.Join(plain(filepath.Dir(file)), filepath.Base(file)))
		if err != nil {
			continue
		}
		if path, err = filepath.Rel(directory, absolute); err == nil && filepath.IsLocal(path) {
			return filepath.ToSlash(path), true
		}
	}
	return "", false
}

func withoutLinks(path string) string {
	if plain, err := filepath.EvalSymlinks(path); err == nil {
		return plain
	}
	return path
}

// namedFiles adds the files of a definition to inputs, by their names.
type namedFiles struct {
	definition *definition.Definition
	in         *Inputs
	names      names
	paths      map[string]string // of those outside of the tree, by name
	problems   definition.Problems
}

// add adds a file that a field names, or an item of a list. Two that have one name are a problem: a change of the first would not be seen.
func (n *namedFiles) add(field, item, file, hash string) {
	name := n.names.of(file)
	n.in.Files[name] = hash
	if !strings.HasPrefix(name, outside) {
		return
	}
	path, err := filepath.Abs(file)
	if err != nil {
		path = file
	}
	if other := n.paths[name]; other != "" && other != path {
		at := n.definition.Origin(field, item)
		n.problems = append(n.problems, definition.Problem{File: at.File, Line: at.Line, Field: field,
			Message: fmt.Sprintf("%s and %s are both %s in the manifest: rename one, or put it below %s", path, other, name, filepath.Dir(n.definition.File))})
	}
	n.paths[name] = path
}

// all adds every file that the definition was read from or names, by what is public of it: private keys make nothing that their public halves do not tell
// apart.
func (n *namedFiles) all() error {
	d := n.definition
	for _, file := range d.Files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		n.add("extends", "", file, sum(pkcs11.WithoutPINs(data)))
	}
	if u := d.UserData; u.URLCA != "" {
		n.add("user_data.url_ca", "", u.URLCA, sum(u.URLCertificates))
	}
	if u := d.Upgrade; u.Key != "" {
		n.add("upgrade.public_key", "", u.PublicKey, sum(u.Public))
	}
	if s := d.SecureBoot; s.Signer != nil {
		n.add("secure_boot.certificate", "", s.Certificate, sum(s.Signer.Raw))
	}
	for name, data := range d.SecureBoot.Files {
		n.add("secure_boot.variables", "", filepath.Join(d.SecureBoot.Variables, name), sum(data))
	}
	if p := d.PCRPolicy; p.Public != nil {
		public, err := secureboot.PublicPEM(p.Public)
		if err != nil {
			return err
		}
		n.add("pcr_policy.public_key", "", p.PublicKey, sum(public))
	}
	for i, x := range d.Merged {
		n.add("extensions", extension.Name(d.Extensions[i]), d.Extensions[i], x.Digest)
	}
	for _, p := range d.Partitions.Extra {
		if p.Content == "" {
			continue
		}
		hash, err := manifest.Sum(p.Content)
		if err != nil {
			return err
		}
		n.add("partitions.extra", p.Name, p.Content, hash)
	}
	if len(n.problems) > 0 {
		return n.problems
	}
	return nil
}
