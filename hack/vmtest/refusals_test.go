package vmtest_test

import (
	"slices"
	"testing"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	securitypb "github.com/cosi-os/cosi/api/cosi/security/v1alpha1"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/qemu"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// withoutTCO has a kernel that would find a watchdog in QEMU's chipset, as our own does, leave it alone.
const withoutTCO = "initcall_blacklist=iTCO_wdt_driver_init"

// ownKernel reports whether a node with the image of a definition, or of what stands in for it, runs our own kernel, which has neither modules nor
// /dev/mem.
func ownKernel(definition string) bool {
	return slices.Contains([]string{"own", "test-own"}, vmtest.StandIn(definition))
}

// checksModules is what SecurityStatus says of who vouches for the modules of such a node.
func checksModules(definition string) string {
	return map[bool]string{false: "Signed", true: "None"}[ownKernel(definition)]
}

// One node for what a node refuses: plugins without a right, sockets that nobody should have, documents with mistakes, and clients. The
// clients come last, because the certificates change with them.
func TestRefusals(t *testing.T) {
	vmtest.Parallel(t, 90)
	n := vmtest.Start(t, vmtest.Options{Definition: "test", Boot: node.Kernel, CommandLine: withoutTCO, Documents: mistakes})
	n.Ready(t)
	for _, check := range []struct {
		name string
		f    func(*testing.T, *vmtest.Node)
	}{
		{"Mistakes", checkMistakes},
		{"Sandbox", checkSandbox},
		{"Confinement", checkConfinement},
		{"Devices", checkDevices},
		{"Sockets", checkSockets},
		{"Lockdown", checkLockdown},
		{"Roles", checkRoles},
		{"GrantedRoles", checkGrantedRoles},
		{"Audit", checkAudit},
		{"Strangers", checkStrangers},
		{"Revocation", checkRevocation},
		{"NewCertificates", checkNewCertificates},
		{"FrozenPID1", checkSoftwareWatchdog}, // the last: the machine is reset
	} {
		t.Run(check.name, func(t *testing.T) { check.f(t, n) })
	}
}

// checkLockdown: without Secure Boot, too, the kernel that runs is changed by nobody. That it loads no module without a signature is checked by
// what it says; the nodes' own rules let nobody try.
func checkLockdown(t *testing.T, n *vmtest.Node) {
	status := &securitypb.SecurityStatus{}
	n.Until(t, "security", "security", status, func(m *resourcepb.Metadata) bool { return m != nil })
	secureBoot := map[string]string{qemu.AMD64: "Unsupported", qemu.ARM64: "Disabled"}[vmtest.Arch()] // there is UEFI before an arm64's kernel
	if status.GetLockdown() != "integrity" || status.GetModules() != checksModules("test") || status.GetSecureBoot() != secureBoot || status.GetTpm() != "Missing" {
		t.Errorf("security: %v", status)
	}
}
