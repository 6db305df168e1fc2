package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"time"
)

// tryKVM returns nil when QEMU can run guests on this machine's KVM, else why not. That the device is there says little: its
// permissions may be missing, and inside a virtual machine it may belong to a KVM that serves only guests made for it.
func tryKVM(ctx context.Context, program, arch string) error {
	if arch != runtime.GOARCH {
		return fmt.Errorf("a processor of %s runs no guests of %s", runtime.GOARCH, arch)
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	f.Close()
	if arch == AMD64 {
		info, err := os.ReadFile("/proc/cpuinfo")
		if err != nil {
			return err
		}
		if !virtualizes(string(info)) {
			return errors.New("/dev/kvm is there, but the processor has neither vmx nor svm")
		}
	}
	return startPaused(ctx, program, platforms[arch].board)
}

var virtualizationFlag = regexp.MustCompile(`(?m)^flags\s*:.* (vmx|svm)( |$)`)

// virtualizes says whether an x86 processor, as /proc/cpuinfo describes it, runs guests by itself. A KVM on one that does not
// (pvm) emulates what its guests do in ring 0, and stops at the first instruction that it does not know.
func virtualizes(cpuinfo string) bool { return virtualizationFlag.MatchString(cpuinfo) }

// startPaused starts a VM with KVM that never runs: nested KVMs that lack a register of the host's processor end QEMU here.
func startPaused(ctx context.Context, program, board string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "-M", board, "-accel", "kvm", "-cpu", "host", "-nodefaults", "-display", "none", "-S", "-monitor", "stdio")
	cmd.Stdin = strings.NewReader("quit\n")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		first, _, _ := strings.Cut(stderr.String(), "\n")
		return fmt.Errorf("a trial of KVM: %w: %s", err, first)
	}
	return nil
}
