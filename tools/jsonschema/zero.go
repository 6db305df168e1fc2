package jsonschema

import (
	"regexp"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// accepts reports whether a schema of a string or a number that this package made lets the zero value pass.
func accepts(s Schema, zero any) bool {
	if c, ok := s["const"]; ok && !isZero(c) {
		return false
	}
	switch values := s["enum"].(type) {
	case []string:
		return slices.Contains(values, "")
	case []any:
		return slices.ContainsFunc(values, isZero)
	}
	if zero == "" {
		least, _ := s["minLength"].(uint64)
		pattern, _ := s["pattern"].(string)
		matches, err := regexp.MatchString(pattern, "")
		return least == 0 && (err != nil || matches)
	}
	return within(s, "minimum", func(n float64) bool { return n <= 0 }) && within(s, "exclusiveMinimum", func(n float64) bool { return n < 0 }) &&
		within(s, "maximum", func(n float64) bool { return n >= 0 }) && within(s, "exclusiveMaximum", func(n float64) bool { return n > 0 })
}

func isZero(v any) bool { return v == "" || number(v) == 0 && v != "" }

func within(s Schema, key string, holds func(float64) bool) bool {
	bound, ok := s[key]
	return !ok || holds(number(bound))
}

// number is the value of any type of number, 1 for what is none.
func number(v any) float64 {
	switch n := v.(type) {
	case int:
		return float64(n)
	case int32:
		return float64(n)
	case int64:
		return float64(n)
	case uint32:
		return float64(n)
	case uint64:
		return float64(n)
	case float32:
		return float64(n)
	case float64:
		return n
	case protoreflect.EnumNumber:
		return float64(n)
	}
	return 1
}
