package document

import (
	"testing"

	"github.com/cosi-os/cosi/api/kinds"
)

func TestFieldLine(t *testing.T) {
	documents, problems := Parse("x.yaml", []byte(`---
metadata:
  type: mount
  id: data
  labels:
    "a.b/c": x
spec:
  flags:
  - ro
  -
   nodev
  ignoreRoutes: true
`))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for path, want := range map[string]int{
		"metadata.id": 4, "metadata": 2, `metadata.labels["a.b/c"]`: 6, "spec": 7, "spec.flags": 8, "spec.flags[0]": 9, "spec.flags[1]": 11,
		"spec.flags[7]": 8, "spec.source": 7, "spec.ignore_routes": 12, "": 2, "nothing": 2, "]][": 2,
	} {
		if got := documents[0].FieldLine(path); got != want {
			t.Errorf("FieldLine(%q) = %d; want %d", path, got, want)
		}
	}
}

func TestSpecYAMLStandsAlone(t *testing.T) {
	documents, problems := Parse("x.yaml", []byte("metadata: {type: mount, id: &id data}\nspec:\n  source: *id # why\n  flags: &f [ro, 'yes']\n  more: *f\n"))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	text, err := documents[0].SpecYAML()
	if want := "source: data\nflags: [ro, 'yes']\nmore: [ro, 'yes']\n"; text != want || err != nil {
		t.Errorf("SpecYAML() = %q, %v; want %q", text, err, want)
	}
	documents, _ = Parse("x.toml", []byte("metadata = {type='mount',id='a'}\nspec = {source = '5', time = 1979-05-27T07:32:00Z}\n"))
	text, _ = documents[0].SpecYAML()
	n, problem := kinds.ParseNode([]byte(text))
	if problem != nil || n.Content[1].ShortTag() != "!!str" || n.Content[3].Value != "1979-05-27T07:32:00Z" {
		t.Errorf("SpecYAML() = %q, %v", text, problem)
	}
	documents, _ = Parse("x.yaml", []byte("metadata: {type: mount, id: data}\n"))
	if got, err := documents[0].SpecYAML(); got != "" || err != nil {
		t.Errorf("SpecYAML() = %q, %v", got, err)
	}
	documents, _ = Parse("x.yaml", []byte("metadata: {type: mount, id: data}\nspec: {flags: &a [*a]}\n"))
	if got, err := documents[0].SpecYAML(); err == nil {
		t.Errorf("SpecYAML() of what contains itself = %q", got)
	}
}
