package lock

import (
	"errors"
	"strings"
	"testing"
)

func TestTheCommittedLockIsWholeForAmd64(t *testing.T) {
	l, err := Load("../lock.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for role, want := range map[string]struct {
		suite string
		parts int
	}{
		KernelCloud: {"trixie", 1}, KernelMetal: {"trixie", 1}, EFIStub: {"trixie", 1},
		KernelMetal + "-6.1": {"bookworm", 1}, KernelCloud + "-backports": {"trixie-backports", 3},
	} {
		parts, err := l.Parts(role, "amd64")
		if err != nil || len(parts) != want.parts {
			t.Errorf("Parts(%q, amd64) = %d packages, %v; want %d", role, len(parts), err, want.parts)
		}
		for _, p := range parts {
			if !strings.HasSuffix(p.Path, "/"+p.Name+"_"+p.Version+"_amd64.deb") {
				t.Errorf("%s: path %q is not that of %s %s", role, p.Path, p.Name, p.Version)
			}
			if p.Suite != want.suite {
				t.Errorf("%s: suite %q; want %q", role, p.Suite, want.suite)
			}
		}
	}
	if _, err := l.Parts(KernelCloud, "vax"); !errors.Is(err, ErrNotPinned) {
		t.Errorf("Parts for vax: %v; want ErrNotPinned", err)
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
