package kinds_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/builtin"
)

func TestEncodeIsCanonical(t *testing.T) {
	fields, err := structpb.NewStruct(map[string]any{"n": 3, "f": 1.5, "yes": "no", "deep": map[string]any{"x": []any{nil, true, "1"}}, "none": map[string]any{}})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		kind    string
		message proto.Message
		want    string
	}{
		{"mount", &storagepb.MountPoint{}, "{}\n"},
		{"mount", &storagepb.MountPoint{Flags: []string{"ro", "true", "1"}, Source: "tmpfs", Data: "a\nb\n"},
			"source: tmpfs\nflags:\n- ro\n- 'true'\n- '1'\ndata: |\n  a\n  b\n"},
		{"shutdown", &powerpb.ShutdownRequest{Action: powerpb.ShutdownRequest_REBOOT}, "action: REBOOT\n"},
		{"shutdown", &powerpb.ShutdownRequest{Action: 77}, "action: 77\n"},
		{"rd", &metapb.ResourceDefinitionSpec{Descriptors: []byte{0, 255}}, "descriptors: AP8=\n"},
		{"log", &servicepb.LogLine{Time: timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)), Sequence: 1 << 63, Fields: fields},
			"time: '2026-01-02T03:04:05.000006Z'\nsequence: 9223372036854775808\nfields:\n  deep:\n    x:\n    - null\n    - true\n    - '1'\n  f: 1.5\n  'n': 3\n  none: {}\n  'yes': 'no'\n"},
	} {
		spec, err := proto.MarshalOptions{Deterministic: true}.Marshal(test.message)
		if err != nil {
			t.Fatal(err)
		}
		got, err := kind(t, test.kind).Encode(spec)
		if err != nil || got != test.want {
			t.Errorf("Encode(%v) = %q, %v; want %q", test.message, got, err, test.want)
		}
		back, problems := kind(t, test.kind).Decode([]byte(got))
		if len(problems) > 0 || string(back) != string(spec) {
			t.Errorf("Decode(%q) = %x, %v; want %x", got, back, problems, spec)
		}
	}
}

func TestWellKnownMessagesHaveTheirOwnForm(t *testing.T) {
	for _, test := range []struct {
		message proto.Message
		want    string
	}{
		{durationpb.New(90*time.Second + 5*time.Millisecond), "90.005s\n"},
		{durationpb.New(-time.Millisecond), "-0.001s\n"},
		{wrapperspb.String("x"), "x\n"},
		{wrapperspb.Double(1e300), "1e+300\n"},
		{wrapperspb.Bytes([]byte("a")), "YQ==\n"},
		{structpb.NewNullValue(), "null\n"},
	} {
		got, err := kinds.EncodeMessage(test.message.ProtoReflect())
		if err != nil || got != test.want {
			t.Errorf("EncodeMessage(%v) = %q, %v; want %q", test.message, got, err, test.want)
		}
		n, problem := kinds.ParseNode([]byte(got))
		back := test.message.ProtoReflect().New()
		if problems := kinds.DecodeMessage(back, n, "spec"); problem != nil || len(problems) > 0 || !proto.Equal(back.Interface(), test.message) {
			t.Errorf("DecodeMessage(%q) = %v, %v, %v", got, back, problem, problems)
		}
	}
	if _, err := kinds.EncodeMessage((&timestamppb.Timestamp{Seconds: 1 << 60}).ProtoReflect()); err == nil {
		t.Error("a time in the year 36 billion was encoded")
	}
}

// FuzzDecode: whatever Decode accepts, Encode writes and Decode reads back to the same bytes; nothing panics.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		"source: /dev/vdb\ntarget: /var/data\nflags: [ro]\n", "{\"link\": {\"name\": \"eth0\"}}", "time: 2026-01-01T00:00:00Z\nfields: {a: [1, null, {b: c}]}\n",
		"action: REBOOT", "a: &a [*a]", "&a a: *a", "x: !!binary aGk=", "source: \"\\0\\u0085\\ud800\"", "mtu: 1e3", "? {a: b}\n: c", "<<: [a]", "%YAML 1.1\n---\na", "descriptors: AP8=\n", "- - - -", "source: !!str 1\ndata: |+\n  a\n\n\n",
	} {
		f.Add([]byte(seed))
	}
	all := builtin.Set().All()
	f.Fuzz(func(t *testing.T, document []byte) {
		for _, k := range all {
			spec, problems := k.Decode(document)
			if len(problems) > 0 {
				continue
			}
			text, err := k.Encode(spec)
			if err != nil {
				t.Fatalf("%s: Encode: %v", k.Type(), err)
			}
			back, problems := k.Decode([]byte(text))
			if len(problems) > 0 || string(back) != string(spec) {
				t.Fatalf("%s: %q → %x → %q → %x %v", k.Type(), document, spec, text, back, problems)
			}
		}
	})
}

// FuzzEncode: any bytes that are a message give YAML that Decode accepts.
func FuzzEncode(f *testing.F) {
	spec, _ := proto.Marshal(&storagepb.MountPoint{Source: "a", Flags: []string{"b\x01\u2028"}})
	f.Add(spec)
	f.Add([]byte("\x0a\x00\x12\x01\x20"))
	k := kind(f, "mount")
	f.Fuzz(func(t *testing.T, spec []byte) {
		text, err := k.Encode(spec)
		if err != nil {
			return
		}
		back, problems := k.Decode([]byte(text))
		if len(problems) > 0 {
			t.Fatalf("Decode(%q): %v", text, problems)
		}
		want, err := k.Unmarshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		got, err := k.Unmarshal(back)
		if err != nil {
			t.Fatal(err)
		}
		got.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
			if !value.Equal(want.Get(field)) {
				t.Errorf("%s: %v; want %v", field.Name(), value, want.Get(field))
			}
			return true
		})
	})
}
