package qemu

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestVirtualizes(t *testing.T) {
	for _, tc := range []struct {
		name, cpuinfo string
		want          bool
	}{
		{"intel", "model name\t: Xeon\nflags\t\t: fpu vme vmx est\nbugs\t\t: spectre_v1\n", true},
		{"amd, the last flag", "flags\t\t: fpu vme svm\n", true},
		{"a guest of another hypervisor", "flags\t\t: fpu vme hypervisor bmi1\n", false},
		{"a flag that only begins so", "flags\t\t: fpu vmx_x svm_lock\n", false},
		{"elsewhere", "flags\t\t: fpu\nvmx flags\t: vnmi vmx \n", false},
	} {
		if got := virtualizes(tc.cpuinfo); got != tc.want {
			t.Errorf("%s: virtualizes = %v; want %v", tc.name, got, tc.want)
		}
	}
}

func TestStartPausedSaysWhyKVMDoesNotWork(t *testing.T) {
	program := filepath.Join(t.TempDir(), "qemu")
	script := "#!/bin/sh\necho 'error: failed to set MSR 0x10a' >&2\necho more >&2\nkill -ABRT $$\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	err := startPaused(t.Context(), program, "q35")
	if err == nil || !strings.Contains(err.Error(), "failed to set MSR 0x10a") || strings.Contains(err.Error(), "more") {
		t.Errorf("startPaused = %v; want the first line of what QEMU said", err)
	}
}

func TestAForeignGuestIsEmulated(t *testing.T) {
	foreign := map[bool]string{true: ARM64, false: AMD64}[runtime.GOARCH == AMD64]
	if err := tryKVM(t.Context(), "qemu", foreign); err == nil || !strings.Contains(err.Error(), "runs no guests of "+foreign) {
		t.Errorf("tryKVM for %s = %v", foreign, err)
	}
}
