package encoded

import (
	"fmt"
	"strings"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

// Resource is a resource as a message or encoded. A table keeps it as it was written while its last change is in the history, which has it
// anyway, and encoded from then on: that is half the memory, and few pointers for the garbage collector to follow. List returns it as it is
// kept, and so it is sent; whoever wants to look into it asks for the message. The zero Resource is gone.
type Resource struct {
	id      string
	message *resourcepb.Resource // nil: it is encoded, or gone
	answer  string               // what Answer returns for it
}

// Of returns r, which may be nil, as a message.
func Of(r *resourcepb.Resource) Resource { return Resource{id: r.GetMetadata().GetId(), message: r} }

// Gone returns what is left of a resource: its id.
func Gone(id string) Resource { return Resource{id: id} }

// Parse returns the resource that data is the encoding of, encoded and as a message. It fails when data is none.
func Parse(data []byte) (Resource, *resourcepb.Resource, error) {
	b := make([]byte, 0, 1+protowire.SizeBytes(len(data)))
	b = append(appendLength(b, tagResource, len(data)), data...)
	r := Resource{answer: unsafe.String(unsafe.SliceData(b), len(b))} // nobody else has b
	m, err := Decode(r.content())
	r.id = strings.Clone(m.GetMetadata().GetId()) // stores keep the id longer than this version
	return r, m, err
}

// ID returns that of the resource.
func (r Resource) ID() string { return r.id }

// IsGone reports whether there is no resource.
func (r Resource) IsGone() bool { return r.message == nil && r.answer == "" }

// IsEncoded reports whether the resource is there and no message.
func (r Resource) IsEncoded() bool { return r.message == nil && r.answer != "" }

// Is reports whether r is the message m and not encoded.
func (r Resource) Is(m *resourcepb.Resource) bool { return m != nil && r.message == m }

// Put makes r what m is, gone if that is nil. The id stays.
func (r *Resource) Put(m *resourcepb.Resource) { r.message, r.answer = m, "" }

// Encode makes a message encoded. One with a text that cannot be stays as it is.
func (r *Resource) Encode() {
	if b, err := Answer(r.message); err == nil {
		r.message, r.answer = nil, unsafe.String(unsafe.SliceData(b), len(b)) // nobody else has b
	}
}

// content returns the encoding of an encoded resource alone.
func (r Resource) content() string {
	in := input{rest: r.answer}
	in.byte()
	return in.field()
}

// Message returns the resource as a message, nil if it is gone.
func (r Resource) Message() *resourcepb.Resource {
	if !r.IsEncoded() {
		return r.message
	}
	m, err := Decode(r.content())
	if err != nil {
		panic(fmt.Sprintf("encoded: %q was encoded here: %v", r.id, err))
	}
	return m
}

// Label returns the value of a label of the resource. It decodes nothing else.
func (r Resource) Label(key string) (value string, has bool) {
	if r.IsEncoded() {
		if value, has, ok := label(r.content(), key); ok {
			return value, has
		}
	}
	value, has = r.Message().GetMetadata().GetLabels()[key]
	return value, has
}

// Answer returns what Answer does for the message. Nobody may change it. It fails when a text is not UTF-8.
func (r Resource) Answer() ([]byte, error) {
	if r.IsEncoded() {
		return bytesOf(r.answer), nil
	}
	return Answer(r.message)
}

// Append appends the encoded resource. It fails when a text is not UTF-8.
func (r Resource) Append(b []byte) ([]byte, error) {
	if r.IsEncoded() {
		return append(b, r.content()...), nil
	}
	return Append(b, r.message)
}
