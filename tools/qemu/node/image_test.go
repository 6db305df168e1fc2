package node

import (
	"strings"
	"testing"
)

// A script of iPXE is for what the image beside it is for.
func TestArchOfAScript(t *testing.T) {
	if _, err := Arch("no/cosi.ipxe"); err == nil || !strings.Contains(err.Error(), "no/cosi.efi") {
		t.Errorf("Arch = %v; want that there is no cosi.efi", err)
	}
}
