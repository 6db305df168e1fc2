package vmtest_test

import (
	"fmt"
	"strings"
	"testing"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/hack/vmtest"
)

// mistakes are documents as people write them; the first and the last are good.
const mistakes = `metadata: {type: MountPoints.storage.cosi.dev, id: good}
spec: {source: tmpfs, target: /var/good, fstype: tmpfs}
---
metadata: {type: MountPoints.storage.cosi.dev, id: broken
spec: {source: tmpfs, target: /var/broken, fstype: tmpfs}
---
metadata: {type: MountPiont, id: unknown}
spec: {source: tmpfs, target: /var/unknown, fstype: tmpfs}
---
metadata: {type: MountPoints.storage.cosi.dev, id: wrong}
spec:
  source: tmpfs
  target: /var/wrong
  fstype: [tmpfs]
---
metadata: {type: MountPoints.storage.cosi.dev, id: last}
spec: {source: tmpfs, target: /var/last, fstype: tmpfs}
`

// checkMistakes: the good documents are applied, the bad ones are told with line and field, on the console and as a resource.
func checkMistakes(t *testing.T, n *vmtest.Node) {
	var status storagepb.MountPointStatus
	for _, id := range []string{"good", "last"} {
		m := n.Get(t, "mountpoints", id, &storagepb.MountPoint{})
		if m == nil {
			t.Fatalf("the good document %s was not applied", id)
		}
		if !strings.HasPrefix(m.GetAnnotations()["cosi.dev/provenance"], "userdata/fw_cfg@") {
			t.Errorf("the provenance of %s is %v", id, m.GetAnnotations())
		}
		n.Until(t, "mountpointstatuses", id, &status, func(*resourcepb.Metadata) bool { return status.GetReady() })
	}
	if m := n.Get(t, "mountpoints", "wrong", &storagepb.MountPoint{}); m != nil {
		t.Errorf("the bad document was applied: %v", m)
	}
	source := &machinepb.UserDataSource{}
	n.Get(t, "userdatasources", "fw_cfg", source)
	if source.GetState() != "PartlyApplied" || source.GetDocuments() != 6 || source.GetApplied() != 3 || len(source.GetProblems()) != 3 {
		t.Fatalf("the source says %v", source)
	}
	own, err := n.Identity.UserData()
	if err != nil {
		t.Fatal(err)
	}
	above := uint32(strings.Count(string(own), "\n")) + 1 // the certificates, and the line between
	for i, want := range []struct {
		line           uint32
		field, message string
	}{
		{5, "", ""},
		{7, "metadata.type", "did you mean MountPoint"},
		{14, "spec.fstype", ""},
	} {
		p := source.GetProblems()[i]
		if p.GetLine() != above+want.line || p.GetField() != want.field || !strings.Contains(p.GetMessage(), want.message) || p.GetMessage() == "" {
			t.Errorf("problem %d is %v; want line %d, field %q, a message with %q", i, p, above+want.line, want.field, want.message)
		}
		n.Expect(t, 0, fmt.Sprintf(`userdata: \S*:%d: .*%s`, above+want.line, strings.ReplaceAll(want.field, ".", `\.`)))
	}
}
