package sdk

import (
	"testing"

	"github.com/cosi-os/cosi/api/kinds/builtin"
)

func TestEveryKindIsFoundByItsType(t *testing.T) {
	unlike := 0
	for _, k := range builtin.Set().All() {
		wanted := map[string]bool{k.Type(): true}
		found := linkedKinds(wanted)
		if len(found) != 1 || found[k.Type()].message.Descriptor().FullName() != k.Message.FullName() || found[k.Type()].namespace != k.Namespace() {
			t.Errorf("linkedKinds(%s) = %v; want %s", k.Type(), found, k.Message.FullName())
		}
		if !isLikely(k.Message, wanted) {
			unlike++
		}
	}
	if unlike == 0 {
		t.Error("every kind is called like its message: nothing has tried the messages that are not")
	}
	if found := linkedKinds(map[string]bool{"No.such.kind": true}); len(found) > 0 {
		t.Errorf("linkedKinds(No.such.kind) = %v", found)
	}
}
