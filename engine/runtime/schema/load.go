package schema

import (
	"fmt"

	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/descriptors"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Load adds the kinds that declarations bring with them to set. A plugin cannot replace a kind that is there already. Descriptors of
// files that are linked into the runtime are not parsed: those kinds are in set.
func Load(set *kinds.Set, declarations []*declaration.Declaration) error {
	for _, d := range declarations {
		linked, err := allLinked(d.Definitions)
		if err != nil {
			return fmt.Errorf("plugin %s: definitions: %w", d.Name, err)
		}
		if linked {
			continue
		}
		brought, err := descriptors.Kinds(d.Definitions)
		if err != nil {
			return fmt.Errorf("plugin %s: %w", d.Name, err)
		}
		for _, k := range brought {
			if set.ByType(k.Type()) != nil {
				continue
			}
			if err := set.Add(k); err != nil {
				return fmt.Errorf("plugin %s: %w", d.Name, err)
			}
		}
	}
	return nil
}

// Numbers of google.protobuf.FileDescriptorSet.file and FileDescriptorProto.name.
const (
	fieldFile protowire.Number = 1
	fieldName protowire.Number = 1
)

// allLinked reports whether every file of a marshalled FileDescriptorSet is linked in, looking at names only.
func allLinked(set []byte) (bool, error) {
	linked := true
	err := eachBytes(set, fieldFile, func(file []byte) error {
		return eachBytes(file, fieldName, func(name []byte) error {
			_, err := protoregistry.GlobalFiles.FindFileByPath(string(name))
			linked = linked && err == nil
			return nil
		})
	})
	return linked, err
}

// eachBytes calls f for each length-delimited field of a message that has the number.
func eachBytes(message []byte, number protowire.Number, f func([]byte) error) error {
	for len(message) > 0 {
		got, typ, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		size := protowire.ConsumeFieldValue(got, typ, message)
		if size < 0 {
			return protowire.ParseError(size)
		}
		if got == number && typ == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(message)
			if err := f(value); err != nil {
				return err
			}
		}
		message = message[size:]
	}
	return nil
}
