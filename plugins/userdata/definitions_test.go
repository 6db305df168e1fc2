package userdata

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
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

// TestUserDataSaysNoSecretAloud: neither in UserDataSources and UserDataRecords, which everybody reads, nor on the console.
func TestUserDataSaysNoSecretAloud(t *testing.T) {
	const canary = "xyzzy-the-canary"
	printed, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer printed.Close()
	stderr := os.Stderr
	os.Stderr = printed
	defer func() { os.Stderr = stderr }()

	for _, kind := range []struct{ typ, field string }{{"cert", "serving_key"}, {"Tokens.example.org", "key"}} {
		r, root := plugintest.Start(t, declaration), t.TempDir()
		documents := []string{strings.Replace(definition(t, "Tokens.example.org", "Token", "key"), "spec: {", "spec: {sensitivity: SENSITIVE, ", 1)}
		bad := []string{
			canary, "[" + canary + "]", "{" + canary + ": 1}", "{" + kind.field + ": {" + canary + ": 1}}", "{" + kind.field + ": !!int " + canary + "}", "{" + kind.field + ": *" + canary + "}",
			"{" + kind.field + ": &" + canary + " [*" + canary + "]}", "{" + kind.field + ": \"" + canary, "{}\n" + canary + ": 1", "{" + kind.field + canary + ": 1}", "{" + kind.field + ": [!" + canary + " x]}",
		}
		for i, spec := range bad {
			documents = append(documents, fmt.Sprintf("metadata: {type: %s, id: bad%d}\nspec: %s\n", kind.typ, i, spec))
		}
		documents = append(documents, fmt.Sprintf("metadata: {type: %s, id: x, %s: 1}\n", kind.typ, canary))
		put(t, root, fwCfgFile, strings.Join(documents, "---\n"))
		run(t, r, root)()
		s := source(r, sourceFwCfg)
		if s.Applied != 1 || len(s.Problems) < len(bad)+1 {
			t.Fatalf("%s: %d applied, %d problems: %v", kind.typ, s.Applied, len(s.Problems), s.Problems)
		}
		record := &machinepb.UserDataRecord{}
		r.Get(sourceFwCfg, record)
		for _, m := range []proto.Message{s, record} {
			if text := fmt.Sprint(m); strings.Contains(text, canary) {
				t.Errorf("%s: a resource says the secret: %s", kind.typ, text)
			}
		}
	}
	said, err := os.ReadFile(printed.Name())
	if err != nil || strings.Contains(string(said), canary) || strings.Count(string(said), "fw_cfg:") < 20 {
		t.Errorf("printed, %v:\n%s", err, said)
	}
}
