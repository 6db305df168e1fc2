package network

import (
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/access"
	"github.com/cosi-os/cosi/engine/runtime/audit"
	"github.com/cosi-os/cosi/engine/runtime/observe"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"google.golang.org/protobuf/proto"
)

// policy says who is let in and what they may do. It does not change.
type policy struct {
	trust *trust
	roles []role
}

// role is a Role that compiles, as it was read.
type role struct {
	*access.Grant
	read string // its id and version
}

// admission is what a policy says to a certificate. It holds as long as the policy is in force and the time within the chain's validity: verifying
// signatures for each request would cost more than most requests do.
type admission struct {
	policy      *policy
	who         audit.Who
	person      access.Person
	roles       string // which, and as of when
	from, until time.Time
	state       state.State
}

func (a *admission) holds(p *policy, now time.Time) bool {
	return a != nil && a.policy == p && !now.Before(a.from) && !now.After(a.until)
}

// admit says who the holder of a chain, leaf first, is at the time now.
func (p *policy) admit(chain []*x509.Certificate, now time.Time) (*admission, error) {
	from, until, err := p.trust.verify(chain, now)
	if err != nil {
		return nil, err
	}
	leaf := chain[0]
	a := &admission{policy: p, from: from, until: until}
	organisations, print := leaf.Subject.Organization, fingerprint(leaf)
	var known bool
	a.person.Role, known = access.RoleOf(organisations)
	var roles strings.Builder
	for _, r := range p.roles {
		if r.Names(organisations, leaf.Subject.CommonName, print) {
			a.person.Grants = append(a.person.Grants, r.Grant)
			fmt.Fprintln(&roles, r.read)
			known = true
		}
	}
	if !known {
		return nil, fmt.Errorf("%w: certificate of %s has none of the organisations admin, operator, reader, and no Role names it", errRefused, leaf.Subject)
	}
	a.roles = roles.String()
	a.who = audit.Who{Name: leaf.Subject.CommonName, Role: string(a.person.Role), Fingerprint: print}
	return a, nil
}

// CheckRole is the schema.Check of Roles.
func CheckRole(d access.Definitions) func(content []byte) error {
	return func(content []byte) error {
		r := &machinepb.Role{}
		if err := proto.Unmarshal(content, r); err != nil {
			return err
		}
		return access.CheckRole(r, d)
	}
}

// readRoles returns the Roles that compile, and what is to be said of each.
func readRoles(view *observe.View) (roles []role, statuses map[string]*machinepb.RoleStatus) {
	statuses = map[string]*machinepb.RoleStatus{}
	for _, r := range observe.Items[machinepb.Role](view, access.Roles) {
		s := &machinepb.RoleStatus{ObservedVersion: r.GetVersion(), Ready: true, Reason: "InForce"}
		statuses[r.GetId()] = s
		grant, err := access.NewGrant(r.GetId(), r.Spec)
		if err != nil {
			s.Ready, s.Reason, s.Message = false, reasonInvalid, err.Error()
			continue
		}
		read := fmt.Sprintf("%s@%s of %s", r.GetId(), r.GetVersion(), r.GetCreated().AsTime())
		roles = append(roles, role{grant, read})
	}
	return roles, statuses
}

// same reports whether q says what p says.
func (p *policy) same(q *policy) bool {
	if p.trust != q.trust || len(p.roles) != len(q.roles) {
		return false
	}
	for i, r := range p.roles {
		if r.read != q.roles[i].read {
			return false
		}
	}
	return true
}
