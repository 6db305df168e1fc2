package limit

import (
	"fmt"
	"strconv"
	"strings"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Names are the fields of Limits: "message_bytes, resource_bytes, …".
func Names() string {
	fields := (&machinepb.Limits{}).ProtoReflect().Descriptor().Fields()
	var names []string
	for i := range fields.Len() {
		names = append(names, string(fields.Get(i).Name()))
	}
	return strings.Join(names, ", ")
}

// Parse sets a field of l from "NAME=NUMBER".
func Parse(l *machinepb.Limits, text string) error {
	name, number, _ := strings.Cut(text, "=")
	field := l.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(name))
	if field == nil {
		return fmt.Errorf("%q is none of %s", name, Names())
	}
	value, err := strconv.ParseUint(number, 10, 31)
	if err != nil || value == 0 {
		return fmt.Errorf("%s: %q is no number from 1 to %d", name, number, 1<<31-1)
	}
	l.ProtoReflect().Set(field, protoreflect.ValueOfUint32(uint32(value)))
	return nil
}
