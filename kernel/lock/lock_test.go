package lock

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestTheCommittedLockIsWhole(t *testing.T) {
	l, err := Load("../lock.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		role, architecture, suite string
		parts                     int
	}{
		{KernelCloud, "amd64", "trixie", 1}, {KernelMetal, "amd64", "trixie", 1}, {EFIStub, "amd64", "trixie", 1}, {BIOSLoader, "amd64", "trixie", 1},
		{KernelMetal + "-6.1", "amd64", "bookworm", 1}, {KernelCloud + "-backports", "amd64", "trixie-backports", 3},
		{KernelCloud, "arm64", "trixie", 1}, {KernelMetal, "arm64", "trixie", 1}, {EFIStub, "arm64", "trixie", 1},
	} {
		parts, err := l.Parts(want.role, want.architecture)
		if err != nil || len(parts) != want.parts {
			t.Errorf("Parts(%q, %s) = %d packages, %v; want %d", want.role, want.architecture, len(parts), err, want.parts)
		}
		for _, p := range parts {
			if !strings.HasSuffix(p.Path, "/"+p.Name+"_"+p.Version+"_"+want.architecture+".deb") {
				t.Errorf("%s: path %q is not that of %s %s for %s", want.role, p.Path, p.Name, p.Version, want.architecture)
			}
			if p.Suite != want.suite {
				t.Errorf("%s: suite %q; want %q", want.role, p.Suite, want.suite)
			}
		}
	}
	for _, architecture := range []string{"amd64", "arm64"} {
		if parts, err := l.Parts(NetLoader, architecture); err != nil || len(parts) != 1 || !strings.HasSuffix(parts[0].Path, "_all.deb") {
			t.Errorf("Parts(%q, %s) = %+v, %v; want one package, for all architectures", NetLoader, architecture, parts, err)
		}
	}
	for _, missing := range []struct{ role, architecture string }{{KernelCloud, "vax"}, {BIOSLoader, "arm64"}} {
		if _, err := l.Parts(missing.role, missing.architecture); !errors.Is(err, ErrNotPinned) {
			t.Errorf("Parts(%q, %s): %v; want ErrNotPinned", missing.role, missing.architecture, err)
		}
	}
}

// What two architectures have is of one version: a fault of a kernel is looked for once.
func TestArchitecturesHaveTheSameVersions(t *testing.T) {
	l, err := Load("../lock.yaml")
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, p := range l.Packages {
		others, err := l.Parts(p.Role, map[string]string{"amd64": "arm64", "arm64": "amd64"}[p.Architecture])
		if errors.Is(err, ErrNotPinned) {
			continue
		}
		compared++
		if !slices.ContainsFunc(others, func(o Package) bool { return o.Version == p.Version }) {
			t.Errorf("%s for %s is %s; the other architecture's is not", p.Role, p.Architecture, p.Version)
		}
	}
	if compared == 0 {
		t.Error("no role has packages for two architectures")
	}
}

const good = `suite: trixie
packages:
  - role: efi-stub
    architecture: amd64
    name: systemd-boot-efi
    series: systemd-boot-efi
    version: 257.13-1~deb13u1
    path: pool/main/s/systemd/systemd-boot-efi_257.13-1_amd64.deb
    sha256: 390ecdcef9bbb753f51bb6d8f696bdae2f1dbedde7239c49ccb2512f137a8933
`

func TestParseRefuses(t *testing.T) {
	if _, err := parse([]byte(good)); err != nil {
		t.Fatalf("parse(good) = %v", err)
	}
	second := good[strings.Index(good, "  - role"):]
	for name, test := range map[string]struct{ data, want string }{
		"a short hash":           {strings.Replace(good, "390e", "", 1), "sha256"},
		"an unknown field":       {strings.Replace(good, "suite: trixie", "suite: trixie\nsuit: x", 1), "suit"},
		"a foreign series":       {strings.Replace(good, "series: systemd-boot-efi", "series: linux-*", 1), "series"},
		"a path that climbs":     {strings.Replace(good, "pool/", "../", 1), "path"},
		"a name with an option":  {strings.Replace(good, "name: systemd-boot-efi", "name: -oDir=/", 1), "name"},
		"a path to no package":   {strings.Replace(good, "_amd64.deb", "_amd64.txt", 1), "path"},
		"a suite with an option": {strings.Replace(good, "    name:", "    suite: -oDir=/\n    name:", 1), "suite"},
		"two for the same thing": {good + second, "second package"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse([]byte(test.data))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("parse = %v; want an error about %q", err, test.want)
			}
		})
	}
}
