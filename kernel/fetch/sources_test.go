package fetch

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const stanzas = `# a comment
Types: deb
# another
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----

Enabled: no
Types: deb
URIs: http://off.example
Suites: bookworm
Components: main
`

func TestSourcesOfTheSuiteAreDerivedFromTheMachinesOwn(t *testing.T) {
	for name, test := range map[string]struct{ suite, file, content, want, uri string }{
		"deb822": {"trixie", "sources.list.d/debian.sources", stanzas, `Types: deb
URIs: http://mirror.example/debian
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian
Suites: trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: trixie-security
Components: main
Signed-By: 
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----

`, "http://mirror.example/debian"},
		"backports": {"trixie-backports", "sources.list.d/debian.sources", stanzas, `Types: deb
URIs: http://mirror.example/debian
Suites: trixie-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

`, "http://mirror.example/debian"},
		"one line": {"trixie", "sources.list", "deb cdrom:[disc]/ bookworm contrib\ndeb-src http://a bookworm main\ndeb [arch=amd64 signed-by=/k.gpg] http://b/debian bookworm main # mine\n", `Types: deb
URIs: http://b/debian
Suites: trixie
Components: main
Signed-By: /k.gpg

`, "http://b/debian"},
		"a trusted mirror": {"trixie", "sources.list.d/own.list", "deb [ trusted=yes ] file:/srv bookworm main\n", `Types: deb
URIs: file:/srv
Suites: trixie
Components: main
Trusted: yes

`, "file:/srv"},
	} {
		t.Run(name, func(t *testing.T) {
			etc := t.TempDir()
			writeFile(t, filepath.Join(etc, test.file), test.content)
			got, uri, err := derive(entries(etc), "bookworm", test.suite)
			if err != nil || uri != test.uri || string(got) != test.want {
				t.Errorf("derive = %s, %q, %v; want %s, %q", got, uri, err, test.want, test.uri)
			}
		})
	}
}

func TestDeriveRefusesAMachineWithoutADebianEntry(t *testing.T) {
	all := parseStanzas([]byte(stanzas))
	for _, own := range []string{"", "noble"} {
		if _, _, err := derive(all, own, "trixie"); !errors.Is(err, ErrNoSource) {
			t.Errorf("derive for %q: %v; want ErrNoSource", own, err)
		}
	}
}

func TestCodenameIsOnlyThatOfADebian(t *testing.T) {
	for content, want := range map[string]string{
		"ID=debian\nVERSION_CODENAME=trixie\n":       "trixie",
		"VERSION_CODENAME=\"bookworm\"\nID='debian'": "bookworm",
		"ID=ubuntu\nVERSION_CODENAME=noble\n":        "",
	} {
		file := filepath.Join(t.TempDir(), "os-release")
		writeFile(t, file, content)
		if got := codename(file); got != want {
			t.Errorf("codename of %q = %q; want %q", content, got, want)
		}
	}
	if got := codename("/nonexistent"); got != "" {
		t.Errorf("codename of no file = %q", got)
	}
}

func FuzzSources(f *testing.F) {
	f.Add([]byte(stanzas))
	f.Add([]byte("deb [signed-by=/k] http://b/debian bookworm main"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, e := range append(parseStanzas(data), parseLines(data)...) {
			if e.uri == "" || strings.ContainsAny(e.uri, " \n") {
				t.Errorf("an entry with the URI %q", e.uri)
			}
		}
	})
}

func writeFile(t *testing.T, file, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
