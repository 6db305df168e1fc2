package server

import (
	"strings"
	"testing"

	"google.golang.org/grpc/encoding"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

// full returns a resource in which every field is set.
func full() *resourcepb.Resource {
	return &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{
			Namespace: "config", Type: "MountPoints.mount.cosi.dev", Id: "data", Version: "17", Owner: "mount", Phase: state.PhaseRunning,
			Created: &timestamppb.Timestamp{Seconds: 1_800_000_000, Nanos: 999_999_999}, Updated: &timestamppb.Timestamp{Seconds: -1, Nanos: -5},
			Finalizers: []string{"mount", "", "network"},
			Labels:     map[string]string{"zone": "a", "": "empty key", "empty value": ""},
			Annotations: map[string]string{
				"cosi.dev/cause": strings.Repeat("long ", 100), "umlaut": "ü",
			},
		},
		Spec: &resourcepb.Spec{ProtoSpec: []byte{0, 1, 0xff}, YamlSpec: strings.Repeat("source: /dev/vdb\n", 20)},
	}
}

// resources are those in which something is missing, or is what package proto has to encode.
func resources() map[string]*resourcepb.Resource {
	later := protowire.AppendString(protowire.AppendTag(nil, 99, protowire.BytesType), "of a later version")
	with := func(edit func(*resourcepb.Resource)) *resourcepb.Resource {
		r := full()
		edit(r)
		return r
	}
	return map[string]*resourcepb.Resource{
		"full":                     full(),
		"nothing":                  {},
		"empty parts":              {Metadata: &resourcepb.Metadata{Created: &timestamppb.Timestamp{}}, Spec: &resourcepb.Spec{}},
		"no spec":                  with(func(r *resourcepb.Resource) { r.Spec = nil }),
		"no metadata":              with(func(r *resourcepb.Resource) { r.Metadata = nil }),
		"unknown fields":           with(func(r *resourcepb.Resource) { r.ProtoReflect().SetUnknown(later) }),
		"unknown fields, metadata": with(func(r *resourcepb.Resource) { r.Metadata.ProtoReflect().SetUnknown(later) }),
		"unknown fields, spec":     with(func(r *resourcepb.Resource) { r.Spec.ProtoReflect().SetUnknown(later) }),
		"unknown fields, created":  with(func(r *resourcepb.Resource) { r.Metadata.Created.ProtoReflect().SetUnknown(later) }),
	}
}

func TestAnswersAreWhatProtoDecodes(t *testing.T) {
	for name, r := range resources() {
		for _, want := range []proto.Message{
			&resourcepb.GetResponse{Resource: r}, &resourcepb.ListResponse{Resource: r}, &resourcepb.CreateResponse{Resource: r},
			&resourcepb.UpdateResponse{Resource: r},
		} {
			data, err := wireCodec(t).Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			got := want.ProtoReflect().New().Interface()
			if err := proto.Unmarshal(data.Materialize(), got); err != nil || !proto.Equal(got, want) {
				t.Errorf("%s: %v is decoded as %v, %v", name, want, got, err)
			}
			if data.Len() != proto.Size(want) {
				t.Errorf("%s: %T has %d bytes; want %d", name, want, data.Len(), proto.Size(want))
			}
		}
	}
}

func TestEventsAreWhatProtoDecodes(t *testing.T) {
	text := "slow"
	for name, r := range resources() {
		for _, e := range []*state.Event{
			{Resource: r, EventType: resourcepb.EventType_UPDATED, Old: full(), Bookmark: []byte("0123456789abcdef")},
			{Resource: full(), EventType: resourcepb.EventType_UPDATED, Old: r, Bookmark: []byte{}},
			{Resource: r, EventType: resourcepb.EventType_ERRORED, Error: &text},
			{EventType: resourcepb.EventType_CREATED, Error: new(string)},
		} {
			want := &resourcepb.WatchResponse{Event: []*state.Event{e}}
			data, err := encode(e)
			if err != nil {
				t.Fatal(err)
			}
			got := &resourcepb.WatchResponse{}
			if err := proto.Unmarshal(data, got); err != nil || !proto.Equal(got, want) {
				t.Errorf("%s: %v is decoded as %v, %v", name, want, got, err)
			}
			if len(data) != proto.Size(want) {
				t.Errorf("%s: %d bytes; want %d", name, len(data), proto.Size(want))
			}
		}
	}
}

func TestTextThatIsNotUTF8IsAnErrorAndNotSent(t *testing.T) {
	const bad = "\xff"
	for name, edit := range map[string]func(*resourcepb.Resource){
		"id":         func(r *resourcepb.Resource) { r.Metadata.Id = bad },
		"finalizer":  func(r *resourcepb.Resource) { r.Metadata.Finalizers[0] = bad },
		"label":      func(r *resourcepb.Resource) { r.Metadata.Labels["zone"] = bad },
		"annotation": func(r *resourcepb.Resource) { r.Metadata.Annotations[bad] = "x" },
		"yaml":       func(r *resourcepb.Resource) { r.Spec.YamlSpec = bad },
	} {
		r := full()
		edit(r)
		if _, err := wireCodec(t).Marshal(&resourcepb.GetResponse{Resource: r}); err == nil {
			t.Errorf("%s: a resource is encoded", name)
		}
		if _, err := encode(&state.Event{Resource: full(), Old: r}); err == nil {
			t.Errorf("%s: an event is encoded", name)
		}
	}
}

func wireCodec(t testing.TB) codec {
	t.Helper()
	return codec{encoding.GetCodecV2("proto")}
}

// FuzzAppend: what comes in as a resource goes out as the same, whoever encodes it.
func FuzzAppend(f *testing.F) {
	for _, r := range resources() {
		data, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &resourcepb.Resource{}
		if proto.Unmarshal(data, r) != nil {
			return
		}
		encoded, err := wireCodec(t).Marshal(&resourcepb.GetResponse{Resource: r})
		if err != nil {
			t.Fatal(err)
		}
		got := &resourcepb.GetResponse{}
		if err := proto.Unmarshal(encoded.Materialize(), got); err != nil || !proto.Equal(got.GetResource(), r) {
			t.Fatalf("%v is decoded as %v, %v", r, got, err)
		}
	})
}

func BenchmarkAnswer(b *testing.B) {
	r := full()
	b.Run("by hand", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := encodeAnswer(r); !ok {
				b.Fatal("left to package proto")
			}
		}
	})
	b.Run("by package proto", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := proto.Marshal(&resourcepb.GetResponse{Resource: r}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
