package vmtest_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/qemu/node"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

// widgets defines a kind of people whose message has one field, and describes a resource of it.
func widgets(t *testing.T) string {
	t.Helper()
	descriptors, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{{
		Name: proto.String("widget.proto"), Package: proto.String("example"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("Widget"), Field: []*descriptorpb.FieldDescriptorProto{{
			Name: proto.String("size"), Number: proto.Int32(1),
			Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return "metadata: {type: Widgets.example.org, id: w}\nspec: {size: big}\n---\n" +
		"metadata: {type: ResourceDefinitions.meta.cosi.dev, id: widgets.example.org}\n" +
		"spec: {resource_type: Widgets.example.org, display_type: Widget, default_namespace: config, message: example.Widget, descriptors: " +
		base64.StdEncoding.EncodeToString(descriptors) + "}\n"
}

// TestExport: what one node exports makes another the same, and that exports the same bytes.
func TestExport(t *testing.T) {
	vmtest.Parallel(t, 35)
	vmtest.Host(t)
	o := buildOutside(t)
	first := vmtest.Start(t, vmtest.Options{Boot: node.Kernel})
	first.Ready(t)
	o.connect(t, first)
	first.Converged(t, first.Apply(t, kept("exported")+"---\n"+
		"metadata: {type: resolver, id: ours, labels: {site: berlin}, annotations: {note: 'by hand'}}\nspec: {servers: [192.0.2.53]}\n")...)
	file := filepath.Join(t.TempDir(), "widgets.yaml")
	if err := os.WriteFile(file, []byte(widgets(t)), 0o644); err != nil {
		t.Fatal(err)
	}
	o.cosictl(t, "apply", "-f", file)
	exported := o.cosictl(t, "export")
	for _, part := range []string{"id: exported", "site: berlin", "note: by hand", "DHCPClients.network.cosi.dev", "id: widgets.example.org", "size: big", "# Certificates.machine.cosi.dev are sensitive"} {
		if !strings.Contains(exported, part) {
			t.Errorf("the export lacks %q:\n%s", part, exported)
		}
	}
	first.Kill()

	// A secret where it should not stand, in a document that is no YAML and in two that do not fit, is said by nobody.
	const canary = "xyzzy-the-canary"
	bad := "---\nmetadata: {type: cert, id: a}\nspec: {serving_key: *" + canary + "}\n" +
		"---\nmetadata: {type: cert, id: b}\nspec: {" + canary + ": 1}\n---\nmetadata: {type: cert, id: c}\n" + canary + ": 1\n"
	second := vmtest.Start(t, vmtest.Options{Boot: node.Kernel, Documents: exported + bad})
	second.Ready(t)
	o.connect(t, second)
	if again := o.cosictl(t, "export"); again != exported {
		t.Errorf("the second node exports\n%s\nwant\n%s", again, exported)
	}
	if text := o.cosictl(t, "why", "mount/exported"); !strings.Contains(text, "written by user data from fw_cfg") || !strings.Contains(text, "ready") {
		t.Errorf("why:\n%s", text)
	}
	if text := o.cosictl(t, "get", "userdata/fw_cfg", "-o", "yaml"); !strings.Contains(text, "unknown anchor") || !strings.Contains(text, "unknown field") {
		t.Errorf("the source does not say what is wrong:\n%s", text)
	}
	said := second.Console.Tail(10_000)
	for _, kind := range []string{"userdata", "userdatarecords", "logs", "auditrecords", "machine", "certstatus"} {
		said += o.cosictl(t, "get", kind, "-o", "yaml")
	}
	printed := o.cosictl(t, "get", "logs")
	for _, process := range []string{"engine", "kernel", "runtime", "userdata"} {
		if strings.Contains(printed, process) { // a runtime that has nothing to complain of says nothing
			said += o.cosictl(t, "logs", process)
		}
	}
	key := strings.Split(string(second.Identity.Serving.KeyPEM), "\n")[1]
	if strings.Contains(said, canary) || strings.Contains(said, key) || !strings.Contains(said, "unknown anchor") {
		t.Errorf("a secret is said, or nothing is:\n%s", said)
	}
}
