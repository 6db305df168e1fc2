package sdk

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
)

// kind is what the SDK knows of a type: where its resources live and what their content is.
type kind struct {
	typ       string
	namespace string
	message   protoreflect.MessageType
}

// linkedKinds returns the kinds of all messages that are linked into the program, by type.
func linkedKinds() map[string]kind {
	kinds := map[string]kind{}
	protoregistry.GlobalTypes.RangeMessages(func(m protoreflect.MessageType) bool {
		name := string(m.Descriptor().FullName())
		// Reading the options of a message parses its whole file; these two hold no kinds and are large.
		if strings.HasPrefix(name, "google.") || strings.HasPrefix(name, "buf.") {
			return true
		}
		if k := definition(m); k != nil {
			kinds[k.GetResourceType()] = kind{k.GetResourceType(), k.GetDefaultNamespace(), m}
		}
		return true
	})
	return kinds
}

func definition(m protoreflect.MessageType) *metapb.ResourceDefinitionSpec {
	options := m.Descriptor().Options()
	if !proto.HasExtension(options, metapb.E_Kind) {
		return nil
	}
	return proto.GetExtension(options, metapb.E_Kind).(*metapb.ResourceDefinitionSpec)
}

// decode returns the content of a resource.
func (k kind) decode(data []byte) (proto.Message, error) {
	m := k.message.New().Interface()
	if err := proto.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("%s: %w", k.typ, err)
	}
	return m, nil
}
