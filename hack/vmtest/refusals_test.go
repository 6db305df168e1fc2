package vmtest_test

import (
	"testing"

	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// One node for what a node refuses: plugins without a right, sockets that nobody should have, documents with mistakes, and clients. The
// clients come last, because the certificates change with them.
func TestRefusals(t *testing.T) {
	vmtest.Parallel(t, 90)
	n := vmtest.Start(t, vmtest.Options{Definition: "test", Boot: node.Kernel, Documents: mistakes})
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
