package kinds

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func (d *decoder) scalar(field protoreflect.FieldDescriptor, n *yaml.Node, path string) (protoreflect.Value, bool) {
	if n.Kind != yaml.ScalarNode {
		d.problem(n, path, "must be %s, not %s", want(field), d.describe(n))
		return protoreflect.Value{}, false
	}
	value, err := d.parseScalar(field, n)
	if err != nil {
		d.problem(n, path, "%v", err)
		return protoreflect.Value{}, false
	}
	return value, true
}

// want says in words what a scalar field takes.
func want(field protoreflect.FieldDescriptor) string {
	switch field.Kind() {
	case protoreflect.BoolKind:
		return "true or false"
	case protoreflect.StringKind:
		return "a string"
	case protoreflect.BytesKind:
		return "base64"
	case protoreflect.EnumKind:
		return "one of " + enumNames(field.Enum())
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return "a number"
	}
	return "an integer"
}

func (d *decoder) parseScalar(field protoreflect.FieldDescriptor, n *yaml.Node) (protoreflect.Value, error) {
	switch field.Kind() {
	case protoreflect.BoolKind:
		if n.ShortTag() != "!!bool" {
			return d.mismatch(field, n)
		}
		return protoreflect.ValueOfBool(strings.EqualFold(n.Value, "true")), nil
	case protoreflect.StringKind:
		return d.parseString(field, n)
	case protoreflect.BytesKind:
		data, err := parseBytes(n.Value)
		if err != nil || !textual(n) {
			return d.mismatch(field, n)
		}
		return protoreflect.ValueOfBytes(data), nil
	case protoreflect.EnumKind:
		return d.parseEnum(field, n)
	}
	return d.parseNumber(field, n)
}

func (d *decoder) mismatch(field protoreflect.FieldDescriptor, n *yaml.Node) (protoreflect.Value, error) {
	return protoreflect.Value{}, fmt.Errorf("must be %s, not %s", want(field), d.describe(n))
}

// textual reports whether a scalar is a string. A bare date is one: no field of ours is a YAML timestamp.
func textual(n *yaml.Node) bool {
	switch n.ShortTag() {
	case "!!str", "!!timestamp", "!!binary", "!!merge":
		return true
	}
	return n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0
}

func (d *decoder) parseString(field protoreflect.FieldDescriptor, n *yaml.Node) (protoreflect.Value, error) {
	if !textual(n) {
		return protoreflect.Value{}, fmt.Errorf("must be a string: write %s in quotes", strconv.Quote(d.quote(n)))
	}
	if n.ShortTag() == "!!binary" {
		return d.mismatch(field, n)
	}
	if !utf8.ValidString(n.Value) {
		return protoreflect.Value{}, errors.New("is not valid UTF-8")
	}
	return protoreflect.ValueOfString(n.Value), nil
}

// parseBytes reads base64, standard or URL, padded or not; line breaks and spaces do not count.
func parseBytes(text string) ([]byte, error) {
	text = strings.TrimRight(strings.Join(strings.Fields(text), ""), "=")
	if strings.ContainsAny(text, "-_") {
		return base64.RawURLEncoding.DecodeString(text)
	}
	return base64.RawStdEncoding.DecodeString(text)
}

func (d *decoder) parseEnum(field protoreflect.FieldDescriptor, n *yaml.Node) (protoreflect.Value, error) {
	if n.ShortTag() == "!!int" {
		number, err := parseInt(n.Value, 32)
		if err != nil {
			return d.mismatch(field, n)
		}
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(number)), nil
	}
	enum := field.Enum()
	if value := enum.Values().ByName(protoreflect.Name(n.Value)); value != nil {
		return protoreflect.ValueOfEnum(value.Number()), nil
	}
	var candidates []string
	for i := range enum.Values().Len() {
		candidates = append(candidates, string(enum.Values().Get(i).Name()))
	}
	if near := Nearest(n.Value, candidates); len(near) > 0 {
		return protoreflect.Value{}, fmt.Errorf("%q is not a value (did you mean %s?)", d.quote(n), near[0])
	}
	return d.mismatch(field, n)
}

func enumNames(enum protoreflect.EnumDescriptor) string {
	var all []string
	for i := range enum.Values().Len() {
		if value := enum.Values().Get(i); value.Number() != 0 || !strings.HasSuffix(string(value.Name()), "UNSPECIFIED") {
			all = append(all, string(value.Name()))
		}
	}
	return strings.Join(all, ", ")
}

var errRange = errors.New("is out of range")

func (d *decoder) parseNumber(field protoreflect.FieldDescriptor, n *yaml.Node) (protoreflect.Value, error) {
	switch n.ShortTag() {
	case "!!int", "!!float", "!!str":
	default:
		return d.mismatch(field, n)
	}
	var value protoreflect.Value
	var err error
	switch field.Kind() {
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		value, err = parseFloat(field, n)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		value, err = parseUnsigned(field, n.Value)
	default:
		value, err = parseSigned(field, n.Value)
	}
	if errors.Is(err, errRange) || errors.Is(err, errOctal) {
		return value, fmt.Errorf("%s %w", d.quote(n), err)
	}
	if err != nil {
		return d.mismatch(field, n)
	}
	return value, nil
}

func bits(field protoreflect.FieldDescriptor) int {
	switch field.Kind() {
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind, protoreflect.DoubleKind:
		return 64
	}
	return 32
}

func parseSigned(field protoreflect.FieldDescriptor, text string) (protoreflect.Value, error) {
	number, err := parseInt(text, bits(field))
	if err != nil {
		return protoreflect.Value{}, err
	}
	if bits(field) == 64 {
		return protoreflect.ValueOfInt64(number), nil
	}
	return protoreflect.ValueOfInt32(int32(number)), nil
}

func parseUnsigned(field protoreflect.FieldDescriptor, text string) (protoreflect.Value, error) {
	number, err := parseUint(text, bits(field))
	if err != nil {
		return protoreflect.Value{}, err
	}
	if bits(field) == 64 {
		return protoreflect.ValueOfUint64(number), nil
	}
	return protoreflect.ValueOfUint32(uint32(number)), nil
}

// errOctal: 0755 is 755 in YAML 1.2 and 493 in YAML 1.1. Nobody should have to know.
var errOctal = errors.New("begins with 0: write 0o… for octal, or no zero for decimal")

func octal(text string) bool {
	text = strings.TrimLeft(text, "+-")
	return len(text) > 1 && text[0] == '0' && text[1] >= '0' && text[1] <= '9'
}

func parseInt(text string, bits int) (int64, error) {
	if octal(text) {
		return 0, errOctal
	}
	number, err := strconv.ParseInt(text, 0, bits)
	if err == nil {
		return number, nil
	}
	if errors.Is(err, strconv.ErrRange) {
		return 0, errRange
	}
	// 1e3 and 5.0 are integers to protojson.
	f, ferr := strconv.ParseFloat(text, 64)
	if ferr != nil || f != math.Trunc(f) {
		return 0, err
	}
	if f < -math.Exp2(float64(bits-1)) || f >= math.Exp2(float64(bits-1)) {
		return 0, errRange
	}
	return int64(f), nil
}

func parseUint(text string, bits int) (uint64, error) {
	if octal(text) {
		return 0, errOctal
	}
	number, err := strconv.ParseUint(strings.TrimPrefix(text, "+"), 0, bits)
	if err == nil {
		return number, nil
	}
	f, ferr := strconv.ParseFloat(text, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, errRange
	case ferr != nil || f != math.Trunc(f):
		return 0, err
	case f < 0 || f >= math.Exp2(float64(bits)):
		return 0, errRange
	}
	return uint64(f), nil
}

func parseFloat(field protoreflect.FieldDescriptor, n *yaml.Node) (protoreflect.Value, error) {
	text := strings.TrimPrefix(strings.ToLower(n.Value), "+")
	switch text {
	case ".inf", "-.inf", ".nan":
		text = strings.Replace(text, ".", "", 1)
	}
	f, err := strconv.ParseFloat(text, bits(field))
	if errors.Is(err, strconv.ErrRange) {
		return protoreflect.Value{}, errRange
	}
	if err != nil {
		number, intErr := parseInt(n.Value, 64) // 0x10, 1_000
		if intErr != nil {
			return protoreflect.Value{}, intErr
		}
		f = float64(number)
	}
	if field.Kind() == protoreflect.FloatKind {
		return protoreflect.ValueOfFloat32(float32(f)), nil
	}
	return protoreflect.ValueOfFloat64(f), nil
}

func (d *decoder) mapKey(field protoreflect.FieldDescriptor, text string) (protoreflect.MapKey, error) {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
	if field.Kind() == protoreflect.BoolKind && (text == "true" || text == "false") {
		n.Tag = "!!bool"
	}
	value, err := d.parseScalar(field, n)
	if err != nil {
		return protoreflect.MapKey{}, err
	}
	return value.MapKey(), nil
}

// list is the names of fields: "name, mac, all_physical".
func list(fields interface {
	Len() int
	Get(int) protoreflect.FieldDescriptor
}) string {
	var all []string
	for i := range fields.Len() {
		all = append(all, string(fields.Get(i).Name()))
	}
	return strings.Join(all, ", ")
}
