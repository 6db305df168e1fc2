package vmtest_test

import (
	"strings"
	"testing"

	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// TestExport: what one node exports makes another the same, and that exports the same bytes.
func TestExport(t *testing.T) {
	vmtest.Host(t)
	o := buildOutside(t)
	first := vmtest.Start(t, vmtest.Options{Boot: node.Kernel})
	first.Ready(t)
	o.connect(t, first)
	first.Converged(t, first.Apply(t, kept("exported")+"---\n"+
		"metadata: {type: resolver, id: ours, labels: {site: berlin}, annotations: {note: 'by hand'}}\nspec: {servers: [192.0.2.53]}\n")...)
	exported := o.cosictl(t, "export")
	for _, part := range []string{"id: exported", "site: berlin", "note: by hand", "DHCPClients.network.cosi.dev", "# Certificates.machine.cosi.dev are sensitive"} {
		if !strings.Contains(exported, part) {
			t.Errorf("the export lacks %q:\n%s", part, exported)
		}
	}
	first.Kill()

	second := vmtest.Start(t, vmtest.Options{Boot: node.Kernel, Documents: exported})
	second.Ready(t)
	o.connect(t, second)
	if again := o.cosictl(t, "export"); again != exported {
		t.Errorf("the second node exports\n%s\nwant\n%s", again, exported)
	}
	if text := o.cosictl(t, "why", "mount/exported"); !strings.Contains(text, "written by user data from fw_cfg") || !strings.Contains(text, "ready") {
		t.Errorf("why:\n%s", text)
	}
}
