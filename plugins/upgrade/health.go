package upgrade

import (
	"context"
	"errors"
	"fmt"
	"log"
	"path"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/layout/bootentry"
	"github.com/cosi-os/cosi/sdk"
)

// patience is how long a version on trial has to become healthy, unless BootHealths says otherwise.
const patience = 5 * time.Minute

// giveUpID is the id of the ShutdownRequest that ends a trial.
const giveUpID = "boot-health"

// health blesses what runs if that is on trial and healthy, and asks for a reboot when it has had its time. problem is what the EFI system
// partition says.
func (c *controller) health(ctx context.Context, s *sdk.State) (problem, err error) {
	wanted, _ := sdk.Get[*machinepb.BootHealth](s, healthType, nodeID)
	says := &machinepb.BootHealthStatus{ObservedVersion: wanted.GetVersion(), Ready: true, Reason: "Good"}
	mine, ok := c.entries.of(c.machine.root)
	if ok && mine.State != bootentry.Good && c.givenUp {
		return nil, nil // the record and the reboot that is on its way say so, whatever has become healthy since
	}
	c.missing = ""
	if ok && mine.State != bootentry.Good {
		if c.missing, err = unhealthy(ctx, s, wanted.Spec); err != nil {
			return nil, err
		}
		if c.missing != "" {
			return nil, c.trial(ctx, s, wanted, says)
		}
		if problem = c.machine.bless(mine); problem != nil {
			return problem, nil
		}
		c.fresh = false
		log.Printf("version %s is good", mine.Version)
	}
	if !ok {
		says.Message = "no boot entry is that of the version that runs"
	}
	return nil, s.Write(ctx, healthStatusType, nodeID, says, wanted.Metadata)
}

// trial goes on with one, or gives it up.
func (c *controller) trial(ctx context.Context, s *sdk.State, wanted sdk.Resource[*machinepb.BootHealth], says *machinepb.BootHealthStatus) error {
	limit := patience
	if d := wanted.Spec.GetDeadline(); d != nil {
		limit = d.AsDuration()
	}
	end := c.started.Add(limit)
	says.Ready, says.Reason, says.Message, says.Deadline = false, "Trying", c.missing, timestamppb.New(end)
	if time.Now().Before(end) {
		c.at(end)
		return s.Write(ctx, healthStatusType, nodeID, says, wanted.Metadata)
	}
	says.Reason = "GivenUp"
	if err := s.Write(ctx, healthStatusType, nodeID, says, wanted.Metadata); err != nil {
		return err
	}
	// Whoever runs after the reboot knows no other way why.
	for _, r := range sdk.List[*machinepb.UpgradeRecord](s, recordType) {
		if r.Spec.GetRootHash() != c.machine.root.String() || r.Spec.GetOutcome() != "" {
			continue
		}
		record := proto.CloneOf(r.Spec)
		record.Message = fmt.Sprintf("not healthy after %v: %s", limit, c.missing)
		if err := s.Write(ctx, recordType, r.GetId(), record, nil); err != nil {
			return err
		}
	}
	err := s.Write(ctx, shutdownType, giveUpID, &powerpb.ShutdownRequest{
		Action: powerpb.ShutdownRequest_REBOOT, Force: true, Critical: true,
		Reason: fmt.Sprintf("the new version is not healthy after %v: %s", limit, c.missing),
	}, wanted.Metadata)
	c.givenUp = err == nil
	return err
}

// unhealthy says what the version that runs lacks, or nothing.
func unhealthy(ctx context.Context, s *sdk.State, wanted *machinepb.BootHealth) (string, error) {
	const machineID = "machine"
	m, ok := sdk.Get[*machinepb.MachineStatus](s, machineType, machineID)
	if !ok {
		return "the node does not say yet whether it is ready", nil
	}
	if !m.Spec.GetReady() {
		return strings.TrimSuffix(m.Spec.GetReason()+": "+m.Spec.GetMessage(), ": "), nil
	}
	for _, condition := range wanted.GetConditions() {
		missing, err := unmet(ctx, s, condition)
		if missing != "" || err != nil {
			return missing, err
		}
	}
	return "", nil
}

// unmet says what is missing of a condition, or nothing.
func unmet(ctx context.Context, s *sdk.State, c *machinepb.BootHealth_Condition) (string, error) {
	name := c.GetType() + "/" + c.GetId()
	if !slices.Contains(conditionTypes, c.GetType()) {
		return fmt.Sprintf("condition %s: its type is none of %s", name, strings.Join(conditionTypes, ", ")), nil
	}
	response, err := s.Client().Get(ctx, &resourcepb.GetRequest{Namespace: "status", Type: c.GetType(), Id: c.GetId()})
	if status.Code(err) == codes.NotFound {
		return "condition " + name + ": there is none", nil
	}
	if err != nil {
		return "", fmt.Errorf("condition %s: %w", name, err)
	}
	// Every observed kind begins alike; what follows is not looked at.
	says := &machinepb.UpgradePolicyStatus{}
	if err := proto.Unmarshal(response.GetResource().GetSpec().GetProtoSpec(), says); err != nil {
		return "", fmt.Errorf("condition %s: %w", name, err)
	}
	if says.GetReady() {
		return "", nil
	}
	return strings.TrimSuffix("condition "+name+": "+says.GetReason()+" "+says.GetMessage(), " "), nil
}

// nowhere says of everything that the node does not run from a slot, or that it cannot be found out where from.
func (c *controller) nowhere(ctx context.Context, s *sdk.State, why error) error {
	if !errors.Is(why, errNoSlot) {
		return why
	}
	wanted, _ := sdk.Get[*machinepb.BootHealth](s, healthType, nodeID)
	says := &machinepb.BootHealthStatus{ObservedVersion: wanted.GetVersion(), Ready: true, Reason: "NoSlot", Message: why.Error()}
	if err := s.Write(ctx, healthStatusType, nodeID, says, wanted.Metadata); err != nil {
		return err
	}
	return c.statuses(ctx, s, func(request) *machinepb.UpgradeStatus {
		return &machinepb.UpgradeStatus{Reason: reasonRefused, Message: why.Error(), Done: true}
	})
}

// show writes the two BootEntries.
func (c *controller) show(ctx context.Context, s *sdk.State, problem error) error {
	m := c.machine
	for _, side := range []struct {
		slot
		running bool
	}{{m.running, true}, {m.other, false}} {
		is := &machinepb.BootEntry{Device: side.node, Running: side.running, Firmware: m.firmware, State: "Empty"}
		e, ok := c.entries.without(m.root)
		if side.running {
			is.RootHash, is.Version = m.root.String(), m.version
			is.Message = "no boot entry boots it"
			e, ok = c.entries.of(m.root)
		}
		if ok {
			is.State, is.Version, is.RootHash, is.Entry, is.Message = string(e.State), e.Version, e.Root.String(), path.Base(e.path), ""
			is.TriesLeft, is.TriesDone = uint32(e.Left), uint32(e.Done)
			is.Next = e.Number == c.entries[0].Number
		}
		if problem != nil {
			is.Message = problem.Error()
		}
		if err := s.Write(ctx, entryType, side.name, is, nil); err != nil {
			return err
		}
	}
	return nil
}
