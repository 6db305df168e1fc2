package qemu

import (
	"strings"
	"testing"
)

func TestParseVersion(t *testing.T) {
	for _, tc := range []struct {
		out, version string
		major        int
	}{
		{"QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright (c)", "10.0.2", 10},
		{"QEMU emulator version 7.2.17 (Debian)", "7.2.17", 7},
		{"QEMU emulator version 9.1.50-rc1", "9.1.50", 9},
		{"qemu-img version 10", "", 0},
	} {
		version, major, err := parseVersion(tc.out)
		if version != tc.version || major != tc.major || (err == nil) != (tc.version != "") {
			t.Errorf("parseVersion(%q) = %q, %d, %v; want %q, %d", tc.out, version, major, err, tc.version, tc.major)
		}
	}
}

func TestFindKnowsTwoArchitectures(t *testing.T) {
	if _, err := Find(t.Context(), "vax"); err == nil || !strings.Contains(err.Error(), `no machines of "vax"`) {
		t.Errorf("Find = %v", err)
	}
}
