package attestation

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	securitypb "github.com/cosi-os/cosi/api/cosi/security/v1alpha1"
	"github.com/cosi-os/cosi/plugins/internal/secureboot"
)

// inForce is the one of the kernel's words that is in force: "none [integrity] confidentiality".
var inForce = regexp.MustCompile(`\[(\w+)\]`)

// security is what the kernel says of itself.
func (m *machine) security() *securitypb.SecurityStatus {
	status := &securitypb.SecurityStatus{SecureBoot: string(secureboot.Of(m.root)), Modules: "Any"}
	if words := inForce.FindStringSubmatch(m.read("sys/kernel/security/lockdown")); words != nil {
		status.Lockdown = words[1]
	}
	switch _, err := os.Stat(filepath.Join(m.root, "proc/modules")); {
	case errors.Is(err, fs.ErrNotExist):
		status.Modules = "None"
	// A kernel that is locked down asks for signatures, too (security/lockdown/lockdown.c, LOCKDOWN_MODULE_SIGNATURE), whatever its parameter says.
	case m.read("sys/module/module/parameters/sig_enforce") == "Y" || status.GetLockdown() == "integrity" || status.GetLockdown() == "confidentiality":
		status.Modules = "Signed"
	}
	return status
}

// read is what a file of the kernel's says, empty if it is not there.
func (m *machine) read(name string) string {
	data, _ := os.ReadFile(filepath.Join(m.root, name)) // kernels without have none
	return strings.TrimSpace(string(data))
}
