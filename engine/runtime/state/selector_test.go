package state_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
)

func TestLabelTerms(t *testing.T) {
	const (
		exists, equal, notExists, in = resourcepb.LabelTerm_EXISTS, resourcepb.LabelTerm_EQUAL, resourcepb.LabelTerm_NOT_EXISTS, resourcepb.LabelTerm_IN
		lt, lte, ltNumeric           = resourcepb.LabelTerm_LT, resourcepb.LabelTerm_LTE, resourcepb.LabelTerm_LT_NUMERIC
		lteNumeric                   = resourcepb.LabelTerm_LTE_NUMERIC
	)
	has, missing := "=", "" // the label's value after "=", or no label
	for _, c := range []struct {
		label           string
		op              resourcepb.LabelTerm_Operation
		values          string // separated by commas
		holds, inverted bool
	}{
		{has, exists, "", true, false},
		{has + "x", exists, "ignored", true, false},
		{missing, exists, "", false, true},
		{has, notExists, "", false, true},
		{missing, notExists, "", true, false},
		{has + "a", equal, "a", true, false},
		{has + "a", equal, "b", false, true},
		{missing, equal, "a", false, true},
		{has + "b", in, "a,b", true, false},
		{has + "c", in, "a,b", false, true},
		{missing, in, "a,b", false, true},
		{has + "a", lt, "b", true, false},
		{has + "b", lt, "b", false, true},
		{has + "10", lt, "9", true, false}, // as strings
		{missing, lt, "b", false, false},
		{has + "b", lte, "b", true, false},
		{has + "c", lte, "b", false, true},
		{missing, lte, "b", false, false},
		{has + "10", ltNumeric, "9", false, true}, // as numbers
		{has + "9", ltNumeric, "10", true, false},
		{has + "1Ki", ltNumeric, "1k", false, true},
		{missing, ltNumeric, "1", false, false},
		{has + "many", ltNumeric, "1", false, false}, // no number: neither less nor more
		{has + "1000", lteNumeric, "1k", true, false},
		{has + "1001", lteNumeric, "1k", false, true},
		{missing, lteNumeric, "1", false, false},
	} {
		m := &resourcepb.Metadata{}
		if c.label != missing {
			m.Labels = map[string]string{"key": c.label[1:]}
		}
		term := &resourcepb.LabelTerm{Key: "key", Op: c.op}
		if c.values != "" {
			term.Value = strings.Split(c.values, ",")
		}
		for _, invert := range []bool{false, true} {
			term.Invert = invert
			want := c.holds
			if invert {
				want = c.inverted
			}
			if got := matches(t, term, m); got != want {
				t.Errorf("label %q, %v %q, inverted %v: %v; want %v", c.label, c.op, c.values, invert, got, want)
			}
		}
	}
}

func matches(t *testing.T, term *resourcepb.LabelTerm, m *resourcepb.Metadata) bool {
	t.Helper()
	s, err := state.Query{Labels: []*resourcepb.LabelQuery{{Terms: []*resourcepb.LabelTerm{term}}}}.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return s.Matches(encoded.Of(&resourcepb.Resource{Metadata: m}))
}

func TestNumericTermsCompareUnitsExactly(t *testing.T) {
	// Each is less than the next.
	ordered := []string{
		"-1k", "-1.5", "0", "0.001", "1", "999", "1k", "1Ki", "1.5k", " 2 K ", "1m", "1MiB", "1g", "1 Gi", "1t", "1Ti", "1p", "1Pi",
		"9007199254740992k", "9007199254740993k", // beyond what a float64 tells apart
	}
	for i := range len(ordered) - 1 {
		m := &resourcepb.Metadata{Labels: map[string]string{"n": ordered[i]}}
		term := &resourcepb.LabelTerm{Key: "n", Op: resourcepb.LabelTerm_LT_NUMERIC, Value: []string{ordered[i+1]}}
		if !matches(t, term, m) {
			t.Errorf("%q < %q does not hold", ordered[i], ordered[i+1])
		}
		term = &resourcepb.LabelTerm{Key: "n", Op: resourcepb.LabelTerm_LTE_NUMERIC, Value: []string{ordered[i]}}
		if !matches(t, term, m) {
			t.Errorf("%q <= itself does not hold", ordered[i])
		}
	}
}

func TestQueriesThatDoNotCompile(t *testing.T) {
	numeric := func(value string) state.Query {
		return query(&resourcepb.LabelTerm{Key: "n", Op: resourcepb.LabelTerm_LT_NUMERIC, Value: []string{value}})
	}
	for name, c := range map[string]struct {
		query state.Query
		want  error
	}{
		"no value":            {query(&resourcepb.LabelTerm{Op: resourcepb.LabelTerm_EQUAL}), state.ErrInvalid},
		"two values":          {query(&resourcepb.LabelTerm{Op: resourcepb.LabelTerm_EQUAL, Value: []string{"a", "b"}}), state.ErrInvalid},
		"unknown operation":   {query(&resourcepb.LabelTerm{Op: 8}), state.ErrUnimplemented},
		"word":                {numeric("many"), state.ErrInvalid},
		"nothing":             {numeric(""), state.ErrInvalid},
		"exponent":            {numeric("1e999999999"), state.ErrInvalid},
		"fraction":            {numeric("1/2"), state.ErrInvalid},
		"unit alone":          {numeric("Ki"), state.ErrInvalid},
		"unit twice":          {numeric("1kk"), state.ErrInvalid},
		"too many digits":     {numeric(strings.Repeat("1", 65)), state.ErrInvalid},
		"expression":          {state.Query{IDRegexp: "a["}, state.ErrInvalid},
		"long expression":     {state.Query{IDRegexp: strings.Repeat("a", 5000)}, state.ErrInvalid},
		"repeated expression": {state.Query{IDRegexp: "((a{1000}){1000}){1000}"}, state.ErrInvalid},
	} {
		if _, err := c.query.Compile(); !errors.Is(err, c.want) {
			t.Errorf("%s: Compile() = %v; want %v", name, err, c.want)
		}
	}
}

func query(terms ...*resourcepb.LabelTerm) state.Query {
	return state.Query{Labels: []*resourcepb.LabelQuery{{Terms: terms}}}
}

func TestAnEmptyQuerySelectsEverything(t *testing.T) {
	for _, q := range []state.Query{{}, query()} {
		s, err := q.Compile()
		if err != nil {
			t.Fatal(err)
		}
		if !s.Matches(encoded.Of(&resourcepb.Resource{})) {
			t.Errorf("%v does not match an empty resource", q)
		}
	}
}

func TestEverySentinelIsFoundThroughWrapping(t *testing.T) {
	for _, sentinel := range state.Sentinels() {
		if got := state.SentinelOf(errors.Join(errors.New("context"), sentinel)); got != sentinel {
			t.Errorf("SentinelOf(wrapped %v) = %v", sentinel, got)
		}
	}
	if got := state.SentinelOf(state.FieldErrors{{Path: "spec.target", Message: "is empty"}}); got != state.ErrInvalid {
		t.Errorf("SentinelOf(field errors) = %v; want ErrInvalid", got)
	}
	if got := state.SentinelOf(errors.New("other")); got != nil {
		t.Errorf("SentinelOf(other) = %v; want nil", got)
	}
}

// FuzzQuery: whatever a client sends is a selector or one of the two errors, inverting a term never adds a match to itself, and a
// resource is selected in the form of a message as in its encoding.
func FuzzQuery(f *testing.F) {
	f.Add("n", int32(6), "1.5Gi", "2g", "^a")
	f.Add("n", int32(3), "", "", "(")
	f.Add("", int32(2), "x", "x", "")
	f.Add("n", int32(-1), "x", "x", "a{1000}{1000}")
	f.Fuzz(func(t *testing.T, key string, op int32, value, label, expression string) {
		term := &resourcepb.LabelTerm{Key: key, Op: resourcepb.LabelTerm_Operation(op), Value: []string{value}}
		q := query(term)
		q.IDRegexp = expression
		s, err := q.Compile()
		if err != nil {
			if !errors.Is(err, state.ErrInvalid) && !errors.Is(err, state.ErrUnimplemented) {
				t.Fatalf("Compile() = %v", err)
			}
			return
		}
		term.Invert = true
		inverse, err := q.Compile()
		if err != nil {
			t.Fatalf("inverted: %v", err)
		}
		r := encoded.Of(&resourcepb.Resource{Metadata: &resourcepb.Metadata{Id: label, Labels: map[string]string{"n": label}}})
		if s.Matches(r) && inverse.Matches(r) {
			t.Fatal("a term and its inverse both hold")
		}
		kept := r
		kept.Encode()
		if s.Matches(kept) != s.Matches(r) || inverse.Matches(kept) != inverse.Matches(r) {
			t.Fatal("encoded, the resource is selected by something else")
		}
		if s.Matches(r) && expression != "" && !regexp.MustCompile(expression).MatchString(label) {
			t.Fatal("matches although the id does not")
		}
	})
}
