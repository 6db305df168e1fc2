// Package encoded turns resources and events into their form on the wire, and back, by hand.
//
// A resource is what nearly every message carries, and package proto takes most of a List to encode it: it walks maps by reflection, twice.
// To decode one it allocates a dozen times; here it is once. Package server encodes what it sends, and package memory keeps so what
// nobody has changed lately, which is then sent as it is kept.
//
// The functions know resources and events as state.proto has them. What they do not know, a field of a later version or a text that is
// not UTF-8, they leave to package proto.
package encoded

import (
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

// Fields 1 to 15 have a tag of one byte.
const (
	tagNamespace   = 1<<3 | 2
	tagType        = 2<<3 | 2
	tagID          = 3<<3 | 2
	tagVersion     = 4<<3 | 2
	tagOwner       = 5<<3 | 2
	tagPhase       = 6<<3 | 2
	tagCreated     = 7<<3 | 2
	tagUpdated     = 8<<3 | 2
	tagFinalizers  = 9<<3 | 2
	tagLabels      = 10<<3 | 2
	tagAnnotations = 11<<3 | 2

	tagMapKey, tagMapValue    = 1<<3 | 2, 2<<3 | 2
	tagSeconds, tagNanos      = 1 << 3, 2 << 3
	tagProtoSpec, tagYAMLSpec = 1<<3 | 2, 2<<3 | 2
	tagMetadata, tagSpec      = 1<<3 | 2, 2<<3 | 2
	tagResource, tagEventType = 1<<3 | 2, 2 << 3
	tagOld, tagError          = 3<<3 | 2, 4<<3 | 2
	tagBookmark               = 5<<3 | 2
	tagEvent                  = 1<<3 | 2 // of WatchResponse
)

// sizes are those of a resource in encoded form. total is less than 0 when package proto has to encode it.
type sizes struct{ metadata, spec, total int }

var unknown = sizes{total: -1}

// measure returns the sizes of r, which is not nil.
func measure(r *resourcepb.Resource) (s sizes) {
	if extra(r) {
		return unknown
	}
	if m := r.GetMetadata(); m != nil {
		if s.metadata = measureMetadata(m); s.metadata < 0 {
			return unknown
		}
		s.total += 1 + protowire.SizeBytes(s.metadata)
	}
	if spec := r.GetSpec(); spec != nil {
		if extra(spec) || !utf8.ValidString(spec.GetYamlSpec()) {
			return unknown
		}
		s.spec = field(len(spec.GetProtoSpec())) + field(len(spec.GetYamlSpec()))
		s.total += 1 + protowire.SizeBytes(s.spec)
	}
	return s
}

// extra reports whether m has fields that are not in its definition.
func extra(m proto.Message) bool { return len(m.ProtoReflect().GetUnknown()) > 0 }

// field returns the size of a text or bytes that are left off when they are empty.
func field(length int) int {
	if length == 0 {
		return 0
	}
	return 1 + protowire.SizeBytes(length)
}

// measureMetadata returns the size of m, less than 0 when package proto has to encode it.
func measureMetadata(m *resourcepb.Metadata) (n int) {
	if extra(m) || !valid(m.GetNamespace(), m.GetType(), m.GetId(), m.GetVersion(), m.GetOwner(), m.GetPhase()) || !valid(m.GetFinalizers()...) {
		return -1
	}
	for _, s := range [...]string{m.GetNamespace(), m.GetType(), m.GetId(), m.GetVersion(), m.GetOwner(), m.GetPhase()} {
		n += field(len(s))
	}
	for _, t := range [...]*timestamppb.Timestamp{m.GetCreated(), m.GetUpdated()} {
		if t == nil {
			continue
		}
		if extra(t) {
			return -1
		}
		n += 1 + protowire.SizeBytes(sizeTime(t))
	}
	for _, f := range m.GetFinalizers() {
		n += 1 + protowire.SizeBytes(len(f))
	}
	for _, texts := range [...]map[string]string{m.GetLabels(), m.GetAnnotations()} {
		for k, v := range texts {
			if !valid(k, v) {
				return -1
			}
			n += 1 + protowire.SizeBytes(sizeEntry(k, v))
		}
	}
	return n
}

func valid(texts ...string) bool {
	for _, s := range texts {
		if !utf8.ValidString(s) {
			return false
		}
	}
	return true
}

func sizeEntry(key, value string) int {
	return 1 + protowire.SizeBytes(len(key)) + 1 + protowire.SizeBytes(len(value))
}

func sizeTime(t *timestamppb.Timestamp) (n int) {
	if t.GetSeconds() != 0 {
		n += 1 + protowire.SizeVarint(uint64(t.GetSeconds()))
	}
	if t.GetNanos() != 0 {
		n += 1 + protowire.SizeVarint(uint64(t.GetNanos()))
	}
	return n
}

// appendResource appends r, of which s are the sizes.
func appendResource(b []byte, r *resourcepb.Resource, s sizes) []byte {
	if m := r.GetMetadata(); m != nil {
		b = appendMetadata(appendLength(b, tagMetadata, s.metadata), m)
	}
	if spec := r.GetSpec(); spec != nil {
		b = appendLength(b, tagSpec, s.spec)
		if data := spec.GetProtoSpec(); len(data) > 0 {
			b = append(appendLength(b, tagProtoSpec, len(data)), data...)
		}
		b = appendText(b, tagYAMLSpec, spec.GetYamlSpec())
	}
	return b
}

func appendMetadata(b []byte, m *resourcepb.Metadata) []byte {
	b = appendText(b, tagNamespace, m.GetNamespace())
	b = appendText(b, tagType, m.GetType())
	b = appendText(b, tagID, m.GetId())
	b = appendText(b, tagVersion, m.GetVersion())
	b = appendText(b, tagOwner, m.GetOwner())
	b = appendText(b, tagPhase, m.GetPhase())
	b = appendTime(b, tagCreated, m.GetCreated())
	b = appendTime(b, tagUpdated, m.GetUpdated())
	for _, f := range m.GetFinalizers() {
		b = append(appendLength(b, tagFinalizers, len(f)), f...)
	}
	b = appendMap(b, tagLabels, m.GetLabels())
	return appendMap(b, tagAnnotations, m.GetAnnotations())
}

func appendLength(b []byte, tag byte, length int) []byte {
	return protowire.AppendVarint(append(b, tag), uint64(length))
}

// appendText appends s unless it is empty.
func appendText(b []byte, tag byte, s string) []byte {
	if s == "" {
		return b
	}
	return append(appendLength(b, tag, len(s)), s...)
}

func appendMap(b []byte, tag byte, texts map[string]string) []byte {
	for k, v := range texts {
		b = appendLength(b, tag, sizeEntry(k, v))
		b = append(appendLength(b, tagMapKey, len(k)), k...)
		b = append(appendLength(b, tagMapValue, len(v)), v...)
	}
	return b
}

func appendTime(b []byte, tag byte, t *timestamppb.Timestamp) []byte {
	if t == nil {
		return b
	}
	b = appendLength(b, tag, sizeTime(t))
	if t.GetSeconds() != 0 {
		b = protowire.AppendVarint(append(b, tagSeconds), uint64(t.GetSeconds()))
	}
	if t.GetNanos() != 0 {
		b = protowire.AppendVarint(append(b, tagNanos), uint64(t.GetNanos()))
	}
	return b
}

// Size returns that of r in encoded form.
func Size(r *resourcepb.Resource) int {
	if s := measure(r); s.total >= 0 {
		return s.total
	}
	return proto.Size(r)
}

// Append appends r. It fails when a text of r is not UTF-8.
func Append(b []byte, r *resourcepb.Resource) ([]byte, error) {
	s := measure(r)
	if s.total < 0 {
		return proto.MarshalOptions{}.MarshalAppend(b, r)
	}
	return appendResource(b, r, s), nil
}

// AppendDelimited appends the size of r and r. It fails when a text of r is not UTF-8.
func AppendDelimited(b []byte, r *resourcepb.Resource) ([]byte, error) {
	s := measure(r)
	if s.total < 0 {
		return proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(protowire.AppendVarint(b, uint64(proto.Size(r))), r)
	}
	return appendResource(protowire.AppendVarint(b, uint64(s.total)), r, s), nil
}

// Answer returns a message that has r as its field 1 and nothing else, as the answers of Get, List, Create and Update have. It fails when a
// text of r is not UTF-8.
func Answer(r *resourcepb.Resource) ([]byte, error) {
	if r == nil {
		return nil, nil
	}
	s := measure(r)
	if s.total < 0 {
		return proto.Marshal(&resourcepb.GetResponse{Resource: r})
	}
	b := make([]byte, 0, 1+protowire.SizeBytes(s.total))
	return appendResource(appendLength(b, tagResource, s.total), r, s), nil
}

// Event returns e as an element of WatchResponse.event, tag and length included. It fails when a text of e is not UTF-8.
func Event(e *resourcepb.Event) ([]byte, error) {
	var resource, old sizes
	n := 0
	if r := e.GetResource(); r != nil {
		resource = measure(r)
		n += 1 + protowire.SizeBytes(resource.total)
	}
	if r := e.GetOld(); r != nil {
		old = measure(r)
		n += 1 + protowire.SizeBytes(old.total)
	}
	if resource.total < 0 || old.total < 0 || extra(e) || !valid(e.GetError()) {
		size := proto.Size(e)
		data := appendLength(make([]byte, 0, 1+protowire.SizeBytes(size)), tagEvent, size)
		return proto.MarshalOptions{}.MarshalAppend(data, e)
	}
	if t := e.GetEventType(); t != 0 {
		n += 1 + protowire.SizeVarint(uint64(t))
	}
	if e.Error != nil {
		n += 1 + protowire.SizeBytes(len(e.GetError()))
	}
	if e.Bookmark != nil {
		n += 1 + protowire.SizeBytes(len(e.GetBookmark()))
	}
	b := appendLength(make([]byte, 0, 1+protowire.SizeBytes(n)), tagEvent, n)
	if r := e.GetResource(); r != nil {
		b = appendResource(appendLength(b, tagResource, resource.total), r, resource)
	}
	if t := e.GetEventType(); t != 0 {
		b = protowire.AppendVarint(append(b, tagEventType), uint64(t))
	}
	if r := e.GetOld(); r != nil {
		b = appendResource(appendLength(b, tagOld, old.total), r, old)
	}
	if e.Error != nil {
		b = append(appendLength(b, tagError, len(e.GetError())), e.GetError()...)
	}
	if e.Bookmark != nil {
		b = append(appendLength(b, tagBookmark, len(e.GetBookmark())), e.GetBookmark()...)
	}
	return b, nil
}
