package client

import (
	"testing"

	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

func TestParseSelector(t *testing.T) {
	term := func(key string, op resourcepb.LabelTerm_Operation, invert bool, value ...string) *resourcepb.LabelTerm {
		return &resourcepb.LabelTerm{Key: key, Op: op, Invert: invert, Value: value}
	}
	for text, want := range map[string][]*resourcepb.LabelTerm{
		"a":                  {term("a", resourcepb.LabelTerm_EXISTS, false)},
		"!a":                 {term("a", resourcepb.LabelTerm_EXISTS, true)},
		"a=b, cosi.dev/c!=d": {term("a", resourcepb.LabelTerm_EQUAL, false, "b"), term("cosi.dev/c", resourcepb.LabelTerm_EQUAL, true, "d")},
		"a==b":               {term("a", resourcepb.LabelTerm_EQUAL, false, "b")},
		"a in (x, y),b":      {term("a", resourcepb.LabelTerm_IN, false, "x", "y"), term("b", resourcepb.LabelTerm_EXISTS, false)},
		"a notin (x)":        {term("a", resourcepb.LabelTerm_IN, true, "x")},
		"a<10Gi":             {term("a", resourcepb.LabelTerm_LT_NUMERIC, false, "10Gi")},
		"a<=1":               {term("a", resourcepb.LabelTerm_LTE_NUMERIC, false, "1")},
		"a > 1":              {term("a", resourcepb.LabelTerm_LTE_NUMERIC, true, "1")},
		"a>=1":               {term("a", resourcepb.LabelTerm_LT_NUMERIC, true, "1")},
		"a=":                 {term("a", resourcepb.LabelTerm_EQUAL, false, "")},
	} {
		got, err := ParseSelector(text)
		if err != nil || !proto.Equal(got, &resourcepb.LabelQuery{Terms: want}) {
			t.Errorf("ParseSelector(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "a,,b", "=b", "a in x", "a b", "a in (x"} {
		if got, err := ParseSelector(text); err == nil {
			t.Errorf("ParseSelector(%q) = %v", text, got)
		}
	}
}

func FuzzParseSelector(f *testing.F) {
	f.Add("a in (b, c),!d,e<3")
	f.Fuzz(func(t *testing.T, text string) {
		q, err := ParseSelector(text)
		if err == nil && len(q.GetTerms()) == 0 {
			t.Errorf("ParseSelector(%q) selects everything", text)
		}
	})
}
