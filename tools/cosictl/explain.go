package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

func newExplain(a *app) *cobra.Command {
	var offline bool
	cmd := &cobra.Command{
		Use:               "explain KIND",
		Short:             "Show the names, fields and rules of a kind",
		Example:           "  cosictl explain mount\n  cosictl explain links --offline",
		Args:              commandline.Arguments(1, 1),
		ValidArgsFunction: a.completeKindAndID,
		RunE: func(cmd *cobra.Command, args []string) error {
			if offline {
				k, err := builtin.Set().Lookup(args[0])
				if err != nil {
					return err
				}
				explain(a, k)
				return nil
			}
			return a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
				k, err := c.Kind(ctx, args[0])
				if err != nil {
					return err
				}
				explain(a, k)
				return nil
			})(cmd, args)
		},
	}
	cmd.Flags().BoolVar(&offline, "offline", false, "explain the kinds that this program was built with, without a node")
	return cmd
}

func explain(a *app, k *kinds.Kind) {
	d := k.Definition
	fmt.Fprintf(a.out, "%s: %s\n\n", d.GetDisplayType(), oneLine(d.GetDescription()))
	fmt.Fprintf(a.out, "Type:       %s\n", k.Type())
	fmt.Fprintf(a.out, "Names:      %s\n", strings.Join(d.GetAllAliases(), ", "))
	fmt.Fprintf(a.out, "Namespace:  %s\n", k.Namespace())
	if d.GetObservedType() != "" {
		fmt.Fprintf(a.out, "Status:     %s\n", d.GetObservedType())
	}
	if k.Sensitive() {
		fmt.Fprintln(a.out, "Sensitive:  only an admin may read it")
	}
	fmt.Fprintln(a.out)
	newTable(a.out, a.colours, "FIELD", "TYPE", "RULES").print(fieldRows(k.Message, "", nil))
}

// fieldRows lists the fields of m and, indented, those of the messages in it. above are the messages that it stands in: one that
// holds itself is not opened again.
func fieldRows(m protoreflect.MessageDescriptor, indent string, above []protoreflect.FullName) [][]string {
	for _, name := range above {
		if name == m.FullName() {
			return nil
		}
	}
	above = append(above[:len(above):len(above)], m.FullName())
	var rows [][]string
	for i := range m.Fields().Len() {
		field := m.Fields().Get(i)
		rows = append(rows, []string{indent + string(field.Name()), typeName(field), fieldRules(field)})
		if inner := openable(field); inner != nil {
			rows = append(rows, fieldRows(inner, indent+"  ", above)...)
		}
	}
	return rows
}

func fieldRules(field protoreflect.FieldDescriptor) string {
	text := describeRules(field)
	if of := field.ContainingOneof(); of != nil && !of.IsSynthetic() && of.Fields().Get(0) == field {
		var names []string
		for i := range of.Fields().Len() {
			names = append(names, string(of.Fields().Get(i).Name()))
		}
		text = strings.Trim(text+", one of "+strings.Join(names, ", "), ", ")
	}
	return text
}

// openable is the message in a field whose fields are worth listing: not one that is written as a single value.
func openable(field protoreflect.FieldDescriptor) protoreflect.MessageDescriptor {
	m := field.Message()
	if field.IsMap() {
		m = field.MapValue().Message()
	}
	if m == nil || m.ParentFile().Package() == "google.protobuf" {
		return nil
	}
	return m
}

func typeName(field protoreflect.FieldDescriptor) string {
	switch {
	case field.IsMap():
		return "map of " + typeName(field.MapKey()) + " to " + typeName(field.MapValue())
	case field.IsList():
		return "list of " + singleType(field)
	}
	return singleType(field)
}

func singleType(field protoreflect.FieldDescriptor) string {
	if enum := field.Enum(); enum != nil {
		var names []string
		for i := range enum.Values().Len() {
			if value := enum.Values().Get(i); value.Number() != 0 {
				names = append(names, string(value.Name()))
			}
		}
		return strings.Join(names, " | ")
	}
	m := field.Message()
	if m == nil {
		return field.Kind().String()
	}
	switch m.FullName() {
	case "google.protobuf.Timestamp":
		return "time"
	case "google.protobuf.Duration":
		return "duration"
	case "google.protobuf.Struct":
		return "object"
	}
	return string(m.Name())
}
