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

// Host is what a host offers.
type Host struct {
	Program    string // qemu-system-x86_64
	Version    string
	KVM        bool   // guests run on it
	NoKVM      error  // why not
	Code, Vars string // of the UEFI firmware; empty if there is none
}

// firmware lists where distributions keep OVMF: Debian, Fedora, Arch.
var firmware = [][2]string{
	{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
	{"/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"},
	{"/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"},
}

// Find looks for QEMU, an accelerator and UEFI firmware. It fails with ErrNoQEMU if QEMU is missing,
// or is older than 10 and would have to emulate: QEMU 7.2's TCG crashes 6.12 guests at random.
func Find(ctx context.Context) (*Host, error) {
	h := &Host{}
	var err error
	if h.Program, err = exec.LookPath("qemu-system-x86_64"); err != nil {
		return nil, fmt.Errorf("%w: qemu-system-x86_64 is not installed (hack/setup run installs it)", ErrNoQEMU)
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
	h.NoKVM = tryKVM(ctx, h.Program)
	h.KVM = h.NoKVM == nil
	if major < 10 && !h.KVM {
		return nil, fmt.Errorf("%w: QEMU %s crashes guests at random without KVM (%w), 10 or newer is wanted (hack/setup run installs it)", ErrNoQEMU, h.Version, h.NoKVM)
	}
	for _, f := range firmware {
		if exists(f[0]) && exists(f[1]) {
			h.Code, h.Vars = f[0], f[1]
			break
		}
	}
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
