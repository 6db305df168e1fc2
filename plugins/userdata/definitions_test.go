package userdata

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

// definition is a document that defines a kind whose message has the fields.
func definition(t *testing.T, typ, display string, fields ...string) string {
	t.Helper()
	message := &descriptorpb.DescriptorProto{Name: &display}
	for i, name := range fields {
		message.Field = append(message.Field, &descriptorpb.FieldDescriptorProto{
			Name: &name, Number: proto.Int32(int32(i + 1)),
			Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		})
	}
	descriptors, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{{
		Name: proto.String(display + ".proto"), Package: proto.String("example"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{message},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("metadata: {type: ResourceDefinitions.meta.cosi.dev, id: %s}\nspec: {resource_type: %s, display_type: %s, default_namespace: config, message: example.%s, descriptors: %s}\n",
		strings.ToLower(typ), typ, display, display, base64.StdEncoding.EncodeToString(descriptors))
}

// yaml is the content of a resource of a kind that no program knows.
func yaml(t *testing.T, r *plugintest.Runtime, typ, id string) string {
	t.Helper()
	got, err := r.Store.Get(t.Context(), state.Pointer{Kind: state.Kind{Namespace: "config", Type: typ}, ID: id})
	if err != nil {
		return err.Error()
	}
	return got.GetSpec().GetYamlSpec()
}

func TestUserDataBringsKinds(t *testing.T) {
	r, root := plugintest.Start(t, declaration), t.TempDir()
	many := make([]string, 1001)
	for i := range many {
		many[i] = fmt.Sprintf("f%d", i)
	}
	data := strings.Join([]string{
		"metadata: {type: Widgets.example.org, id: a}\nspec: {size: big}\n", // before its definition
		"metadata: {type: gadget, id: b}\nspec: {colour: red}\n",            // by an alias
		"metadata: {type: mount, id: c}\nspec: {source: tmpfs, target: /var/c, fstype: tmpfs}\n",
		definition(t, "Widgets.example.org", "Widget", "size"),
		strings.Replace(definition(t, "Gadgets.example.org", "Gadget", "colour"), "ResourceDefinitions.meta.cosi.dev", "rd", 1),
		definition(t, "Hugenesses.example.org", "Hugeness", many...),
		"metadata: {type: Namespaces.meta.cosi.dev, id: mine}\nspec: {}\n",
	}, "---\n")
	put(t, root, fwCfgFile, data)
	stop := run(t, r, root)
	if got := yaml(t, r, "Widgets.example.org", "a"); got != "size: big\n" {
		t.Errorf("the widget is %q", got)
	}
	if got := yaml(t, r, "Gadgets.example.org", "b"); got != "colour: red\n" {
		t.Errorf("the gadget is %q", got)
	}
	s := source(r, sourceFwCfg)
	if s.Documents != 7 || s.Applied != 5 || len(s.Problems) != 2 {
		t.Fatalf("source = %v; want 5 of 7 applied and 2 problems", s)
	}
	for i, want := range []string{"have 1001 fields, and 1000 are allowed", "plugin userdata cannot create meta/Namespaces.meta.cosi.dev/mine"} {
		if p := s.Problems[i]; p.Document != uint32(6+i) || !strings.Contains(p.Message, want) {
			t.Errorf("problem %v; want document %d, %q", p, 6+i, want)
		}
	}
	stop()

	// Changed, as other resources are: what user data wrote last is user data's.
	reboot(t, r)
	put(t, root, fwCfgFile, strings.Replace(data, definition(t, "Widgets.example.org", "Widget", "size"), definition(t, "Widgets.example.org", "Widget", "size", "weight"), 1)+
		"---\nmetadata: {type: Widgets.example.org, id: heavy}\nspec: {weight: 1kg}\n")
	run(t, r, root)
	if got := yaml(t, r, "Widgets.example.org", "heavy"); got != "weight: 1kg\n" {
		t.Errorf("a widget of the new definition is %q: %v", got, source(r, sourceFwCfg).Problems)
	}
}
