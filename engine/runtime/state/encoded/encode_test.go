package encoded

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

// full returns a resource in which every field is set.
func full() *resourcepb.Resource {
	return &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{
			Namespace: "config", Type: "MountPoints.mount.cosi.dev", Id: "data", Version: "17", Owner: "mount", Phase: "running",
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
			data, err := Answer(r)
			if err != nil {
				t.Fatal(err)
			}
			got := want.ProtoReflect().New().Interface()
			if err := proto.Unmarshal(data, got); err != nil || !proto.Equal(got, want) {
				t.Errorf("%s: %v is decoded as %v, %v", name, want, got, err)
			}
			if len(data) != proto.Size(want) {
				t.Errorf("%s: %T has %d bytes; want %d", name, want, len(data), proto.Size(want))
			}
		}
	}
}

func TestAResourceIsAppendedBehindItsSize(t *testing.T) {
	for name, r := range resources() {
		const before = "before"
		data, err := AppendDelimited([]byte(before), r)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := Size(r), proto.Size(r); got != want {
			t.Errorf("%s: its size is %d; want %d", name, got, want)
		}
		content, n := protowire.ConsumeBytes(data[len(before):])
		got := &resourcepb.Resource{}
		if string(data[:len(before)]) != before || n != len(data)-len(before) || proto.Unmarshal(content, got) != nil || !proto.Equal(got, r) {
			t.Errorf("%s: %q is decoded as %v; want %v", name, data, got, r)
		}
	}
}

func TestEventsAreWhatProtoDecodes(t *testing.T) {
	text := "slow"
	for name, r := range resources() {
		for _, e := range []*resourcepb.Event{
			{Resource: r, EventType: resourcepb.EventType_UPDATED, Old: full(), Bookmark: []byte("0123456789abcdef")},
			{Resource: full(), EventType: resourcepb.EventType_UPDATED, Old: r, Bookmark: []byte{}},
			{Resource: r, EventType: resourcepb.EventType_ERRORED, Error: &text},
			{EventType: resourcepb.EventType_CREATED, Error: new(string)},
		} {
			want := &resourcepb.WatchResponse{Event: []*resourcepb.Event{e}}
			data, err := Event(e)
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
		if _, err := Answer(r); err == nil {
			t.Errorf("%s: a resource is encoded", name)
		}
		if _, err := AppendDelimited(nil, r); err == nil {
			t.Errorf("%s: a resource is encoded behind its size", name)
		}
		if _, err := Event(&resourcepb.Event{Resource: full(), Old: r}); err == nil {
			t.Errorf("%s: an event is encoded", name)
		}
	}
}

// decodings are of resources, and of bytes that are none or that package proto alone decodes.
func decodings(t testing.TB) map[string][]byte {
	all := map[string][]byte{}
	for name, r := range resources() {
		data, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = data
	}
	whole := all["full"]
	all["nothing at all"] = nil
	all["cut short"] = whole[:len(whole)-1]
	all["cut in a length"] = []byte{tagSpec, 0x80}
	all["a length that is not true"] = []byte{tagSpec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}
	all["metadata in two parts"] = append(whole[:len(whole):len(whole)], whole...)
	all["spec before metadata"] = []byte{tagSpec, 2, tagYAMLSpec, 0, tagMetadata, 3, tagID, 1, 'a'}
	all["a label without value"] = []byte{tagMetadata, 4, tagLabels, 2, tagMapKey, 0}
	all["a label twice"] = []byte{tagMetadata, 15, tagLabels, 5, tagMapKey, 1, 'a', tagMapValue, 0, tagLabels, 6, tagMapKey, 1, 'a', tagMapValue, 1, 'b'}
	all["created in two parts"] = []byte{tagMetadata, 8, tagCreated, 2, tagSeconds, 1, tagCreated, 2, tagNanos, 1}
	all["nanos of ten bytes"] = []byte{tagMetadata, 13, tagCreated, 11, tagNanos, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}
	all["not UTF-8"] = []byte{tagMetadata, 3, tagID, 1, 0xff}
	all["another type"] = []byte{1 << 3, 1}
	return all
}

func TestDecodeIsWhatProtoDecodes(t *testing.T) {
	for name, data := range decodings(t) {
		t.Run(name, func(t *testing.T) { decodesAsProto(t, data) })
	}
}

func decodesAsProto(t *testing.T, data []byte) {
	t.Helper()
	want := &resourcepb.Resource{}
	wrong := proto.Unmarshal(data, want)
	got, err := Decode(string(data))
	if (err == nil) != (wrong == nil) || wrong == nil && !proto.Equal(got, want) {
		t.Errorf("%x is decoded as %v, %v; want %v, %v", data, got, err, want, wrong)
	}
}

// FuzzDecode: what comes in is decoded as package proto does, and goes out as the same.
func FuzzDecode(f *testing.F) {
	for _, data := range decodings(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		decodesAsProto(t, data)
		sameInBothForms(t, data)
		r, err := Decode(string(data))
		if err != nil {
			return
		}
		again, err := Append(nil, r)
		if err != nil {
			t.Fatal(err)
		}
		got := &resourcepb.Resource{}
		if err := proto.Unmarshal(again, got); err != nil || !proto.Equal(got, r) {
			t.Fatalf("%v is decoded as %v, %v", r, got, err)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	data, err := proto.Marshal(full())
	if err != nil {
		b.Fatal(err)
	}
	b.Run("by hand", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if decode(string(data)) == nil {
				b.Fatal("left to package proto")
			}
		}
	})
	b.Run("by package proto", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := proto.Unmarshal(data, &resourcepb.Resource{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkAnswer(b *testing.B) {
	r := full()
	b.Run("by hand", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Answer(r); err != nil {
				b.Fatal(err)
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
