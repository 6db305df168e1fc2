package book

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// write writes files and returns the path of the first.
func write(t *testing.T, dir string, files ...string) string {
	t.Helper()
	for i := 0; i < len(files); i += 2 {
		if err := os.WriteFile(filepath.Join(dir, files[i]), []byte(files[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, files[0])
}

const good = `default: {image: base, arguments: [quiet]}
machines:
  - {mac: 52-54-00-AA-BB-01, user_data: a.yaml}
  - {mac: "52:54:00:aa:bb:02", uuid: 11111111-2222-3333-4444-555555555555, image: /srv/metal}
  - {uuid: 11111111-2222-3333-4444-555555555555, image: "sha256:abc"}
  - {serial: S 1, arguments: [console=ttyS1]}
`

func TestAMachineFindsItsEntry(t *testing.T) {
	dir := t.TempDir()
	b, err := Open(write(t, dir, "machines.yaml", good, "a.yaml", "x"), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	const id = "11111111-2222-3333-4444-555555555555"
	base := filepath.Join(dir, "base")
	for _, tc := range []struct {
		machine Machine
		image   string
		rest    string
	}{
		{Machine{MAC: "52:54:00:aa:bb:01"}, base, filepath.Join(dir, "a.yaml") + " []"},
		{Machine{MAC: "52:54:00:aa:bb:02"}, base, " [quiet]"}, // its UUID is another
		{Machine{MAC: "52:54:00:aa:bb:02", UUIDs: []string{"x", id}}, "/srv/metal", " []"},
		{Machine{MAC: "52:54:00:aa:bb:03", UUIDs: []string{id}}, "sha256:abc", " []"},
		{Machine{Serial: "S 1"}, base, " [console=ttyS1]"},
		{Machine{Serial: "S 2"}, base, " [quiet]"},
	} {
		e, ok := b.Find(tc.machine)
		if rest := fmt.Sprint(e.UserData, " ", e.Arguments); !ok || e.Image != tc.image || rest != tc.rest {
			t.Errorf("Find(%+v) = %+v, %v; want %s, %s", tc.machine, e, ok, tc.image, tc.rest)
		}
	}
}

// A machine that is known by its serial number alone gets iPXE, which tells it, before.
func TestAMachineThatMayBeKnownByItsSerialNumber(t *testing.T) {
	dir := t.TempDir()
	b, err := Open(write(t, dir, "machines.yaml", "machines:\n  - {mac: '52:54:00:aa:bb:01', serial: a, image: one}\n  - {serial: b, image: two}\n"), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	for mac, want := range map[string]string{"52:54:00:aa:bb:01": "one", "52:54:00:aa:bb:02": "two"} {
		if e, ok := b.Find(Machine{MAC: mac}); ok {
			t.Errorf("Find(%s) = %+v", mac, e)
		}
		if e, ok := b.Loader(Machine{MAC: mac}); !ok || filepath.Base(e.Image) != want {
			t.Errorf("Loader(%s) = %+v, %v; want %s", mac, e, ok, want)
		}
	}
}

func TestAChangeCountsAndAMistakeDoesNot(t *testing.T) {
	dir, said := t.TempDir(), ""
	file := write(t, dir, "machines.yaml", "machines: [{serial: a, image: one}]\n")
	b, err := Open(file, func(format string, args ...any) { said += fmt.Sprintf(format, args...) })
	if err != nil {
		t.Fatal(err)
	}
	finds := func(want string) {
		t.Helper()
		if e, ok := b.Find(Machine{Serial: "a"}); !ok || filepath.Base(e.Image) != want {
			t.Errorf("Find = %+v, %v; want %s", e, ok, want)
		}
	}
	finds("one")
	if e, ok := b.Find(Machine{Serial: "b"}); ok {
		t.Errorf("another machine boots %+v", e)
	}
	for i, step := range []struct{ text, want, said string }{
		{"machines: [{serial: a, image: two}]\n", "two", ""},
		{"machines: [{serial: a, image: three, colour: red}]\n", "two", "machines.yaml"},
		{"machines: [{serial: a, image: four}]\n", "four", ""},
	} {
		write(t, dir, "machines.yaml", step.text)
		later := time.Now().Add(time.Duration(i+1) * time.Minute)
		if err := os.Chtimes(file, later, later); err != nil {
			t.Fatal(err)
		}
		said = ""
		finds(step.want)
		finds(step.want)
		if step.said == "" && said != "" || strings.Count(said, "what it said before counts") != strings.Count(step.said, "machines.yaml") {
			t.Errorf("of %q it said %q", step.text, said)
		}
	}
}

func TestEveryMistakeIsNamedWithItsLine(t *testing.T) {
	dir := t.TempDir()
	file := write(t, dir, "machines.yaml", `default: {mac: "52:54:00:aa:bb:01"}
machines:
  - mac: 52:54:00
    arguments: ["two words", "${mac}"]
  - uuid: nonsense
    image: a
  - {image: a, user_data: none.yaml}
  - {serial: s, image: a}
  - {serial: s, image: b, user_data: .}
  - {serial: s, mac: "52:54:00:aa:bb:02", imag: c}
  - {uuid: 00000000-0000-0000-0000-000000000000, image: a}
  - {uuid: FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF, image: a}
`)
	_, err := Open(file, t.Logf)
	if err == nil {
		t.Fatal("Open succeeded")
	}
	for _, want := range []string{
		":1: default: is what all others boot", ":3: machines[0].mac: ", ":4: machines[0].arguments[0]: ", ":4: machines[0].arguments[1]: ", ":3: machines[0]: has no image",
		":5: machines[1].uuid: \"nonsense\"", ":7: machines[2].user_data: stat ", ":7: machines[2]: wants a mac", ":9: machines[4]: is a machine of machines[3], which comes first", ":9: machines[4].user_data: ",
		":10: machines[5]: is a machine of machines[3], which comes first", ":10: machines[5].imag: \"imag\" is not a field; did you mean \"image\"?",
		":11: machines[6].uuid: \"00000000-0000-0000-0000-000000000000\" is what", ":12: machines[7].uuid: \"FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF\" is what",
	} {
		if !strings.Contains(err.Error(), file+want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	if _, err := Open(filepath.Join(dir, "none"), t.Logf); err == nil {
		t.Error("a file that is not there is taken")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("machines: [&a {serial: x, image: i}, *a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parse("machines.yaml", data)
		if err != nil {
			return
		}
		for _, e := range c.Machines {
			if e.MAC == "" && e.UUID == "" && e.Serial == "" || strings.Contains(strings.Join(e.Arguments, " "), "${") {
				t.Errorf("of %q: %+v", data, e)
			}
		}
	})
}
