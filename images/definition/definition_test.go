package definition

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestMistakesAreAllFoundWithFileLineAndField holds what a person reads: review the diff of the golden files.
func TestMistakesAreAllFoundWithFileLineAndField(t *testing.T) {
	for _, name := range []string{"wrong", "broken", "lacking", "orphan", "loop", "heir", "empty", "thief", "twice", "extended", "vmware"} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(filepath.Join("testdata", name+".yaml"), "")
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
		d, err := Load(file, "")
		if err != nil {
			t.Error(err)
			continue
		}
		want := d.Name + ".yaml"
		switch {
		case d.Arch == "arm64" && d.Name == "base":
			want = "arm64.yaml"
		case d.Arch == "arm64":
			want = d.Name + "-arm64.yaml"
		}
		if filepath.Base(file) != want {
			t.Errorf("%s is %q for %s; want the file to be %s", file, d.Name, d.Arch, want)
		}
	}
}

// write makes files and returns the path of the first.
func write(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		if err := os.WriteFile(filepath.Join(dir, files[i]), []byte(files[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, files[0])
}

const base = `name: base
arch: amd64
epoch: 2026-01-01T00:00:00Z
kernel: {flavour: cloud, series: backports, modules: {boot: [a, b], ship: [c]}, arguments: [x, y]}
initramfs: {compression: none}
plugins: [mount, power]
resources:
  - {metadata: {type: Links.network.cosi.dev, id: one}, spec: {mtu: 1}}
  - {metadata: {type: Links.network.cosi.dev, id: two}, spec: {mtu: 2}}
  - {metadata: {type: Links.network.cosi.dev, id: three}, spec: {mtu: 3}}
user_data: {disks_under_secure_boot: true}
platform: gcp
state: {size: 1GiB}
partitions: {esp: 512MiB, root: 1GiB, extra: [{name: logs, size: 1GiB}, {name: data, size: 2GiB}]}
outputs: [raw, iso]
`

// summary is all that the tests of merging look at.
func summary(d *Definition) string {
	all := slices.Concat(d.Plugins, d.SeparatePlugins, d.Kernel.Modules.Boot, d.Kernel.Modules.Ship, d.Kernel.Arguments, names(d.Resources, ResourceName), names(d.Partitions.Extra, partitionName))
	for _, output := range d.Outputs {
		all = append(all, string(output))
	}
	return strings.Join(append(all, d.Name, d.Arch, d.Kernel.Flavour, d.Kernel.Series, string(d.State.Size), string(d.Partitions.ESP), string(d.Partitions.Root), d.Platform, fmt.Sprint(d.UserData.DisksUnderSecureBoot)), " ")
}

func TestExtendingContinuesListsAndReplacesTheRest(t *testing.T) {
	d, err := Load(write(t, "over.yaml", `name: over
extends: base.yaml
kernel: {flavour: metal, series: "6.1", modules: {boot: [d, a]}, arguments: [z]}
plugins: [probe, mount]
resources:
  - {metadata: {type: Links.network.cosi.dev, id: two}, spec: {mtu: 22}}
  - {metadata: {type: Links.network.cosi.dev, id: four}, spec: {mtu: 4}}
outputs: [qcow2]
platform: aws
state: {size: 2GiB}
partitions: {esp: 128MiB, extra: [{name: more, size: 1MiB}, {name: data, size: 3GiB}]}
`, "base.yaml", base), "")
	if err != nil {
		t.Fatal(err)
	}
	const links = "Links.network.cosi.dev/one Links.network.cosi.dev/two Links.network.cosi.dev/three Links.network.cosi.dev/four"
	if got, want := summary(d), "mount power probe a b d c x y z "+links+" logs data more qcow2 over amd64 metal 6.1 2GiB 128MiB 1GiB aws true"; got != want || d.Epoch.Year() != 2026 || d.Partitions.Extra[1].Size != "3GiB" {
		t.Errorf("Load = %s (%+v); want %s", got, d, want)
	}
	resource := struct{ Spec struct{ MTU int } }{}
	if err := d.Resources[1].Decode(&resource); err != nil || resource.Spec.MTU != 22 {
		t.Errorf("the second resource is %+v, %v; want the one that replaces it", resource, err)
	}
}

// What is taken away is gone, in whichever list of modules it was; what the definition adds itself comes after that, so that it can replace.
func TestADefinitionTakesAwayWhatItExtends(t *testing.T) {
	d, err := Load(write(t, "over.yaml", `name: over
extends: base.yaml
without:
  plugins: [power]
  kernel: {modules: [a, c], arguments: [x]}
  resources: [Links.network.cosi.dev/one, Links.network.cosi.dev/three]
  partitions: [data]
separate_plugins: [power]
kernel: {series: "", arguments: [x]}
user_data: {disks_under_secure_boot: false}
state: {size: ""}
partitions: {esp: ""}
`, "base.yaml", base), "")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := summary(d), "mount power b y x Links.network.cosi.dev/two logs raw iso over amd64 cloud    1GiB gcp false"; got != want {
		t.Errorf("Load = %s; want %s", got, want)
	}
}

// Whoever reads a plan sees which line of which file it was.
func TestEveryItemHasAnOrigin(t *testing.T) {
	file := write(t, "over.yaml", `name: over
extends: base.yaml
without: {plugins: [power], kernel: {arguments: [y]}}
kernel:
  arguments: [x, y, z]
plugins:
  - probe
resources:
  - {metadata: {type: Links.network.cosi.dev, id: two}}
outputs: [raw]
`, "base.yaml", base)
	d, err := Load(file, "")
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[[2]string]string{
		{"name", ""}: "over.yaml:1", {"arch", ""}: "base.yaml:2", {"plugins", "mount"}: "base.yaml:6", {"plugins", "probe"}: "over.yaml:7",
		{"kernel.arguments", "x"}: "base.yaml:4", {"kernel.arguments", "y"}: "over.yaml:5", {"kernel.modules.ship", "c"}: "base.yaml:4",
		{"outputs", "raw"}: "over.yaml:10", {"resources", "Links.network.cosi.dev/one"}: "base.yaml:8", {"resources", "Links.network.cosi.dev/two"}: "over.yaml:9",
		{"kernel.flavour", ""}: "base.yaml:4",
	} {
		if got := strings.TrimPrefix(d.Origin(key[0], key[1]).String(), filepath.Dir(file)+"/"); got != want {
			t.Errorf("%q is of %s; want %s", key, got, want)
		}
	}
	if o, there := d.origins[item("plugins", "power")]; there {
		t.Errorf("power, which was taken away, is of %v", o)
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
			d, err := Load(filepath.Join(dir, "mine/over.yaml"), "")
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

func TestAnUpgradeKeyThatIsNone(t *testing.T) {
	dir := t.TempDir()
	for path, text := range map[string]string{
		"d.yaml":  "name: d\nupgrade:\n  public_key: key.pem\n  floor: 1.x\n",
		"key.pem": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Load(filepath.Join(dir, "d.yaml"), "")
	for _, want := range []string{"d.yaml:3: upgrade.public_key: ", "key.pem: ", `d.yaml:4: upgrade.floor: "1.x" is not a version (try 1.2.0)`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Load = %v; want %q", err, want)
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
	f.Add([]byte("extends: b\nwithout: {plugins: [mount], resources: [Links.network.cosi.dev/two]}\nresources: [{metadata: {type: a, id: b}}]"))
	whole, _, problems := parse("base.yaml", []byte(base))
	if len(problems) > 0 {
		f.Fatal(problems)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, lines, problems := parse("f", data)
		if len(problems) == 0 {
			d, problems = merge(whole, d, "f", lines)
			for _, l := range d.lists() {
				for _, value := range l.values {
					if o := d.Origin(l.field, value); len(problems) == 0 && (o.File == "" || o.Line < 1) {
						t.Errorf("nobody asked for %s %q", l.field, value)
					}
				}
			}
		}
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
	if _, err := Load(file, ""); err == nil || err.Error() != file+":3: state.size: 63MiB is too small: a state takes 64MiB at least" {
		t.Errorf("63MiB: %v", err)
	}
}

func TestAPartitionHoldsItsContent(t *testing.T) {
	file := write(t, "one.yaml", "extends: base.yaml\npartitions:\n  extra:\n    - {name: seed, size: 1MiB, content: seed.img}\n", "base.yaml", base)
	image := filepath.Join(filepath.Dir(file), "seed.img")
	for size, want := range map[int64]string{1 << 20: "", 1<<20 + 1: file + ":4: partitions.extra[0].content: " + image + " has 1048577 bytes: they do not fit into 1MiB"} {
		if err := os.WriteFile(image, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := Load(file, "")
		if (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%d bytes: %v; want %q", size, err, want)
		} else if err == nil && d.Partitions.Extra[2].Content != image {
			t.Errorf("the content is %q; want %q", d.Partitions.Extra[2].Content, image)
		}
	}
}

func TestADefinitionMayExtendOneByItsWholePath(t *testing.T) {
	whole, err := filepath.Abs("testdata/whole.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if d, err := Load(write(t, "one.yaml", "name: heir\nextends: "+whole+"\n"), ""); err != nil || d.Name != "heir" || d.Arch == "" {
		t.Errorf("Load = %+v, %v; want what %s says", d, err, whole)
	}
}

// A definition of somebody's own lies in a directory of his, and extends those of a tree by their names, if he has none of the name beside it.
func TestADefinitionOfOnesOwnExtendsTheTrees(t *testing.T) {
	images := filepath.Dir(write(t, "base.yaml", base, "metal.yaml", "name: metal\nextends: base.yaml\nkernel: {arguments: [theirs]}\n"))
	own := filepath.Dir(write(t, "site.yaml", "name: site\nextends: base.yaml\nkernel: {arguments: [site]}\n", "metal.yaml", "name: own\nextends: metal.yaml\nkernel: {arguments: [own]}\n"))
	for text, want := range map[string]string{
		"extends: base.yaml":  "x y mine",
		"extends: site.yaml":  "x y site mine",
		"extends: metal.yaml": "x y theirs own mine",
	} {
		file := filepath.Join(own, "mine.yaml")
		if err := os.WriteFile(file, []byte("name: mine\n"+text+"\nkernel: {arguments: [mine]}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		d, err := Load(file, images)
		if err != nil || strings.Join(d.Kernel.Arguments, " ") != want {
			t.Errorf("with %s: %+v, %v; want the arguments %s", text, d, err, want)
		}
	}
	for text, want := range map[string]string{
		"extends: bse.yaml":       `bad.yaml:2: extends: "bse.yaml" is neither beside it nor in ` + images + `; did you mean "base.yaml"?`,
		"extends: stie.yaml":      `bad.yaml:2: extends: "stie.yaml" is neither beside it nor in ` + images + `; did you mean "site.yaml"?`,
		"extends: gone/base.yaml": "bad.yaml:2: extends: open " + own + "/gone/base.yaml: no such file or directory",
		"extends: bad.yaml":       "bad.yaml:2: extends: " + own + "/bad.yaml extends itself, by way of " + own + "/bad.yaml",
	} {
		file := filepath.Join(own, "bad.yaml")
		if err := os.WriteFile(file, []byte("name: bad\n"+text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(file, images); err == nil || err.Error() != own+"/"+want {
			t.Errorf("with %s: %v; want %s", text, err, want)
		}
	}
	for file, text := range map[string]string{"base.yaml": "name: base\nextends: metal.yaml\n", "metal.yaml": "name: metal\nextends: base.yaml\n"} {
		if err := os.WriteFile(filepath.Join(images, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Load(filepath.Join(own, "mine.yaml"), images); err == nil || !strings.Contains(err.Error(), "extends itself") {
		t.Errorf("in a circle: %v", err)
	}
}
