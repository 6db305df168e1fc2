package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/builtin"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// sample sets every field of a kind's message to something that can be recognised.
func sample(t *testing.T, k *kinds.Kind) *resourcepb.Resource {
	t.Helper()
	m := dynamicpb.NewMessage(k.Message)
	fill(m, 0)
	spec, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Type: k.Type(), Id: "sample", Version: "1", Phase: "running", Created: timestamppb.New(noon.Add(-90 * time.Minute))},
		Spec:     &resourcepb.Spec{ProtoSpec: spec},
	}
}

func fill(m protoreflect.Message, depth int) {
	if m.Descriptor().FullName() == "google.protobuf.Timestamp" {
		m.Set(m.Descriptor().Fields().ByName("seconds"), protoreflect.ValueOfInt64(noon.Unix()))
		return
	}
	for i := range m.Descriptor().Fields().Len() {
		field := m.Descriptor().Fields().Get(i)
		if of := field.ContainingOneof(); of != nil && m.WhichOneof(of) != nil || depth > 3 {
			continue
		}
		switch {
		case field.IsMap():
		case field.IsList() && field.Message() != nil:
			item := m.Mutable(field).List().NewElement()
			fill(item.Message(), depth+1)
			m.Mutable(field).List().Append(item)
		case field.IsList():
			m.Mutable(field).List().Append(scalarSample(field))
			m.Mutable(field).List().Append(scalarSample(field))
		case field.Message() != nil:
			fill(m.Mutable(field).Message(), depth+1)
		default:
			m.Set(field, scalarSample(field))
		}
	}
}

func scalarSample(field protoreflect.FieldDescriptor) protoreflect.Value {
	switch field.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(string(field.Name()))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte("x"))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(field.Number()))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(field.Number()))
	}
	return field.Default()
}

func TestTheTableOfEveryKind(t *testing.T) {
	var said strings.Builder
	for _, k := range builtin.Set().All() {
		if strings.HasSuffix(k.Type(), ".test.cosi.dev") {
			continue // what tests bring is not for people
		}
		full := sample(t, k)
		empty := &resourcepb.Resource{Metadata: &resourcepb.Metadata{Type: k.Type(), Id: "empty", Phase: "tearingDown"}}
		var rows [][]string
		for _, r := range []*resourcepb.Resource{full, empty} {
			cells, err := row(k, r, noon)
			if err != nil {
				t.Fatal(err)
			}
			rows = append(rows, cells)
		}
		said.WriteString("$ cosictl get " + k.ShortName() + "\n")
		newTable(&said, false, header(k)...).print(rows)
		said.WriteString("\n")
	}
	if strings.Contains(said.String(), "?") {
		t.Error("a column leads nowhere")
	}
	golden(t, "tables", said.String())
}

func TestCellsOfAKindFromTheNetwork(t *testing.T) {
	message := &networkpb.DHCPClientStatus{Leases: []*networkpb.DHCPClientStatus_Lease{{Address: "a"}, {Address: "b\x1b[2J\nc"}}}
	link := &networkpb.DHCPClient{Link: &networkpb.LinkSelector{By: &networkpb.LinkSelector_FirstWithCarrier{FirstWithCarrier: true}}}
	for _, test := range []struct {
		message    proto.Message
		path, want string
	}{
		{message, "{.spec.leases[*].address}", "a,b [2J c"},
		{message, ".spec.ready", "false"},
		{message, "{.spec.reason}", ""},
		{message, "{.spec.nothing}", "?"},
		{message, "{.status.ready}", "?"},
		{message, "", "?"},
		{message, "{.metadata.id}", "x"},
		{link, "{.spec.link}", "first_with_carrier"},
		{&servicepb.LogLine{Time: timestamppb.New(noon.Add(1500 * time.Millisecond))}, "{.spec.time}", "2026-01-02T12:00:01Z"},
		{link, "{.spec.link.name}", ""},
		{&networkpb.DHCPClient{}, "{.spec.link}", ""},
	} {
		got := cell(test.message.ProtoReflect(), &resourcepb.Resource{Metadata: &resourcepb.Metadata{Id: "x"}}, test.path)
		if got != test.want {
			t.Errorf("cell(%v, %q) = %q; want %q", test.message, test.path, got, test.want)
		}
	}
}

func TestShortDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m", 119 * time.Minute: "119m", 2 * time.Hour: "2h", 47 * time.Hour: "47h", 48 * time.Hour: "2d",
	} {
		if got := shortDuration(d); got != want {
			t.Errorf("shortDuration(%v) = %q; want %q", d, got, want)
		}
	}
}

func TestColoursStandOnATerminalOnly(t *testing.T) {
	var plainText, coloured strings.Builder
	for _, out := range []struct {
		b       *strings.Builder
		colours bool
	}{{&plainText, false}, {&coloured, true}} {
		newTable(out.b, out.colours, "ID", "READY").print([][]string{{"a", "true"}, {"b", "false"}})
	}
	if strings.Contains(plainText.String(), "\x1b") {
		t.Errorf("plain: %q", plainText.String())
	}
	if want := bold + "ID" + plain + "   " + bold + "READY" + plain + "\na    " + green + "true" + plain + "\nb    " + red + "false" + plain + "\n"; coloured.String() != want {
		t.Errorf("coloured: %q; want %q", coloured.String(), want)
	}
}
