package definition

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestMistakesAreAllFoundWithFileLineAndField holds what a person reads: review the diff of the golden files.
func TestMistakesAreAllFoundWithFileLineAndField(t *testing.T) {
	for _, name := range []string{"wrong", "broken", "lacking", "orphan", "loop", "heir", "empty"} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(filepath.Join("testdata", name+".yaml"))
			if err == nil {
				t.Fatal("Load succeeded")
			}
			if problems := (Problems)(nil); !errors.As(err, &problems) {
				t.Errorf("Load = %T; want Problems", err)
			}
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(err.Error()+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, readErr := os.ReadFile(golden)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if got := err.Error() + "\n"; got != string(want) {
				t.Errorf("Load says\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestTheCommittedDefinitionsAreWhole(t *testing.T) {
	files, err := filepath.Glob("../*.yaml")
	if err != nil || len(files) < 2 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, file := range files {
		if d, err := Load(file); err != nil || d.Name+".yaml" != filepath.Base(file) {
			t.Errorf("Load(%q) = %+v, %v; want a definition of the file's name", file, d, err)
		}
	}
}

func TestExtendingContinuesListsAndReplacesTheRest(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	write("base.yaml", `name: base
arch: amd64
epoch: 2026-01-01T00:00:00Z
kernel: {flavour: cloud, modules: {boot: [a]}, arguments: [x, y]}
initramfs: {compression: none}
plugins: [mount]
outputs: [raw, iso]
`)
	file := write("over.yaml", `name: over
extends: base.yaml
kernel: {flavour: metal, series: "6.1", modules: {boot: [b, a]}, arguments: [z]}
plugins: [probe, mount]
outputs: [qcow2]
user_data: {esp_under_secure_boot: true}
state: {size: 2GiB}
`)
	d, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(append(slices.Concat(d.Plugins, d.Kernel.Modules.Boot, d.Kernel.Arguments), d.Name, d.Arch, d.Kernel.Flavour, d.Kernel.Series, string(d.Outputs[0])), " ")
	if want := "mount probe a b x y z over amd64 metal 6.1 qcow2"; got != want || len(d.Outputs) != 1 || !d.UserData.ESPUnderSecureBoot || d.State.Size != "2GiB" || d.Epoch.Year() != 2026 {
		t.Errorf("Load = %s (%+v); want %s", got, d, want)
	}
}

// What user data is authenticated by is certificates and nothing else, read from beside the definition that names it.
func TestURLCAIsAFileOfCertificates(t *testing.T) {
	ca, err := os.ReadFile("testdata/ca.pem")
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind, body string) string {
		return "-----BEGIN " + kind + "-----\n" + body + "\n-----END " + kind + "-----\n"
	}
	for name, c := range map[string]struct{ content, want string }{
		"a certificate":           {string(ca), ""},
		"two, and a remark":       {"the CA of the lab\n" + string(ca) + string(ca), ""},
		"nothing":                 {"", "holds no certificate in PEM"},
		"text":                    {"no certificate at all\n", "holds no certificate in PEM"},
		"a private key beside it": {string(ca) + block("PRIVATE KEY", "AAAA"), "holds a PRIVATE KEY: want certificates only"},
		"a broken certificate":    {string(ca) + block("CERTIFICATE", "AAAA"), "x509: "},
		"a torn certificate":      {string(ca) + string(ca[:len(ca)/2]), "broken"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for path, text := range map[string]string{
				"base.yaml":      "name: base\narch: amd64\nepoch: 2026-01-01T00:00:00Z\nkernel: {flavour: cloud}\ninitramfs: {compression: none}\nplugins: [mount]\noutputs: [raw]\nuser_data:\n  url_ca: keys/ca.pem\n",
				"mine/over.yaml": "name: over\nextends: ../base.yaml\n",
				"keys/ca.pem":    c.content,
			} {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			d, err := Load(filepath.Join(dir, "mine/over.yaml"))
			if c.want == "" {
				if err != nil || string(d.UserData.URLCertificates) != c.content || d.UserData.URLCA != filepath.Join(dir, "keys/ca.pem") {
					t.Errorf("Load = %+v, %v; want the file's content", d, err)
				}
				return
			}
			if where := "base.yaml:9: user_data.url_ca: "; err == nil || !strings.Contains(err.Error(), where) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Load = %v; want %s… %s", err, where, c.want)
			}
		})
	}
}

func TestNearest(t *testing.T) {
	for got, want := range map[string]string{"clowd": "cloud", "emtal": "metal", "CLOUD": "cloud", "kubernetes": ""} {
		if near := nearest(got, Flavours); near != want {
			t.Errorf("nearest(%q) = %q; want %q", got, near, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"wrong", "broken", "lacking"} {
		data, err := os.ReadFile(filepath.Join("testdata", name+".yaml"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("a: &x [*x]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _, problems := parse("f", data)
		for _, p := range problems {
			if p.Line < 1 {
				t.Errorf("%v: line %d", p, p.Line)
			}
		}
	})
}

func TestSizeOfTheState(t *testing.T) {
	for size, want := range map[Size]struct {
		mib int64
		ok  bool
	}{
		"64MiB": {64, true}, "10GiB": {10 << 10, true}, "2TiB": {2 << 20, true},
		"10X": {0, false}, "GiB": {0, false}, "-1GiB": {-1 << 10, false}, "0MiB": {0, false}, "1.5GiB": {0, false}, "99999999999TiB": {0, false},
	} {
		if got, ok := size.MiB(); ok != want.ok || ok && got != want.mib {
			t.Errorf("%q: %d MiB, %v; want %d, %v", size, got, ok, want.mib, want.ok)
		}
	}
	file := filepath.Join(t.TempDir(), "small.yaml")
	if err := os.WriteFile(file, []byte("name: small\nstate:\n  size: 63MiB\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file); err == nil || err.Error() != file+":3: state.size: 63MiB is too small: a state takes 64MiB at least" {
		t.Errorf("63MiB: %v", err)
	}
}
