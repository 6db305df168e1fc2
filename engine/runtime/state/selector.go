package state

import (
	"fmt"
	"math/big"
	"regexp"
	"slices"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
)

// maxRegexp bounds what a caller makes us compile. RE2 runs in linear time; the size of the program is what costs.
const maxRegexp = 4 << 10

// Selector is a compiled Query. It is safe for concurrent use.
type Selector struct {
	id     *regexp.Regexp // nil: every id
	labels [][]condition  // any of: all of; empty: every resource
}

// Compile checks q and makes it ready for use. It fails with ErrUnimplemented for an operation that it does not know and with
// ErrInvalid for a term without the value it needs and for a bad regular expression.
func (q Query) Compile() (*Selector, error) {
	s := &Selector{}
	if len(q.IDRegexp) > maxRegexp {
		return nil, fmt.Errorf("%w id query: longer than %d bytes", ErrInvalid, maxRegexp)
	}
	if q.IDRegexp != "" {
		expression, err := regexp.Compile(q.IDRegexp)
		if err != nil {
			return nil, fmt.Errorf("%w id query: %w", ErrInvalid, err)
		}
		s.id = expression
	}
	for i, query := range q.Labels {
		conditions := make([]condition, 0, len(query.GetTerms()))
		for j, term := range query.GetTerms() {
			c, err := compileTerm(term)
			if err != nil {
				return nil, fmt.Errorf("label_query[%d].terms[%d]: %w", i, j, err)
			}
			conditions = append(conditions, c)
		}
		s.labels = append(s.labels, conditions)
	}
	return s, nil
}

// All reports whether s selects every resource.
func (s *Selector) All() bool { return s.id == nil && len(s.labels) == 0 }

// Matches reports whether s selects r.
func (s *Selector) Matches(r encoded.Resource) bool {
	if s.id != nil && !s.id.MatchString(r.ID()) {
		return false
	}
	if len(s.labels) == 0 {
		return true
	}
	return slices.ContainsFunc(s.labels, func(all []condition) bool {
		return !slices.ContainsFunc(all, func(c condition) bool { return !c.holds(r) })
	})
}

// condition is a compiled label term.
type condition struct {
	key    string
	invert bool
	// missing is the answer for a resource without the key. The inversion is already in it.
	missing bool
	// test answers for the key's value. ok is false when the value cannot be compared: then the condition does not hold, inverted or not.
	test func(value string) (holds, ok bool)
}

func (c condition) holds(r encoded.Resource) bool {
	value, ok := r.Label(c.key)
	if !ok {
		return c.missing
	}
	holds, ok := c.test(value)
	return ok && holds != c.invert
}

func compileTerm(t *resourcepb.LabelTerm) (condition, error) {
	c := condition{key: t.GetKey(), invert: t.GetInvert()}
	op := t.GetOp()
	switch op {
	case resourcepb.LabelTerm_EXISTS:
		c.missing = c.invert
		c.test = func(string) (bool, bool) { return true, true }
		return c, nil
	case resourcepb.LabelTerm_NOT_EXISTS: // deprecated, and still sent by clients that are
		c.missing = !c.invert
		c.test = func(string) (bool, bool) { return false, true }
		return c, nil
	case resourcepb.LabelTerm_EQUAL, resourcepb.LabelTerm_IN:
		c.missing = c.invert
	case resourcepb.LabelTerm_LT, resourcepb.LabelTerm_LTE, resourcepb.LabelTerm_LT_NUMERIC, resourcepb.LabelTerm_LTE_NUMERIC:
		// What is not there is neither less nor more: missing stays false, inverted too.
	default:
		return c, fmt.Errorf("operation %d: %w", op, ErrUnimplemented)
	}
	values := t.GetValue()
	if len(values) == 0 {
		return c, fmt.Errorf("%w: %v needs a value", ErrInvalid, op)
	}
	if len(values) > 1 && op != resourcepb.LabelTerm_IN {
		return c, fmt.Errorf("%w: %v takes one value, not %d", ErrInvalid, op, len(values))
	}
	var err error
	c.test, err = comparison(op, values)
	return c, err
}

// comparison returns the test of an operation that has values.
func comparison(op resourcepb.LabelTerm_Operation, values []string) (func(string) (holds, ok bool), error) {
	first := values[0]
	switch op {
	case resourcepb.LabelTerm_EQUAL:
		return func(v string) (bool, bool) { return v == first, true }, nil
	case resourcepb.LabelTerm_IN:
		return func(v string) (bool, bool) { return slices.Contains(values, v), true }, nil
	case resourcepb.LabelTerm_LT:
		return func(v string) (bool, bool) { return v < first, true }, nil
	case resourcepb.LabelTerm_LTE:
		return func(v string) (bool, bool) { return v <= first, true }, nil
	}
	limit, ok := parseNumber(first)
	if !ok {
		return nil, fmt.Errorf("%w: %q is not a number (try 512, 1.5k or 4Gi)", ErrInvalid, first)
	}
	orEqual := op == resourcepb.LabelTerm_LTE_NUMERIC
	return func(v string) (bool, bool) {
		n, ok := parseNumber(v)
		if !ok {
			return false, false
		}
		order := n.Cmp(limit)
		return order < 0 || orEqual && order == 0, true
	}, nil
}

// units of a number, in the order of their powers.
const units = "kmgtp"

var numberPattern = regexp.MustCompile(`^\s*([-+]?[0-9]{1,64}(?:\.[0-9]{1,64})?)\s*(?:([kKmMgGtTpP])(i)?)?B?\s*$`)

// parseNumber reads a decimal number with an optional unit: k m g t p, powers of 1000 in either case, or Ki Mi Gi Ti Pi, powers of 1024.
// A B for bytes may follow. The value is exact; ok is false for anything else.
func parseNumber(s string) (n *big.Rat, ok bool) {
	parts := numberPattern.FindStringSubmatch(s)
	if parts == nil {
		return nil, false
	}
	n, ok = new(big.Rat).SetString(parts[1])
	if !ok || parts[2] == "" {
		return n, ok
	}
	base := int64(1000)
	if parts[3] != "" {
		base = 1024
	}
	scale := int64(1)
	for _, unit := range units {
		scale *= base
		if unit == rune(parts[2][0]|0x20) { // to lower case
			break
		}
	}
	return n.Mul(n, new(big.Rat).SetInt64(scale)), true
}
