package resourcepb_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
)

// named is every message for one resource: its options are called as it is.
const named = "namespace 1 string, type 2 string, id 3 string, options 4 "

// contract is what clients that exist send and understand: each message with its fields, each enum with its values. Nothing in it may change.
var contract = map[string]string{
	"cosi.resource.Metadata": "namespace 1 string, type 2 string, id 3 string, version 4 string, owner 5 string, phase 6 string, " +
		"created 7 google.protobuf.Timestamp, updated 8 google.protobuf.Timestamp, finalizers 9 repeated string, " +
		"labels 10 map string string, annotations 11 map string string",
	"cosi.resource.Spec":     "proto_spec 1 bytes, yaml_spec 2 string",
	"cosi.resource.Resource": "metadata 1 cosi.resource.Metadata, spec 2 cosi.resource.Spec",
	"cosi.resource.LabelTerm": "key 1 string, op 2 cosi.resource.LabelTerm.Operation, value 3 repeated string, " +
		"invert 5 bool",
	"cosi.resource.LabelTerm.Operation": "EXISTS 0, EQUAL 1, NOT_EXISTS 2, IN 3, LT 4, LTE 5, LT_NUMERIC 6, LTE_NUMERIC 7",
	"cosi.resource.LabelQuery":          "terms 1 repeated cosi.resource.LabelTerm",
	"cosi.resource.IDQuery":             "regexp 1 string",
	"cosi.resource.Event": "resource 1 cosi.resource.Resource, event_type 2 cosi.resource.EventType, old 3 cosi.resource.Resource, " +
		"error 4 optional string, bookmark 5 optional bytes",
	"cosi.resource.EventType":                  "CREATED 0, UPDATED 1, DESTROYED 2, BOOTSTRAPPED 3, ERRORED 4, NOOP 5",
	"cosi.resource.GetRequest":                 named + "cosi.resource.GetOptions",
	"cosi.resource.GetOptions":                 "",
	"cosi.resource.GetResponse":                "resource 1 cosi.resource.Resource",
	"cosi.resource.ListRequest":                "namespace 1 string, type 2 string, options 3 cosi.resource.ListOptions",
	"cosi.resource.ListOptions":                "label_query 1 repeated cosi.resource.LabelQuery, id_query 2 cosi.resource.IDQuery",
	"cosi.resource.ListResponse":               "resource 1 cosi.resource.Resource",
	"cosi.resource.CreateRequest":              "resource 1 cosi.resource.Resource, options 2 cosi.resource.CreateOptions",
	"cosi.resource.CreateOptions":              "owner 1 string",
	"cosi.resource.CreateResponse":             "resource 1 cosi.resource.Resource",
	"cosi.resource.UpdateRequest":              "new_resource 2 cosi.resource.Resource, options 3 cosi.resource.UpdateOptions",
	"cosi.resource.UpdateOptions":              "owner 1 string, expected_phase 2 optional string",
	"cosi.resource.UpdateResponse":             "resource 1 cosi.resource.Resource",
	"cosi.resource.DestroyRequest":             named + "cosi.resource.DestroyOptions",
	"cosi.resource.DestroyOptions":             "owner 1 string",
	"cosi.resource.DestroyResponse":            "",
	"cosi.resource.TeardownRequest":            named + "cosi.resource.TeardownOptions",
	"cosi.resource.TeardownOptions":            "owner 1 string",
	"cosi.resource.TeardownResponse":           "destroy_ready 1 bool",
	"cosi.resource.TeardownAndDestroyRequest":  named + "cosi.resource.TeardownAndDestroyOptions",
	"cosi.resource.TeardownAndDestroyOptions":  "owner 1 string",
	"cosi.resource.TeardownAndDestroyResponse": "",
	"cosi.resource.WatchRequest": "namespace 1 string, type 2 string, id 3 optional string, options 4 cosi.resource.WatchOptions, " +
		"api_version 5 int32",
	"cosi.resource.WatchOptions": "bootstrap_contents 1 bool, tail_events 2 int32, label_query 3 repeated cosi.resource.LabelQuery, " +
		"id_query 4 cosi.resource.IDQuery, aggregated 5 bool, start_from_bookmark 6 optional bytes, bootstrap_bookmark 7 bool",
	"cosi.resource.WatchResponse":      "event 1 repeated cosi.resource.Event",
	"cosi.resource.meta.NamespaceSpec": "description 1 string",
	// Ours begin at 100: see below.
	"cosi.resource.meta.ResourceDefinitionSpec": "resource_type 1 string, display_type 2 string, default_namespace 3 string, " +
		"aliases 4 repeated string, all_aliases 5 repeated string, " +
		"print_columns 6 repeated cosi.resource.meta.ResourceDefinitionSpec.PrintColumn, " +
		"sensitivity 7 cosi.resource.meta.ResourceDefinitionSpec.Sensitivity",
	"cosi.resource.meta.ResourceDefinitionSpec.PrintColumn": "name 1 string, json_path 2 string",
	"cosi.resource.meta.ResourceDefinitionSpec.Sensitivity": "NON_SENSITIVE 0, SENSITIVE 1",
}

// ours is where the numbers of our own fields begin, which clients that exist skip.
const ours = 100

func TestDescriptorsAreTheContract(t *testing.T) {
	found := map[string]string{}
	for _, file := range []protoreflect.FileDescriptor{resourcepb.File_cosi_resource_resource_proto, resourcepb.File_cosi_resource_state_proto} {
		collect(found, file)
	}
	collect(found, metapb.File_cosi_resource_meta_meta_proto)
	for name, want := range contract {
		if got, ok := found[name]; !ok || got != want {
			t.Errorf("%s is\n\t%s\nwant\n\t%s", name, got, want)
		}
	}
	for name := range found {
		if _, ok := contract[name]; !ok && !strings.HasPrefix(name, "cosi.resource.meta.") {
			t.Errorf("%s is none of the contract", name)
		}
	}
	if !(&resourcepb.UpdateRequest{}).ProtoReflect().Descriptor().ReservedRanges().Has(1) {
		t.Error("field 1 of UpdateRequest is not reserved")
	}
}

// container is a file or a message.
type container interface {
	Messages() protoreflect.MessageDescriptors
	Enums() protoreflect.EnumDescriptors
}

// collect describes the messages and enums in c.
func collect(found map[string]string, c container) {
	for i := range c.Enums().Len() {
		e := c.Enums().Get(i)
		var values []string
		for i := range e.Values().Len() {
			v := e.Values().Get(i)
			values = append(values, fmt.Sprint(v.Name(), " ", v.Number()))
		}
		found[string(e.FullName())] = strings.Join(values, ", ")
	}
	for i := range c.Messages().Len() {
		m := c.Messages().Get(i)
		if m.IsMapEntry() {
			continue
		}
		found[string(m.FullName())] = describe(m)
		collect(found, m)
	}
}

// describe returns the fields of m that are not ours, by number.
func describe(m protoreflect.MessageDescriptor) string {
	var all []protoreflect.FieldDescriptor
	for i := range m.Fields().Len() {
		if f := m.Fields().Get(i); f.Number() < ours {
			all = append(all, f)
		}
	}
	slices.SortFunc(all, func(a, b protoreflect.FieldDescriptor) int { return int(a.Number() - b.Number()) })
	var fields []string
	for _, f := range all {
		fields = append(fields, fmt.Sprintf("%s %d %s", f.Name(), f.Number(), kindOf(f)))
	}
	return strings.Join(fields, ", ")
}

func kindOf(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		return "map " + kindOf(f.MapKey()) + " " + kindOf(f.MapValue())
	case f.IsList():
		return "repeated " + typeOf(f)
	case f.HasOptionalKeyword():
		return "optional " + typeOf(f)
	}
	return typeOf(f)
}

func typeOf(f protoreflect.FieldDescriptor) string {
	switch {
	case f.Message() != nil:
		return string(f.Message().FullName())
	case f.Enum() != nil:
		return string(f.Enum().FullName())
	}
	return f.Kind().String()
}

// TestTheServiceIsTheContract: a method is called by its name, and is a stream of answers or one.
func TestTheServiceIsTheContract(t *testing.T) {
	service := resourcepb.File_cosi_resource_state_proto.Services().ByName("State")
	want := []string{"Get", "List stream", "Create", "Update", "Destroy", "Teardown", "TeardownAndDestroy", "Watch stream"}
	var got []string
	for i := range service.Methods().Len() {
		m := service.Methods().Get(i)
		name := string(m.Name())
		if m.Input().FullName() != protoreflect.FullName("cosi.resource."+name+"Request") || m.IsStreamingClient() ||
			m.Output().FullName() != protoreflect.FullName("cosi.resource."+name+"Response") {
			t.Errorf("%s takes %s and returns %s", name, m.Input().FullName(), m.Output().FullName())
		}
		if m.IsStreamingServer() {
			name += " stream"
		}
		got = append(got, name)
	}
	if service.FullName() != "cosi.resource.State" || !slices.Equal(got, want) {
		t.Errorf("%s has %q; want %q", service.FullName(), got, want)
	}
}
