package encoded

import (
	"testing"

	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

func TestRequestsAreWhatProtoDecodes(t *testing.T) {
	phase := "running"
	for name, r := range resources() {
		data, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		usual := decode(string(data)) != nil
		for want, byHand := range map[proto.Message]bool{
			&resourcepb.CreateRequest{}: true,
			&resourcepb.CreateRequest{Options: &resourcepb.CreateOptions{Owner: "a"}}:                                        true,
			&resourcepb.CreateRequest{Resource: r}:                                                                           usual,
			&resourcepb.CreateRequest{Resource: r, Options: &resourcepb.CreateOptions{}}:                                     usual,
			&resourcepb.CreateRequest{Resource: r, Options: &resourcepb.CreateOptions{Owner: "a"}}:                           usual,
			&resourcepb.UpdateRequest{NewResource: r}:                                                                        usual,
			&resourcepb.UpdateRequest{NewResource: r, Options: &resourcepb.UpdateOptions{}}:                                  usual,
			&resourcepb.UpdateRequest{NewResource: r, Options: &resourcepb.UpdateOptions{Owner: "a", ExpectedPhase: &phase}}: usual,
			&resourcepb.GetRequest{Id: "a"}:                                                                                  false,
		} {
			data, err := proto.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			got := want.ProtoReflect().New().Interface()
			if ok := Request(data, got); ok != byHand || ok && !proto.Equal(got, want) {
				t.Errorf("%s: %v is decoded as %v, by hand: %v; want %v", name, want, got, ok, byHand)
			}
		}
	}
}

// FuzzRequest: what is decoded by hand is what package proto decodes.
func FuzzRequest(f *testing.F) {
	for _, data := range decodings(f) {
		for _, tag := range []byte{tagCreateResource, tagUpdateResource} {
			whole := append(appendLength(nil, tag, len(data)), data...)
			f.Add(whole)
			f.Add(append(whole, tagUpdateOptions, 2, 1<<3|2, 0))
			f.Add(append(whole, tagUpdateOptions, 2, 1<<3|2, 1))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, m := range []proto.Message{&resourcepb.CreateRequest{}, &resourcepb.UpdateRequest{}} {
			want := m.ProtoReflect().New().Interface()
			wrong := proto.Unmarshal(data, want)
			if Request(append([]byte{}, data...), m) && (wrong != nil || !proto.Equal(m, want)) {
				t.Errorf("%x is decoded as %v; want %v, %v", data, m, want, wrong)
			}
		}
	})
}

func BenchmarkRequest(b *testing.B) {
	data, err := proto.Marshal(&resourcepb.UpdateRequest{NewResource: &resourcepb.Resource{
		Metadata: full().GetMetadata(), Spec: &resourcepb.Spec{ProtoSpec: make([]byte, 256)},
	}})
	if err != nil {
		b.Fatal(err)
	}
	for name, decode := range map[string]func([]byte, *resourcepb.UpdateRequest) bool{
		"by hand":          func(data []byte, q *resourcepb.UpdateRequest) bool { return Request(data, q) },
		"by package proto": func(data []byte, q *resourcepb.UpdateRequest) bool { return proto.Unmarshal(data, q) == nil },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !decode(data, &resourcepb.UpdateRequest{}) {
					b.Fatal("left to package proto")
				}
			}
		})
	}
}
