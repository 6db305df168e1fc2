package declaration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"unknown field", `{"name": "a", "capabilites": []}`, "capabilites"},
		{"name", `{"name": "A"}`, "not a plugin name"},
		{"capability", `{"name": "a", "capabilities": ["SYS_ADMIN"]}`, "capabilities[0]"},
		{"seccomp class", `{"name": "a", "seccomp": ["mount", "all"]}`, "seccomp[1]"},
		{"relative path", `{"name": "a", "paths": [{"path": "etc"}]}`, "paths[0]"},
		{"path with dots", `{"name": "a", "paths": [{"path": "/etc/../proc"}]}`, "paths[0]"},
		{"path to write and to list", `{"name": "a", "paths": [{"path": "/a"}, {"path": "/b", "write": true, "list": true}]}`, "paths[1]"},
		{"device elsewhere", `{"name": "a", "devices": [{"path": "/etc/passwd"}]}`, "devices[0]"},
		{"device by dots", `{"name": "a", "devices": [{"path": "/dev/../etc/passwd"}]}`, "devices[0]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Parse([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("Parse = %v; want an error with %q", err, c.want)
			}
		})
	}
}

func TestRights(t *testing.T) {
	d, err := Parse([]byte(`{"name": "a", "inputs": [{"type": "X", "finalizers": true}, {"type": "Y"}], "outputs": ["Z"]}`))
	if err != nil {
		t.Fatal(err)
	}
	if !d.Reads("X") || !d.Reads("Y") || d.Reads("Z") || !d.Finalizes("X") || d.Finalizes("Y") || !d.Writes("Z") || d.Writes("X") {
		t.Errorf("rights of %+v are wrong", d)
	}
}

func TestTwoPluginsCannotTakeOneKind(t *testing.T) {
	desired := func(observed string) string { return map[string]string{"MountStatuses": "Mounts"}[observed] }
	one := &Declaration{Name: "mount", Outputs: []string{"MountStatuses", "Events"}}
	if err := CheckClaims([]*Declaration{one, {Name: "other", Outputs: []string{"Events"}}}, desired); err != nil {
		t.Errorf("events of two plugins: %v", err)
	}
	err := CheckClaims([]*Declaration{one, {Name: "fuse", Outputs: []string{"MountStatuses"}}}, desired)
	if err == nil || err.Error() != "plugins mount and fuse both take Mounts (they write MountStatuses): an image has one of them" {
		t.Errorf("two of one kind: %v", err)
	}
}

func TestLoadNamesTheBrokenFile(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "b.json", `{"name": "b"}`)
	write(t, dir, "a.json", `{"name": "a"}`)
	write(t, dir, "a.binpb", "definitions")
	all, err := Load(dir)
	if err != nil || len(all) != 2 || all[0].Name != "a" {
		t.Fatalf("Load = %v, %v; want a and b", all, err)
	}
	for _, d := range all {
		if err := d.LoadDefinitions(dir); err != nil {
			t.Fatal(err)
		}
	}
	if string(all[0].Definitions) != "definitions" || all[1].Definitions != nil {
		t.Errorf("definitions = %q, %q; want those of a alone", all[0].Definitions, all[1].Definitions)
	}
	write(t, dir, "c.json", `{`)
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "c.json") {
		t.Errorf("Load = %v; want an error that names c.json", err)
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"name": "a", "devices": [{"path": "/dev/vd*"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if d, err := Parse(data); err == nil && d.Name == "" {
			t.Fatal("a declaration without a name was taken")
		}
	})
}
