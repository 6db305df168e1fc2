// Package lock reads kernel/lock.yaml: the packages of other people that enter an image, pinned by version and SHA-256.
//
// The planner looks packages up by role and architecture, the fetcher brings exactly what is pinned.
package lock

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"

	"go.yaml.in/yaml/v4"
)

// Roles of packages. A kernel of another series has its role's name with that: "kernel-cloud-6.1".
const (
	KernelCloud = "kernel-cloud"   // for virtual machines: no USB, no AHCI
	KernelMetal = "kernel-metal"   // everything Debian builds
	KernelOwn   = "kernel-own"     // the source that ours is built of
	EFIStub     = "efi-stub"       // what becomes a unified kernel image
	BIOSLoader  = "bios-loader"    // what a BIOS boots
	NetLoader   = "network-loader" // what firmware boots over the network, to boot the rest by HTTP
)

// ErrNotPinned says that the lock has no package for a role and architecture.
var ErrNotPinned = errors.New("not pinned")

// Lock is the whole file.
type Lock struct {
	// Suite is that of the packages which name none.
	Suite    string    `yaml:"suite"`
	Packages []Package `yaml:"packages"`
}

// Package is one Debian package. Several have the same role where Debian splits what is one thing: a kernel since Linux 6.19.
type Package struct {
	Role         string `yaml:"role" json:"role"`
	Architecture string `yaml:"architecture" json:"architecture"`
	Suite        string `yaml:"suite" json:"-"`
	Name         string `yaml:"name" json:"name"`
	// Series is a pattern (see path.Match) for the names of the package's successors.
	Series  string `yaml:"series" json:"-"`
	Version string `yaml:"version" json:"version"`
	// Path is the file's path in the archive, below the mirror's URL.
	Path   string `yaml:"path" json:"path"`
	SHA256 string `yaml:"sha256" json:"sha256"`
}

var (
	hashPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)
	// What Debian's policy allows, which is also safe as an argument and as a file name.
	namePattern    = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)
	versionPattern = regexp.MustCompile(`^[0-9][A-Za-z0-9.+~:-]*$`)
)

// Load reads and checks a lock file. Errors name the file.
func Load(file string) (*Lock, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	l, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return l, nil
}

func parse(data []byte) (*Lock, error) {
	l := &Lock{}
	if err := yaml.Load(data, l, yaml.WithKnownFields()); err != nil {
		return nil, err
	}
	if !namePattern.MatchString(l.Suite) {
		return nil, fmt.Errorf("suite: %q is not a suite's name", l.Suite)
	}
	seen := map[string]bool{}
	for i := range l.Packages {
		l.Packages[i].Suite = cmp.Or(l.Packages[i].Suite, l.Suite)
		p := l.Packages[i]
		if err := p.check(); err != nil {
			return nil, fmt.Errorf("packages[%d]: %w", i, err)
		}
		key := p.Role + " " + p.Architecture + " " + p.Series
		if seen[key] {
			return nil, fmt.Errorf("packages[%d]: a second package for %s", i, key)
		}
		seen[key] = true
	}
	return l, nil
}

func (p Package) check() error {
	switch {
	case p.Role == "":
		return errors.New("role: missing")
	case p.Architecture == "":
		return errors.New("architecture: missing")
	case !namePattern.MatchString(p.Suite):
		return fmt.Errorf("suite: %q is not a suite's name", p.Suite)
	case !namePattern.MatchString(p.Name):
		return fmt.Errorf("name: %q is not a package name", p.Name)
	case !versionPattern.MatchString(p.Version):
		return fmt.Errorf("version: %q is not a version", p.Version)
	case !hashPattern.MatchString(p.SHA256):
		return fmt.Errorf("sha256: %q is not 64 hexadecimal digits", p.SHA256)
	case !filepath.IsLocal(p.Path) || path.Clean(p.Path) != p.Path || path.Ext(p.Path) != ".deb":
		return fmt.Errorf("path: %q is not the path of a .deb below a mirror", p.Path)
	}
	if ok, err := path.Match(p.Series, p.Name); err != nil || !ok {
		return fmt.Errorf("series: %q does not match the name %q", p.Series, p.Name)
	}
	return nil
}

// Parts finds the packages with a role for an architecture, in their order in the file. It fails with ErrNotPinned if there is none.
func (l *Lock) Parts(role, architecture string) ([]Package, error) {
	var parts []Package
	for _, p := range l.Packages {
		if p.Role == role && p.Architecture == architecture {
			parts = append(parts, p)
		}
	}
	if len(parts) == 0 {
		return nil, fmt.Errorf("%s for %s: %w", role, architecture, ErrNotPinned)
	}
	return parts, nil
}
