package etcdguard

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	etcdpb "github.com/cosi-os/cosi/api/cosi/etcd/v1alpha1"
	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	"github.com/cosi-os/cosi/sdk"
)

// guardID is the id of the one EtcdGuard that counts and of its status.
const guardID = "node"

// inhibitorID is what a request that waits names.
const inhibitorID = "etcd-guard"

// Reasons of a status.
const (
	reasonConnecting  = "Connecting"
	reasonGuarding    = "Guarding"
	reasonUnreachable = "Unreachable"
	reasonAsked       = "Asked"
	reasonRefusing    = "Refusing"
	reasonLeaving     = "Leaving"
	reasonReturning   = "Returning"
	reasonIgnored     = "Ignored"
)

type config = sdk.Resource[*etcdpb.EtcdGuard]

// guard holds the inhibitor. letGo is used by reconcile only.
type guard struct {
	worker *worker
	letGo  bool // the node may go; until no request is left
}

// reconcile asks for what is to be known at this stage, and holds or lets go by the answer.
func (g *guard) reconcile(ctx context.Context, s *sdk.State) error {
	if err := tidy(ctx, s); err != nil {
		return err
	}
	node, ok := sdk.Get[*etcdpb.EtcdGuard](s, guardType, guardID)
	if !ok || node.TearingDown() {
		g.letGo = false
		g.worker.pose(question{})
		return s.Delete(ctx, inhibitorType, inhibitorID)
	}
	q := g.ask(s, node)
	a, answered := g.worker.pose(q)
	if q.stage == asked && answered && (a.err == nil || q.override) {
		g.letGo, q.stage = true, leaving
		g.worker.pose(q)
	}
	if err := hold(ctx, s, node, q, a, answered); err != nil {
		return err
	}
	return s.Write(ctx, guardStatusType, guardID, status(node, q, a, answered), node.Metadata)
}

// tidy removes statuses that nothing asks for, and says of guards of another name that they do not count.
func tidy(ctx context.Context, s *sdk.State) error {
	for _, id := range s.Outputs(guardStatusType) {
		if _, wanted := sdk.Get[*etcdpb.EtcdGuard](s, guardType, id); !wanted {
			if err := s.Delete(ctx, guardStatusType, id); err != nil {
				return err
			}
		}
	}
	for _, c := range sdk.List[*etcdpb.EtcdGuard](s, guardType) {
		if c.GetId() == guardID {
			continue
		}
		ignored := &etcdpb.EtcdGuardStatus{ObservedVersion: c.GetVersion(), Reason: reasonIgnored, Message: fmt.Sprintf("the one that counts has the id %q", guardID)}
		if err := s.Write(ctx, guardStatusType, c.GetId(), ignored, c.Metadata); err != nil {
			return err
		}
	}
	return nil
}

// ask returns what is to be known. A request that goes on needs no answer any more.
func (g *guard) ask(s *sdk.State, node config) question {
	q := question{config: node.Spec, version: node.GetVersion(), stage: watching, override: true}
	var requests []string
	for _, st := range sdk.List[*powerpb.ShutdownStatus](s, requestStatusType) {
		switch st.Spec.GetReason() {
		case "Draining":
			g.letGo = true
		case "Waiting":
			r, _ := sdk.Get[*powerpb.ShutdownRequest](s, requestType, st.GetId())
			q.override = q.override && (r.Spec.GetForce() || r.Spec.GetCritical())
			q.critical = q.critical || r.Spec.GetCritical()
		default:
			continue
		}
		// Each time that somebody asks is a question of its own.
		requests = append(requests, fmt.Sprintf("%s@%s since %v", st.GetId(), st.Spec.GetObservedVersion(), st.Spec.GetSince().AsTime()))
	}
	switch {
	case len(requests) == 0:
		g.letGo = false
	case g.letGo:
		q.stage = leaving
	default:
		q.stage = asked
	}
	q.requests = strings.Join(requests, " ")
	return q
}

// hold writes the inhibitor, or deletes it when the node may go.
func hold(ctx context.Context, s *sdk.State, node config, q question, a answer, answered bool) error {
	i := &powerpb.ShutdownInhibitor{
		Mode:   powerpb.ShutdownInhibitor_DELAY,
		Holder: "etcd member " + node.Spec.GetMember(),
		Reason: "etcd is asked first",
		// There is an answer before: the rest is for a machine that is slow.
		Limit: durationpb.New(2 * q.deadline()),
	}
	switch {
	case q.stage == leaving:
		return s.Delete(ctx, inhibitorType, inhibitorID)
	case q.stage == asked && answered:
		i.Mode, i.Reason = powerpb.ShutdownInhibitor_BLOCK, cut(a.err.Error(), 1024)
	}
	return s.Write(ctx, inhibitorType, inhibitorID, i, node.Metadata)
}

// cut returns at most n runes of text.
func cut(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:n])
}

// status says what is known of the cluster, as of the last answer.
func status(node config, q question, a answer, answered bool) *etcdpb.EtcdGuardStatus {
	st := &etcdpb.EtcdGuardStatus{ObservedVersion: node.GetVersion(), Reason: reasonConnecting}
	if a.question.version != q.version {
		a.view, a.err = nil, nil // it is of another configuration
	}
	if a.view != nil {
		st.Ready = a.err == nil
		describe(st, a.view)
	}
	switch {
	case q.stage == leaving:
		st.Reason, st.Message = reasonLeaving, "the node may go down"
	case q.stage == asked && answered:
		st.Reason, st.Message = reasonRefusing, a.err.Error()
	case q.stage == asked:
		st.Reason = reasonAsked
	case a.err != nil && a.question.stage != asked:
		st.Reason, st.Message = reasonUnreachable, a.err.Error()
	case a.view != nil && a.view.lock.Member == node.Spec.GetMember():
		st.Reason, st.Message = reasonReturning, fmt.Sprintf("the lock is kept until %q is healthy", node.Spec.GetMember())
	case a.view != nil:
		st.Reason = reasonGuarding
	}
	return st
}

func describe(st *etcdpb.EtcdGuardStatus, v *view) {
	voters, healthy, quorum := v.count()
	st.Voters, st.Healthy, st.Quorum = uint32(voters), uint32(healthy), uint32(quorum)
	st.Leader = v.name(v.leader)
	for _, m := range v.members {
		line := &etcdpb.EtcdGuardStatus_Member{Name: m.name, Voter: m.voter, Healthy: m.healthy}
		if m.err != nil {
			line.Message = m.err.Error()
		}
		st.Members = append(st.Members, line)
	}
	if v.lock.Member != "" {
		st.Lock = &etcdpb.EtcdGuardStatus_Lock{Member: v.lock.Member, Since: timestamppb.New(v.lock.Since)}
	}
}
