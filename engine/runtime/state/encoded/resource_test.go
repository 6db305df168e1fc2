package encoded

import (
	"testing"

	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

func TestAResourceIsTheSameInBothForms(t *testing.T) {
	for name, data := range decodings(t) {
		t.Run(name, func(t *testing.T) { sameInBothForms(t, data) })
	}
}

// sameInBothForms parses data and asks what came of it, as a message, and encoded again for what package proto says.
func sameInBothForms(t *testing.T, data []byte) {
	t.Helper()
	want := &resourcepb.Resource{}
	wrong := proto.Unmarshal(data, want)
	parsed, m, err := Parse(data)
	if (err == nil) != (wrong == nil) || wrong == nil && !proto.Equal(m, want) {
		t.Fatalf("%x is parsed as %v, %v; want %v, %v", data, m, err, want, wrong)
	}
	if err != nil {
		return
	}
	message := Of(m)
	again := message
	again.Encode()
	for form, r := range map[string]Resource{"parsed": parsed, "message": message, "encoded": again} {
		if got := r.IsEncoded(); got != (form != "message") || r.IsGone() {
			t.Errorf("%s: encoded %v, gone %v", form, got, r.IsGone())
		}
		if !proto.Equal(r.Message(), want) || r.ID() != want.GetMetadata().GetId() {
			t.Errorf("%s: %q is %v; want %v", form, r.ID(), r.Message(), want)
		}
		labels := want.GetMetadata().GetLabels()
		for _, key := range []string{"zone", "", "empty value", "a", "umlaut", "nowhere"} {
			value, has := labels[key]
			if got, there := r.Label(key); got != value || there != has {
				t.Errorf("%s: label %q = %q, %v; want %q, %v", form, key, got, there, value, has)
			}
		}
		bytes, err := r.Append(nil)
		if got := (&resourcepb.Resource{}); err != nil || proto.Unmarshal(bytes, got) != nil || !proto.Equal(got, want) {
			t.Errorf("%s: appends %x, %v; want %v", form, bytes, err, want)
		}
		bytes, err = r.Answer()
		if got := (&resourcepb.ListResponse{}); err != nil || proto.Unmarshal(bytes, got) != nil || !proto.Equal(got.GetResource(), want) {
			t.Errorf("%s: answers %x, %v; want %v", form, bytes, err, want)
		}
	}
}

func TestAResourceThatIsGone(t *testing.T) {
	r := Gone("a")
	check := func(gone bool) {
		t.Helper()
		if r.IsGone() != gone || r.IsEncoded() || r.ID() != "a" || (r.Message() == nil) != gone {
			t.Errorf("gone %v, encoded %v, id %q, message %v; want gone %v", r.IsGone(), r.IsEncoded(), r.ID(), r.Message(), gone)
		}
	}
	check(true)
	m := &resourcepb.Resource{Metadata: &resourcepb.Metadata{Id: "a"}}
	r.Put(m)
	check(false)
	if !r.Is(m) || r.Is(nil) {
		t.Errorf("it is what was put there: %v, nothing: %v", r.Is(m), r.Is(nil))
	}
	r.Encode()
	if r.Is(m) || !r.IsEncoded() {
		t.Errorf("it is the message still: %v, encoded: %v", r.Is(m), r.IsEncoded())
	}
	r.Put(nil)
	check(true)
}

// TestWhatIsEncodedIsNotDecodedToBeSent: a label is looked up, and an answer given, without anything being made.
func TestWhatIsEncodedIsNotDecodedToBeSent(t *testing.T) {
	r := Of(full())
	r.Encode()
	if n := testing.AllocsPerRun(100, func() {
		if value, _ := r.Label("zone"); value != "a" {
			t.Error(value)
		}
		if _, err := r.Answer(); err != nil {
			t.Error(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations; want none", n)
	}
}
