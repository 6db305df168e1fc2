package document

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/api/kinds/builtin"
)

const inYAML = `# two resources
metadata:
  type: mount
  id: data
  labels: {tier: db}
spec:
  source: /dev/vdb
  target: /var/data
  fstype: ext4
  flags: [nodev]
---
metadata: {type: Hostnames, id: x}
spec: {}
---
`

const inJSON = `[
	{"metadata": {"type": "mount", "id": "data", "labels": {"tier": "db"}},
	 "spec": {"source": "/dev/vdb", "target": "\/var\/data", "fstype": "ext4", "flags": ["nodev"]}},
	{"metadata": {"type": "Hostnames", "id": "x"}, "spec": {}}
]`

const inTOML = `[[resources]]
metadata = { type = "mount", id = "data", labels.tier = "db" }
[resources.spec]
source = "/dev/vdb"
target = '/var/data'
fstype = """ext4"""
flags = [
  "nodev", # a comment
]
[[resources]]
[resources.metadata]
type = "Hostnames"
id = "x"
`

func TestTheThreeFormatsSayTheSame(t *testing.T) {
	want := &storagepb.MountPoint{Source: "/dev/vdb", Target: "/var/data", Fstype: "ext4", Flags: []string{"nodev"}}
	for _, test := range []struct{ source, data string }{
		{"a.yaml", inYAML}, {"a.json", inJSON}, {"a.toml", inTOML}, {"fw_cfg", inYAML}, {"fw_cfg", inJSON}, {"fw_cfg", inTOML},
		{"fw_cfg", "# c\n\nmetadata.type = 'mount'\nmetadata.id = 'data'\nmetadata.labels = {tier = 'db'}\n[spec]\nsource='/dev/vdb'\ntarget='/var/data'\nfstype='ext4'\nflags=['nodev']\n"},
		{"fw_cfg", "{metadata: {type: mount, id: data, labels: {tier: db}}, spec: {source: /dev/vdb, target: /var/data, fstype: ext4, flags: [nodev]}}"},
	} {
		documents, problems := Parse(test.source, []byte(test.data))
		if len(problems) > 0 || len(documents) == 0 {
			t.Errorf("Parse(%q) = %d documents, %v", test.data, len(documents), problems)
			continue
		}
		r, problems := documents[0].Resolve(builtin.Set())
		if len(problems) > 0 {
			t.Errorf("Resolve(%q): %v", test.data, problems)
			continue
		}
		got := &storagepb.MountPoint{}
		if err := proto.Unmarshal(r.GetSpec().GetProtoSpec(), got); err != nil || !proto.Equal(got, want) {
			t.Errorf("Parse(%q) = %v, %v", test.data, got, err)
		}
		m := r.GetMetadata()
		if m.GetNamespace() != "config" || m.GetType() != "MountPoints.storage.cosi.dev" || m.GetId() != "data" || m.GetLabels()["tier"] != "db" || m.GetVersion() != "" {
			t.Errorf("metadata = %v", m)
		}
	}
}

func TestProblemsKnowTheirDocumentLineAndField(t *testing.T) {
	for _, test := range []struct {
		name, data string
		good       []string
		want       []string
	}{
		{"broken document in the middle", "metadata: {type: mount, id: a}\nspec: {source: x}\n---\nmetadata: [\n---\nmetadata: {type: mount, id: c}\n", []string{"a", "c"},
			[]string{"u.yaml:5: did not find expected node content"}},
		{"field", "# c\n---\nmetadata:\n  type: mount\n  id: a\nspec:\n  flags:\n  - 5\n", []string{"a"},
			[]string{`u.yaml:8: spec.flags[0]: must be a string: write "5" in quotes`}},
		{"unknown kind", "metadata:\n  id: a\n  type: muont\n", []string{"a"},
			[]string{`u.yaml:3: metadata.type: unknown kind "muont" (did you mean mountpoints?)`}},
		{"wrong namespace", "metadata:\n  type: mount\n  id: a\n  namespace: status\n", []string{"a"},
			[]string{`u.yaml:4: metadata.namespace: mountpoints live in the namespace "config", not "status"`}},
		{"shape", "kind: Pod\nmetadata:\n  lables: {}\n  name: x\n", nil, []string{
			"u.yaml:1: kind: unknown field (the kind is metadata.type)",
			"u.yaml:3: metadata: unknown field (did you mean labels?)",
			"u.yaml:4: metadata: unknown field (there are namespace, type, id, version, owner, phase, created, updated, finalizers, labels, annotations)",
		}},
		{"nothing named", "spec: {}\n", nil, []string{"u.yaml:1: metadata.type: is missing", "u.yaml:1: metadata.id: is missing"}},
		{"a word", "hello\n", nil, []string{"u.yaml:1: is not a resource: want a mapping with metadata and spec"}},
		{"list", "- metadata: {type: mount, id: a}\n- 5\n- metadata: {type: mount, id: b}\n", []string{"a", "b"},
			[]string{"u.yaml:2: is not a resource: want a mapping with metadata and spec"}},
		{"certificate", "metadata: {type: mount, id: a}\nspec:\n  data: |\n    -----BEGIN X-----\n", []string{"a"}, nil},
		{"empty", "---\n# nothing\n---\n\n...\n", nil, nil},
		{"twice", "metadata: {type: mount, id: a}\nmetadata: {type: mount, id: b}\n", nil, []string{`u.yaml:2: metadata: is set twice`}},
	} {
		documents, problems := Parse("u.yaml", []byte(test.data))
		check(t, test.name, documents, problems, test.good, test.want)
	}
}

func check(t *testing.T, name string, documents []*Document, problems []Problem, wantGood, want []string) {
	t.Helper()
	var good, got []string
	for _, d := range documents {
		good = append(good, d.Metadata.ID)
		_, late := d.Resolve(builtin.Set())
		problems = append(problems, late...)
	}
	for _, p := range problems {
		got = append(got, p.String())
	}
	if diff := cmp.Diff(wantGood, good); diff != "" {
		t.Errorf("%s: documents (-want +got)\n%s", name, diff)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: problems (-want +got)\n%s", name, diff)
	}
}

func TestBrokenTOMLLosesOnlyItself(t *testing.T) {
	data := "[[resources]]\nmetadata = {type = 'mount', id = 'a'}\n[[resources]]\nmetadata = {type = 'mount' id = 'b'}\n[[resources]]\nmetadata = {type = 'mount', id = 'c'}\nspec.flags = [\n 'ro',\n 7,\n]\n"
	documents, problems := Parse("u.toml", []byte(data))
	if len(problems) != 1 || problems[0].Line != 4 || problems[0].Document != 2 {
		t.Errorf("problems: %+v", problems)
	}
	check(t, "toml", documents, nil, []string{"a", "c"}, []string{`u.toml:9: spec.flags[1]: must be a string: write "7" in quotes`})
}

func TestBrokenJSONKeepsWhatCameBefore(t *testing.T) {
	data := "{\"metadata\": {\"type\": \"mount\", \"id\": \"a\"}}\n{\"metadata\": {\"type\":\n \"mount\" \"id\": \"b\"}}\n"
	documents, problems := Parse("u.json", []byte(data))
	check(t, "json", documents, problems, []string{"a"}, []string{"u.json:3: JSON: invalid character '\"' after object key:value pair"})
	_, problems = Parse("u.json", []byte("{\"metadata\": {\n"))
	check(t, "cut", nil, problems, nil, []string{"u.json:2: JSON: ends in the middle of a value"})
}

func TestWhatWasReadCanBeAppliedAgain(t *testing.T) {
	documents, problems := Parse("a.yaml", []byte(inYAML))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	r, problems := documents[0].Resolve(builtin.Set())
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	r.Metadata.Version, r.Metadata.Owner, r.Metadata.Phase = "3", "someone", "running"
	n, err := Node(r, builtin.Set().ByType(r.GetMetadata().GetType()))
	if err != nil {
		t.Fatal(err)
	}
	text, err := YAML(n, n)
	if err != nil {
		t.Fatal(err)
	}
	for source, data := range map[string][]byte{"b.yaml": text, "b.json": JSON(n), "b": []byte("metadata: {version: 3, type: mount, id: data, labels: {tier: db}}\nspec: {source: /dev/vdb, target: /var/data, fstype: ext4, flags: [nodev]}\n")} {
		again, problems := Parse(source, data)
		if len(problems) > 0 {
			t.Fatalf("%s: %v", data, problems)
		}
		back, problems := again[0].Resolve(builtin.Set())
		if len(problems) > 0 || !proto.Equal(back.GetSpec(), r.GetSpec()) || back.GetMetadata().GetVersion() != "" || back.GetMetadata().GetOwner() != "" {
			t.Errorf("%s gave %v, %v", data, back, problems)
		}
	}
}

// TestWhatCannotBeReadIsNotQuoted: nobody knows yet whether the document is of a Sensitive kind.
func TestWhatCannotBeReadIsNotQuoted(t *testing.T) {
	const head = "metadata: {type: certs, id: node}\n"
	for _, test := range []struct{ source, data string }{
		{"a.yaml", head + "spec: {serving_key: *xyzzy}\n"},
		{"a.yaml", head + "spec: &xyzzy {serving_key: *xyzzy}\n"},
		{"a.yaml", head + "spec:\n  serving_key: |\nxyzzy: 1\n"},
		{"a.yaml", head + "xyzzy: 1\nxyzzy: 2\n"},
		{"a.yaml", "metadata: {type: certs, id: node, xyzzy: 1}\n"},
		{"a.yaml", head + "spec: {xyzzy: 1}\n"},
		{"a.yaml", head + "spec: {serving_key: {xyzzy: 1}}\n"},
		{"a.yaml", head + "spec: {serving_key: \"\\xyzzy\"}\n"},
		{"a.yaml", head + "spec: {serving_key: !xyzzy x}\n"},
		{"a.yaml", head + "spec: {serving_key: !xyzzy!x x}\n"},
		{"a.json", `{"metadata": {"type": "certs", "id": "node"}, "spec": {"serving_key": xyzzy}}`},
		{"a.json", `{"metadata": {"type": "certs", "id": "node"}, "xyzzy": 1}`},
		{"a.toml", "metadata = {type = 'certs', id = 'node'}\nspec.xyzzy = 1\nspec.xyzzy = 2\n"},
		{"a.toml", "metadata = {type = 'certs', id = 'node'}\n[spec.xyzzy]\n[spec.xyzzy]\n"},
		{"a.toml", "metadata = {type = 'certs', id = 'node'}\nspec.xyzzy = 1\n[spec.xyzzy.a]\n"},
		{"a.toml", "metadata = {type = 'certs', id = 'node'}\nspec.serving_key = 123xyzzy\n"},
		{"a.toml", "metadata = {type = 'certs', id = 'node'}\nspec.serving_key = xyzzy\n"},
		{"a.toml", "metadata = {type = 'certs', id = 'node'}\nspec.serving_key = 99999999999999999999999\n"},
	} {
		documents, problems := Parse(test.source, []byte(test.data))
		for _, d := range documents {
			_, late := d.Resolve(builtin.Set())
			problems = append(problems, late...)
		}
		if len(problems) == 0 {
			t.Errorf("%s: no problem", test.data)
		}
		for _, p := range problems {
			if text := fmt.Sprintf("%+v", p); strings.Contains(text, "xyzzy") || strings.Contains(text, "9999") || p.Line == 0 {
				t.Errorf("%s: %s", test.data, text)
			}
		}
	}
}

// FuzzParse: no input panics, every problem is placed inside the input, and what resolves survives being written and read again.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{inYAML, inJSON, inTOML, "[a.b]\nc.d=1\n[[a.e]]\n", "a = [[1, {b = 2}], 1979-05-27]", "{\"a\": \"\\ud83d\\ude00\"", "---\n--- x\n...\n%YAML 1.2\n---\n", "- &a {metadata: *a}", "resources: [1]"} {
		f.Add(seed)
	}
	set := builtin.Set()
	f.Fuzz(func(t *testing.T, data string) {
		lines := 2
		for _, c := range data {
			if c == '\n' || c == '\r' || c == '\u0085' || c == '\u2028' || c == '\u2029' {
				lines++
			}
		}
		for _, source := range []string{"x.yaml", "x.json", "x.toml", "x"} {
			documents, problems := Parse(source, []byte(data))
			for _, d := range documents {
				r, late := d.Resolve(set)
				problems = append(problems, late...)
				if r == nil {
					continue
				}
				n, err := Node(r, set.ByType(r.GetMetadata().GetType()))
				if err != nil {
					t.Fatal(err)
				}
				again, wrong := Parse("x.json", JSON(n))
				if len(again) != 1 || len(wrong) > 0 {
					t.Fatalf("%s: %v", JSON(n), wrong)
				}
			}
			for _, p := range problems {
				if p.Line < 0 || p.Line > lines || p.Message == "" {
					t.Fatalf("%s: %+v of %d lines", source, p, lines)
				}
			}
		}
	})
}

func TestExtensionWinsOverContent(t *testing.T) {
	if documents, problems := Parse("x.JSON", []byte(inYAML)); len(documents) != 0 || len(problems) != 1 {
		t.Errorf("YAML in .JSON: %d documents, %v", len(documents), problems)
	}
}
