package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cosi-os/cosi/kernel/lock"
)

// apt runs the machine's apt with a state of its own: its sources are those of another suite, its lists and caches lie in our cache. It
// verifies the archive's signature with the keys that the machine trusts.
type apt struct {
	dir   string
	uri   string
	suite string
}

// apt prepares the private state for a suite. It fails with ErrNoSource if there is no apt or no Debian entry, and says what to do instead.
func (f *Fetcher) apt(suite string) (source, error) {
	const advice = "name a mirror, as in COSI_MIRROR=https://mirror.example/debian (its files are checked by their pinned SHA-256)"
	if _, err := exec.LookPath("apt-get"); err != nil {
		return nil, fmt.Errorf("apt-get is not here: %w; %s", ErrNoSource, advice)
	}
	configuration := filepath.Join(f.Etc, "apt")
	sources, uri, err := derive(entries(configuration), codename(filepath.Join(f.Etc, "os-release")), suite)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; %s", configuration, err, advice)
	}
	a := &apt{dir: filepath.Join(f.Cache, "apt", suite), uri: uri, suite: suite}
	for _, dir := range []string{"state", "lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.dir, dir), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(a.dir, "cosi.sources"), sources, 0o644); err != nil {
		return nil, err
	}
	return a, os.WriteFile(filepath.Join(a.dir, "status"), nil, 0o644)
}

func (a *apt) String() string { return fmt.Sprintf("%s (%s, by apt)", a.uri, a.suite) }

// download asks with the lists that are there first, and fetches new ones only if that is in vain: most builds need no lists at all.
func (a *apt) download(ctx context.Context, p lock.Package, dir string) (string, error) {
	want := p.Name + ":" + p.Architecture + "=" + p.Version
	if a.get(ctx, p, dir, "download", want) != nil {
		if err := a.get(ctx, p, dir, "update"); err != nil {
			return "", err
		}
		if err := a.get(ctx, p, dir, "download", want); err != nil {
			return "", err
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(files) != 1 {
		return "", fmt.Errorf("apt-get download %s left %q", want, files)
	}
	return files[0], nil
}

func (a *apt) newest(ctx context.Context, p lock.Package, dir string) (lock.Package, string, error) {
	prefix, _, _ := strings.Cut(p.Series, "*")
	names, err := a.run(ctx, p, dir, "apt-cache", "pkgnames", prefix)
	if err != nil {
		return lock.Package{}, "", err
	}
	show := []string{"show", "--no-all-versions"}
	for _, name := range strings.Fields(string(names)) {
		if ok, _ := path.Match(p.Series, name); ok {
			show = append(show, name+":"+p.Architecture)
		}
	}
	if len(show) == 2 {
		return lock.Package{}, "", fmt.Errorf("no package is called %s: %w", p.Series, ErrGone)
	}
	records, err := a.run(ctx, p, dir, "apt-cache", show...)
	if err != nil {
		return lock.Package{}, "", err
	}
	candidates := parseRecords(records)
	if len(candidates) == 0 {
		return lock.Package{}, "", fmt.Errorf("no version of %s: %w", p.Series, ErrGone)
	}
	next := slices.MaxFunc(candidates, func(x, y lock.Package) int { return compareVersions(x.Version, y.Version) })
	next.Role, next.Architecture, next.Suite, next.Series = p.Role, p.Architecture, p.Suite, p.Series
	file, err := a.download(ctx, next, dir)
	return next, file, err
}

// parseRecords reads what apt-cache show prints.
func parseRecords(data []byte) []lock.Package {
	var all []lock.Package
	for record := range strings.SplitSeq(string(data), "\n\n") {
		p := lock.Package{}
		for line := range strings.Lines(record) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			switch name {
			case "Package":
				p.Name = value
			case "Version":
				p.Version = value
			case "Filename":
				p.Path = value
			}
		}
		if p.Name != "" && p.Version != "" {
			all = append(all, p)
		}
	}
	return all
}

func (a *apt) get(ctx context.Context, p lock.Package, dir string, arguments ...string) error {
	_, err := a.run(ctx, p, dir, "apt-get", arguments...)
	return err
}

// run starts one of apt's commands in dir. Options override whatever the machine's configuration says, except for its proxies. It fails
// with ErrGone if apt says that there is no such package or version.
func (a *apt) run(ctx context.Context, p lock.Package, dir, command string, arguments ...string) ([]byte, error) {
	options := []string{"-qq"}
	for _, option := range [][2]string{
		{"Dir::State", filepath.Join(a.dir, "state")},
		{"Dir::State::status", filepath.Join(a.dir, "status")},
		{"Dir::State::lists", filepath.Join(a.dir, "lists")},
		{"Dir::Cache", filepath.Join(a.dir, "cache")},
		{"Dir::Etc::sourcelist", filepath.Join(a.dir, "cosi.sources")},
		{"Dir::Etc::sourceparts", "/dev/null"},
		{"Dir::Etc::preferences", "/dev/null"},
		{"Dir::Etc::preferencesparts", "/dev/null"},
		{"APT::Architecture", p.Architecture},
		{"APT::Architectures::", p.Architecture},
		{"APT::Default-Release", ""},
		// Dropping to the user _apt would keep root from writing into the cache of a user.
		{"APT::Sandbox::User", ""},
		{"Acquire::Languages", "none"},
		{"Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false"},
		{"Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled", "false"},
		{"Acquire::Retries", "3"},
		// Otherwise "update" succeeds where nobody could be reached, and a package that no list names would seem to be gone. apt 2.2.
		{"APT::Update::Error-Mode", "any"},
	} {
		options = append(options, "-o", option[0]+"="+option[1])
	}
	cmd := exec.CommandContext(ctx, command, append(options, arguments...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	stdout, stderr := &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := cmd.Run()
	if err == nil {
		return stdout.Bytes(), nil
	}
	said := strings.TrimSpace(stderr.String())
	err = fmt.Errorf("%s %s: %w\n%s", command, arguments[0], err, said)
	if strings.Contains(said, "Unable to locate package") || strings.Contains(said, "was not found") || strings.Contains(said, "No packages found") {
		err = errors.Join(err, ErrGone)
	}
	return nil, err
}
