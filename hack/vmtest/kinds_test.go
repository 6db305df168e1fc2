package vmtest_test

import (
	"strings"
	"testing"

	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/images/inspect"
)

// TestEveryOutputSaysItsKinds: what is embedded in an image are the kinds that it was built with.
func TestEveryOutputSaysItsKinds(t *testing.T) {
	for _, format := range []string{"raw", "qcow2", "iso", "efi", "initramfs"} {
		set, err := inspect.Kinds(vmtest.Image(t, "base", format))
		if err != nil {
			t.Error(err)
			continue
		}
		if got, want := types(set), types(builtin.Set()); got != want {
			t.Errorf("%s has %s; want %s", format, got, want)
		}
	}
}

func types(set *kinds.Set) string {
	var all []string
	for _, k := range set.All() {
		all = append(all, k.Type())
	}
	return strings.Join(all, " ")
}
