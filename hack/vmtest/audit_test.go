package vmtest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/hack/vmtest"
)

// checkGrantedRoles: somebody who is neither admin, operator nor reader gets what a Role says, from its write to its end.
func checkGrantedRoles(t *testing.T, n *vmtest.Node) {
	certificate := pair(t)(maker(time.Now()).Client(n.Identity.CA, "ann", "name-servers"))
	if err := get(t, n, dial(t, n.Context, certificate)); err == nil {
		t.Error("somebody without a role is let in")
	}
	n.Converged(t, n.Apply(t, `metadata: {type: role, id: names}
spec:
  organisations: [name-servers]
  rules:
  - {verbs: [get, list, create], kinds: [Resolvers.network.cosi.dev], ids: "ann-.*"}
`)...)
	ann := dial(t, n.Context, certificate)
	if err := write(t, n, ann, "ann-1"); err != nil {
		t.Errorf("what the Role allows: %v", err)
	}
	vmtest.Refused(t, write(t, n, ann, "bob-1"), codes.PermissionDenied)
	vmtest.Refused(t, get(t, n, ann), codes.PermissionDenied)
	all, err := ann.List(n.Patience(t, moment), n.Kind(t, "resolvers"))
	if err != nil || len(all) != 1 {
		t.Errorf("she sees %d resolvers (%v); want her own", len(all), err)
	}
	n.Delete(t, "resolvers", "ann-1")
	n.Delete(t, "roles", "names")
	if err := write(t, n, ann, "ann-2"); err == nil {
		t.Error("without the Role she writes")
	}
}

// checkAudit: what the checks before have done and tried is on record, in their order.
func checkAudit(t *testing.T, n *vmtest.Node) {
	want := []string{
		"operator Committed create Resolvers.network.cosi.dev/operator", "admin Committed destroy Resolvers.network.cosi.dev/operator",
		"admin Committed create Roles.machine.cosi.dev/names", "ann Committed create Resolvers.network.cosi.dev/ann-1",
	}
	kind := n.Kind(t, "auditrecords")
	all, err := n.Client.List(n.Patience(t, moment), kind)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, r := range all {
		spec := &machinepb.AuditRecord{}
		decode(t, r, spec)
		said = append(said, fmt.Sprintf("%s %s %s %s/%s", spec.GetWho().GetName(), spec.GetOutcome(), spec.GetVerb(), spec.GetType(), spec.GetId()))
	}
	for _, line := range said {
		if len(want) > 0 && line == want[0] {
			want = want[1:]
		}
	}
	text := strings.Join(said, "\n")
	if len(want) > 0 || !strings.Contains(text, "reader Refused get Certificates") || !strings.Contains(text, "ann Refused create") || !strings.Contains(text, "plugin/") {
		t.Errorf("missing %q; the records:\n%s", want, text)
	}
}
