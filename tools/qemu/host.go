// Package qemu runs virtual machines for the QEMU runner, the VM tests and the instruction counter.
//
// Find looks at what the host has; a Machine is an inert description that can be printed as QEMU's
// arguments; Start runs it. A VM's serial console is kept in memory, it is driven over QMP, and it
// never outlives the program that started it.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// ErrNoQEMU says that the host has no QEMU that guests run on reliably.
var ErrNoQEMU = errors.New("no usable QEMU")

// Host is what a host offers to machines of one architecture.
type Host struct {
	Arch       string // theirs: AMD64 or ARM64
	Program    string // qemu-system-x86_64
	Version    string
	KVM        bool   // guests run on it
	NoKVM      error  // why not
	Code, Vars string // of the UEFI firmware; empty if there is none
}

// Find looks for QEMU, an accelerator and UEFI firmware for machines of an architecture. It fails with ErrNoQEMU if QEMU is missing,
// or is older than 10 and would have to emulate: QEMU 7.2's TCG crashes 6.12 guests at random.
func Find(ctx context.Context, arch string) (*Host, error) {
	p, err := platformOf(arch)
	if err != nil {
		return nil, err
	}
	h := &Host{Arch: arch}
	install := fmt.Sprintf("hack/setup %s installs it", p.goal)
	if h.Program, err = exec.LookPath(p.program); err != nil {
		return nil, fmt.Errorf("%w: %s is not installed (%s)", ErrNoQEMU, p.program, install)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, h.Program, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s --version: %w", ErrNoQEMU, h.Program, err)
	}
	var major int
	if h.Version, major, err = parseVersion(string(out)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoQEMU, err)
	}
	h.NoKVM = tryKVM(ctx, h.Program, arch)
	h.KVM = h.NoKVM == nil
	if major < 10 && !h.KVM {
		return nil, fmt.Errorf("%w: QEMU %s crashes guests at random without KVM (%w), 10 or newer is wanted (%s)", ErrNoQEMU, h.Version, h.NoKVM, install)
	}
	h.Code, h.Vars = p.find()
	return h, nil
}

// Accelerator is "KVM", or "TCG" where everything is emulated, and why.
func (h *Host) Accelerator() string {
	switch {
	case h.KVM:
		return "KVM"
	case h.NoKVM == nil, errors.Is(h.NoKVM, os.ErrNotExist):
		return "TCG"
	}
	return fmt.Sprintf("TCG (no KVM: %v)", h.NoKVM)
}

// Slower is how much longer things take than on hardware, roughly: what deadlines are multiplied by.
func (h *Host) Slower() time.Duration {
	if h.KVM {
		return 1
	}
	return 6
}

var versionLine = regexp.MustCompile(`QEMU emulator version ((\d+)[\d.]*)`)

func parseVersion(out string) (version string, major int, err error) {
	m := versionLine.FindStringSubmatch(out)
	if m == nil {
		return "", 0, fmt.Errorf("%.60q does not tell a version", out)
	}
	major, err = strconv.Atoi(m[2])
	return m[1], major, err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
