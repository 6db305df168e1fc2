package client

import (
	"fmt"
	"regexp"
	"strings"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

const key = `([A-Za-z0-9][A-Za-z0-9._/-]*)`

var (
	exists   = regexp.MustCompile(`^(!?)\s*` + key + `$`)
	compares = regexp.MustCompile(`^` + key + `\s*(==|=|!=|<=|<|>=|>)\s*(.*)$`)
	member   = regexp.MustCompile(`^` + key + `\s+(in|notin)\s*\((.*)\)$`)
)

// ParseSelector reads conditions on labels, separated by commas, all of which must hold:
//
//	key  !key  key=value  key!=value  key in (a, b)  key notin (a, b)  key<10Gi  key>=3
//
// The ordering ones compare numbers, with an optional unit (k, Mi, …).
func ParseSelector(text string) (*resourcepb.LabelQuery, error) {
	q := &resourcepb.LabelQuery{}
	for _, part := range splitOutside(text) {
		term, err := parseTerm(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		q.Terms = append(q.Terms, term)
	}
	return q, nil
}

// splitOutside splits at commas that are not in parentheses.
func splitOutside(text string) []string {
	var parts []string
	depth, begin := 0, 0
	for i, c := range text {
		switch {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			parts = append(parts, text[begin:i])
			begin = i + 1
		}
	}
	return append(parts, text[begin:])
}

func parseTerm(text string) (*resourcepb.LabelTerm, error) {
	if m := exists.FindStringSubmatch(text); m != nil {
		return &resourcepb.LabelTerm{Key: m[2], Op: resourcepb.LabelTerm_EXISTS, Invert: m[1] == "!"}, nil
	}
	if m := member.FindStringSubmatch(text); m != nil {
		term := &resourcepb.LabelTerm{Key: m[1], Op: resourcepb.LabelTerm_IN, Invert: m[2] == "notin"}
		for _, value := range strings.Split(m[3], ",") {
			term.Value = append(term.Value, strings.TrimSpace(value))
		}
		return term, nil
	}
	m := compares.FindStringSubmatch(text)
	if m == nil {
		return nil, fmt.Errorf("%q is not a condition on a label (key, !key, key=value, key!=value, key in (a, b), key<10)", text)
	}
	term := &resourcepb.LabelTerm{Key: m[1], Value: []string{strings.TrimSpace(m[3])}}
	switch m[2] {
	case "=", "==":
		term.Op = resourcepb.LabelTerm_EQUAL
	case "!=":
		term.Op, term.Invert = resourcepb.LabelTerm_EQUAL, true
	case "<":
		term.Op = resourcepb.LabelTerm_LT_NUMERIC
	case "<=":
		term.Op = resourcepb.LabelTerm_LTE_NUMERIC
	case ">":
		term.Op, term.Invert = resourcepb.LabelTerm_LTE_NUMERIC, true
	case ">=":
		term.Op, term.Invert = resourcepb.LabelTerm_LT_NUMERIC, true
	}
	return term, nil
}
