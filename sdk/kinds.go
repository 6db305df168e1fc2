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

// linkedKinds returns those of wanted types whose messages are linked into the program, by type. Which type a message is of, its options
// say, and reading them parses its whole file, which stays in memory: so the messages with the right names are asked first.
func linkedKinds(wanted map[string]bool) map[string]kind {
	kinds := map[string]kind{}
	for _, likely := range []bool{true, false} {
		protoregistry.GlobalTypes.RangeMessages(func(m protoreflect.MessageType) bool {
			if isLikely(m.Descriptor(), wanted) == likely {
				if k := definition(m); wanted[k.GetResourceType()] {
					kinds[k.GetResourceType()] = kind{k.GetResourceType(), k.GetDefaultNamespace(), m}
				}
			}
			return len(kinds) < len(wanted)
		})
	}
	return kinds
}

// isLikely says whether a message may be of one of the types, by its name: MountPoints are of MountPoint, PowerSupplies of PowerSupply.
func isLikely(m protoreflect.MessageDescriptor, types map[string]bool) bool {
	name := string(m.Name())
	for typ := range types {
		if strings.HasPrefix(typ, name[:len(name)-1]) {
			return true
		}
	}
	return false
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
