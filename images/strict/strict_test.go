package strict

import (
	"slices"
	"testing"
)

func TestNearest(t *testing.T) {
	for got, want := range map[string]string{"clowd": "cloud", "emtal": "metal", "CLOUD": "cloud", "kubernetes": ""} {
		if near := nearest(got, []string{"cloud", "metal", "own"}); near != want {
			t.Errorf("nearest(%q) = %q; want %q", got, near, want)
		}
	}
}

type example struct {
	Name  string `yaml:"name"`
	On    bool   `yaml:"on"`
	Parts []struct {
		Size string `yaml:"size"`
	} `yaml:"parts"`
}

func TestParse(t *testing.T) {
	for text, want := range map[string][]string{
		"name: a\non: true\nparts: [{size: 1}]\n": nil,
		"name: [a]\nnaem: b\non: 3\nparts:\n- {size: 1, size: 2}\n- 5\n": {
			"f:1: name: want text", `f:2: naem: "naem" is not a field; did you mean "name"?`, `f:3: on: "3": want true or false`,
			"f:5: parts[0].size: stands in line 5 already", "f:6: parts[1]: want fields (name: value)",
		},
		"text":       {"f:1: want fields (name: value)"},
		"parts: 1\n": {"f:1: parts: want a list"},
		"a: [\n":     {"f:2: did not find expected node content"},
	} {
		e := example{}
		c, ok := Parse("f", []byte(text), &e)
		var got []string
		for _, p := range c.Problems {
			got = append(got, p.String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q; want %q", text, got, want)
		}
		if want == nil && (!ok || e.Name != "a" || !e.On || e.Parts[0].Size != "1" || c.Lines["parts[0].size"] != 3) {
			t.Errorf("%q: %+v, %v", text, e, c.Lines)
		}
	}
	for text, want := range map[string]bool{"": true, "# nothing\n": true, "a": false, "---\n": false} {
		if Empty([]byte(text)) != want {
			t.Errorf("Empty(%q); want %v", text, want)
		}
	}
}
