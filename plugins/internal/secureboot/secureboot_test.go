package secureboot

import (
	"os"
	"path/filepath"
	"testing"
)

// On arm64 a property of the device tree says it. What x86 says, the plugin userdata tests.
func TestOfADeviceTree(t *testing.T) {
	tree := func(mode ...byte) []byte {
		return deviceTreeOf(beginNode, "chosen", property, answer, string(mode), endNode)
	}
	for name, tc := range map[string]struct {
		tree []byte
		want State
	}{
		"disabled":       {tree(0, 0, 0, disabled), Disabled},
		"enabled":        {tree(0, 0, 0, enabled), Enabled},
		"a short answer": {tree(0, disabled), Unknown},
		"without":        {tree()[:100], Unknown},
	} {
		root := t.TempDir()
		if err := os.MkdirAll(filepath.Join(root, efiDir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, deviceTree), tc.tree, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := Of(root); got != tc.want {
			t.Errorf("%s: %s; want %s", name, got, tc.want)
		}
	}
}
