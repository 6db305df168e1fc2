package encoded

import (
	"unsafe"

	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

const (
	tagCreateResource, tagCreateOptions = 1<<3 | 2, 2<<3 | 2
	tagUpdateResource, tagUpdateOptions = 2<<3 | 2, 3<<3 | 2
)

// Request decodes data into v, a message without content, if that is a request to create or to update. The texts and the content of the
// resource are parts of data, which nobody may change afterwards. It returns false when v is of another type or when package proto has
// to decode it.
func Request(data []byte, v any) bool {
	s := unsafe.String(unsafe.SliceData(data), len(data))
	switch v := v.(type) {
	case *resourcepb.CreateRequest:
		r, options, ok := request(s, tagCreateResource, tagCreateOptions)
		if ok && options != nil {
			v.Options = &resourcepb.CreateOptions{}
			ok = proto.Unmarshal(options, v.Options) == nil
		}
		v.Resource = r
		return ok
	case *resourcepb.UpdateRequest:
		r, options, ok := request(s, tagUpdateResource, tagUpdateOptions)
		if ok && options != nil {
			v.Options = &resourcepb.UpdateOptions{}
			ok = proto.Unmarshal(options, v.Options) == nil
		}
		v.NewResource = r
		return ok
	}
	return false
}

// request decodes a message that has a resource in one field, and returns what another holds, nil if it is not there.
func request(s string, resource, other byte) (r *resourcepb.Resource, options []byte, ok bool) {
	in := input{rest: s}
	for !in.ended() {
		switch tag := in.byte(); {
		case tag == resource && r == nil:
			if r = decode(in.field()); r == nil {
				return nil, nil, false
			}
		case tag == other && options == nil:
			options = append([]byte{}, in.field()...)
		default:
			return nil, nil, false
		}
	}
	return r, options, !in.wrong
}
