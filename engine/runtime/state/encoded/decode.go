package encoded

import (
	"encoding/binary"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

// Decode decodes a resource. Its texts and its content are parts of s.
func Decode(s string) (*resourcepb.Resource, error) {
	if r := decode(s); r != nil {
		return r, nil
	}
	r := &resourcepb.Resource{}
	return r, proto.Unmarshal(bytesOf(s), r)
}

// bytesOf returns s as bytes, which nobody may change.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// block is what a decoded resource consists of in one piece of memory, but for lists and maps, and for the spec: later versions may go on
// with that alone.
type block struct {
	resource         resourcepb.Resource
	metadata         resourcepb.Metadata
	created, updated timestamppb.Timestamp
}

// decode returns nil where package proto has to decode s, because it is wrong or unusual.
func decode(s string) *resourcepb.Resource {
	b := &block{}
	r := &b.resource
	in := input{rest: s}
	for !in.ended() {
		switch tag := in.byte(); {
		case tag == tagMetadata && r.Metadata == nil:
			r.Metadata = &b.metadata
			b.decodeMetadata(&in)
		case tag == tagSpec && r.Spec == nil:
			r.Spec = decodeSpec(&in)
		default:
			return nil
		}
	}
	if in.wrong {
		return nil
	}
	return r
}

func (b *block) decodeMetadata(outer *input) {
	m := &b.metadata
	in := outer.inner()
	for !in.ended() {
		switch tag := in.byte(); tag {
		case tagNamespace:
			m.Namespace = in.text()
		case tagType:
			m.Type = in.text()
		case tagID:
			m.Id = in.text()
		case tagVersion:
			m.Version = in.text()
		case tagOwner:
			m.Owner = in.text()
		case tagPhase:
			m.Phase = in.text()
		case tagCreated:
			m.Created = in.time(m.Created, &b.created)
		case tagUpdated:
			m.Updated = in.time(m.Updated, &b.updated)
		case tagFinalizers:
			m.Finalizers = append(m.Finalizers, in.text())
		case tagLabels:
			in.entry(&m.Labels)
		case tagAnnotations:
			in.entry(&m.Annotations)
		default:
			in.wrong = true
		}
	}
	outer.wrong = outer.wrong || in.wrong
}

func decodeSpec(outer *input) *resourcepb.Spec {
	spec := &resourcepb.Spec{}
	in := outer.inner()
	for !in.ended() {
		switch in.byte() {
		case tagProtoSpec:
			spec.ProtoSpec = bytesOf(in.field())
		case tagYAMLSpec:
			spec.YamlSpec = in.text()
		default:
			in.wrong = true
		}
	}
	outer.wrong = outer.wrong || in.wrong
	return spec
}

// input is what is left to decode. After the first thing that is wrong nothing is left.
type input struct {
	rest  string
	wrong bool
}

func (in *input) ended() bool { return in.wrong || in.rest == "" }

// byte takes a byte; there is one.
func (in *input) byte() byte {
	b := in.rest[0]
	in.rest = in.rest[1:]
	return b
}

func (in *input) varint() uint64 {
	if len(in.rest) > 0 && in.rest[0] < 0x80 {
		return uint64(in.byte())
	}
	v, n := binary.Uvarint(bytesOf(in.rest))
	if n <= 0 {
		in.wrong = true
		return 0
	}
	in.rest = in.rest[n:]
	return v
}

// field takes a length and what is of that length.
func (in *input) field() string {
	n := in.varint()
	if in.wrong || n > uint64(len(in.rest)) {
		in.wrong = true
		return ""
	}
	s := in.rest[:n]
	in.rest = in.rest[n:]
	return s
}

func (in *input) text() string {
	s := in.field()
	in.wrong = in.wrong || !utf8.ValidString(s)
	return s
}

func (in *input) inner() input {
	s := in.field()
	return input{rest: s, wrong: in.wrong}
}

// time takes a time into t. had is what the field held before: only package proto joins two.
func (in *input) time(had, t *timestamppb.Timestamp) *timestamppb.Timestamp {
	inner := in.inner()
	inner.wrong = inner.wrong || had != nil
	for !inner.ended() {
		switch inner.byte() {
		case tagSeconds:
			t.Seconds = int64(inner.varint())
		case tagNanos:
			t.Nanos = int32(inner.varint())
		default:
			inner.wrong = true
		}
	}
	in.wrong = in.wrong || inner.wrong
	return t
}

// entry takes one entry into a map.
func (in *input) entry(texts *map[string]string) {
	key, value := in.pair()
	if *texts == nil {
		*texts = map[string]string{}
	}
	(*texts)[key] = value
}

// pair takes one entry of a map.
func (in *input) pair() (key, value string) {
	inner := in.inner()
	for !inner.ended() {
		switch inner.byte() {
		case tagMapKey:
			key = inner.text()
		case tagMapValue:
			value = inner.text()
		default:
			inner.wrong = true
		}
	}
	in.wrong = in.wrong || inner.wrong
	return key, value
}

// label returns the value of a label of the resource that s is the encoding of. It is not ok where package proto has to decode s.
func label(s, key string) (value string, has, ok bool) {
	in := input{rest: s}
	if in.ended() || in.byte() != tagMetadata {
		return "", false, false
	}
	metadata := in.inner()
	if !in.ended() {
		in.wrong = in.byte() != tagSpec
		in.field()
	}
	for !metadata.ended() {
		switch metadata.byte() {
		case tagLabels:
			if k, v := metadata.pair(); k == key {
				value, has = v, true
			}
		case tagNamespace, tagType, tagID, tagVersion, tagOwner, tagPhase, tagCreated, tagUpdated, tagFinalizers, tagAnnotations:
			metadata.field()
		default:
			return "", false, false
		}
	}
	return value, has, in.rest == "" && !in.wrong && !metadata.wrong
}
