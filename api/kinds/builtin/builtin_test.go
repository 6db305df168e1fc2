package builtin

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/descriptors"
)

func TestKindsDoNotContradictEachOther(t *testing.T) {
	set, err := load()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(set.All()); n < 20 {
		t.Errorf("%d kinds; want at least 20", n)
	}
}

func TestNamespacesAreKnown(t *testing.T) {
	known := map[string]bool{"config": true, "requests": true, "meta": true, "status": true, "events": true, "logs": true, "audit": true}
	for _, k := range Set().All() {
		if !known[k.Namespace()] {
			t.Errorf("%s: namespace %q is unknown", k.Type(), k.Namespace())
		}
		if k.Definition.GetDisplayType() == "" || k.Definition.GetDescription() == "" {
			t.Errorf("%s: display_type or description is empty", k.Type())
		}
	}
}

// records lie in config because it is durable; nobody answers to them. To an UpgradeChunk answers the status of its Upgrade.
var records = []string{
	"ServingKeys.machine.cosi.dev", "UpgradeChunks.machine.cosi.dev", "UpgradeRecords.machine.cosi.dev", "UserDataRecords.machine.cosi.dev",
}

func TestEveryDesiredKindHasAnObservedKind(t *testing.T) {
	set := Set()
	for _, k := range set.All() {
		desired := (k.Namespace() == "config" || k.Namespace() == "requests") && !slices.Contains(records, k.Type())
		observed := k.Definition.GetObservedType()
		if desired != (observed != "") {
			t.Errorf("%s in namespace %s: observed_type is %q", k.Type(), k.Namespace(), observed)
		}
		if observed == "" {
			continue
		}
		status := set.ByType(observed)
		if status == nil {
			t.Errorf("%s: observed_type %s does not exist", k.Type(), observed)
			continue
		}
		if status.Namespace() != "status" {
			t.Errorf("%s: namespace is %s; want status", observed, status.Namespace())
		}
		beginsLikeAStatus(t, status)
	}
}

func beginsLikeAStatus(t *testing.T, k *kinds.Kind) {
	t.Helper()
	for i, want := range []struct {
		name protoreflect.Name
		kind protoreflect.Kind
	}{
		{"observed_version", protoreflect.StringKind}, {"ready", protoreflect.BoolKind},
		{"reason", protoreflect.StringKind}, {"message", protoreflect.StringKind},
	} {
		field := k.Message.Fields().ByNumber(protoreflect.FieldNumber(i + 1))
		if field == nil || field.Name() != want.name || field.Kind() != want.kind {
			t.Errorf("%s: field %d is %v; want %v %s", k.Type(), i+1, field, want.kind, want.name)
		}
	}
}

func TestPrintColumnsResolve(t *testing.T) {
	for _, k := range Set().All() {
		for _, column := range k.Definition.GetPrintColumns() {
			path, ok := strings.CutPrefix(strings.Trim(column.GetJsonPath(), "{}"), ".spec.")
			if !ok {
				t.Errorf("%s: column %s: %q is not below spec", k.Type(), column.GetName(), column.GetJsonPath())
				continue
			}
			message := k.Message
			for _, step := range strings.Split(path, ".") {
				field := message.Fields().ByName(protoreflect.Name(strings.TrimSuffix(step, "[*]")))
				if field == nil {
					t.Errorf("%s: column %s: %s has no field %q", k.Type(), column.GetName(), message.Name(), step)
					break
				}
				message = field.Message()
			}
		}
	}
}

func TestDefinitionsGoOverTheWire(t *testing.T) {
	for _, k := range Set().All() {
		d, err := descriptors.Definition(k)
		if err != nil {
			t.Fatal(err)
		}
		read, err := descriptors.Kind(d)
		if err != nil {
			t.Fatal(err)
		}
		if read.Type() != k.Type() || read.Message.FullName() != k.Message.FullName() || read.Definition.GetDescriptors() != nil {
			t.Errorf("%s came back as %v", k.Type(), read.Definition)
		}
		fromSet, err := descriptors.Kinds(d.GetDescriptors())
		if err != nil || len(fromSet) == 0 {
			t.Errorf("FromDescriptorSet(%s) = %d kinds, %v", k.Type(), len(fromSet), err)
		}
	}
}
