package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/layout/bootentry"
	"github.com/cosi-os/cosi/api/layout/verity"
	format "github.com/cosi-os/cosi/api/upgrade"
	"github.com/cosi-os/cosi/sdk"
)

type (
	request = sdk.Resource[*machinepb.Upgrade]
	record  = *machinepb.UpgradeRecord
	says    = *machinepb.UpgradeStatus
)

// Reasons of an UpgradeStatus.
const (
	reasonWaiting    = "Waiting"
	reasonReceiving  = "Receiving"
	reasonStaged     = "Staged"
	reasonRebooting  = "Rebooting"
	reasonTrying     = "Trying"
	reasonSucceeded  = "Succeeded"
	reasonRolledBack = "RolledBack"
	reasonFailed     = "Failed"
	reasonRefused    = "Refused"
)

// rebootID is the id of the ShutdownRequest by which an Upgrade goes on.
const rebootID = "upgrade"

// policy reads whose upgrades are taken; nil if there is no policy that is in force.
func (c *controller) policy(ctx context.Context, s *sdk.State) (*policy, error) {
	wanted, ok := sdk.Get[*machinepb.UpgradePolicy](s, policyType, nodeID)
	if !ok || wanted.TearingDown() {
		return nil, s.Delete(ctx, policyStatusType, nodeID)
	}
	p, is := &policy{unsigned: wanted.Spec.GetAllowUnsigned()}, &machinepb.UpgradePolicyStatus{ObservedVersion: wanted.GetVersion(), Ready: true, Reason: reasonInForce}
	for i, text := range wanted.Spec.GetKeys() {
		key, err := format.ParseKey(text)
		if err != nil {
			is.Ready, is.Reason, is.Message = false, reasonInvalid, fmt.Sprintf("keys[%d]: %v", i, err)
			p = nil
			break
		}
		p.keys = append(p.keys, key)
	}
	return p, s.Write(ctx, policyStatusType, nodeID, is, wanted.Metadata)
}

// outcomes are what each needs of a status.
type outcomes interface {
	comparable
	proto.Message
	GetReason() string
	GetMessage() string
	GetDone() bool
}

// each writes a status, of the type observed, of everything that somebody wants, of the type wanted, and that is not on its way out, oldest first. It
// removes those of what is gone, and what else there is of that. It calls f for each status; nil leaves it as it is.
func each[W proto.Message, S outcomes](ctx context.Context, s *sdk.State, wanted, observed string, f func(sdk.Resource[W]) S, others ...string) error {
	all := slices.DeleteFunc(sdk.List[W](s, wanted), sdk.Resource[W].TearingDown)
	slices.SortStableFunc(all, func(a, b sdk.Resource[W]) int { return a.GetCreated().AsTime().Compare(b.GetCreated().AsTime()) })
	there := map[string]bool{}
	for _, u := range all {
		there[u.GetId()] = true
	}
	for _, typ := range append(others, observed) {
		for _, id := range s.Outputs(typ) {
			if !there[id] {
				if err := s.Delete(ctx, typ, id); err != nil {
					return err
				}
			}
		}
	}
	var none S
	for _, u := range all {
		is := f(u)
		if is == none {
			continue
		}
		if before, _ := sdk.Get[S](s, observed, u.GetId()); before.Spec.GetReason() != is.GetReason() || is.GetDone() && !before.Spec.GetDone() {
			kind, _, _ := strings.Cut(wanted, "s.") // Upgrades.machine.cosi.dev
			log.Printf("%s %s: %s %s", strings.ToLower(kind), u.GetId(), is.GetReason(), is.GetMessage())
		}
		if err := s.Write(ctx, observed, u.GetId(), is, u.Metadata); err != nil {
			return err
		}
	}
	return nil
}

// statuses writes those of Upgrades: see each.
func (c *controller) statuses(ctx context.Context, s *sdk.State, f func(request) says) error {
	return each(ctx, s, upgradeType, statusType, func(u request) says {
		is := f(u)
		if is != nil {
			is.ObservedVersion, is.Ready = u.GetVersion(), is.Reason == reasonSucceeded
		}
		return is
	}, recordType)
}

// upgrades goes on with the Upgrades: with one at a time, and with one that was tried first.
func (c *controller) upgrades(ctx context.Context, s *sdk.State, p *policy) (err error) {
	cancelUnwanted[*machinepb.Upgrade](c, s, upgradeType)
	busy := ""
	for _, u := range sdk.List[*machinepb.Upgrade](s, upgradeType) {
		if r := recordOf(s, u); r != nil && r.GetOutcome() == "" {
			busy = u.GetId()
		}
	}
	failed := c.statuses(ctx, s, func(u request) (is says) {
		var problem error
		defer func() { err = errors.Join(err, problem) }()
		r := recordOf(s, u)
		switch {
		case r != nil && r.GetOutcome() == "":
			is, problem = c.judge(ctx, s, u, r)
		case r != nil:
			return outcome(r)
		case busy != "" && busy != u.GetId():
			return &machinepb.UpgradeStatus{Reason: reasonWaiting, Message: fmt.Sprintf("for Upgrade %q", busy)}
		default:
			busy = u.GetId()
			is, problem = c.advance(ctx, s, u, p)
		}
		if is != nil && (is.Done || is.Reason == reasonWaiting) {
			busy = ""
		}
		return is
	})
	return errors.Join(err, failed)
}

// cancelUnwanted ends a job that nobody wants any more as it is.
func cancelUnwanted[W proto.Message](c *controller, s *sdk.State, wanted string) {
	if c.job == nil {
		return
	}
	if u, ok := sdk.Get[W](s, wanted, c.job.id); !ok || u.TearingDown() || u.GetVersion() != c.job.version {
		c.job.cancel()
		c.job = nil
	}
}

// recordOf is what is known of an Upgrade as it is written now; nil for nothing.
func recordOf(s *sdk.State, u request) record {
	r, ok := sdk.Get[record](s, recordType, u.GetId())
	if !ok || r.Spec.GetObservedVersion() != u.GetVersion() || !proto.Equal(r.Spec.GetCreated(), u.GetCreated()) {
		return nil
	}
	return r.Spec
}

// outcome is the status of an Upgrade that has one.
func outcome(r record) says {
	return &machinepb.UpgradeStatus{Reason: r.GetOutcome(), Message: r.GetMessage(), Version: r.GetVersion(), RootHash: r.GetRootHash(), Done: true}
}

// judge finds out what became of an Upgrade that was tried.
func (c *controller) judge(ctx context.Context, s *sdk.State, u request, r record) (says, error) {
	end := func(reason, message string) (says, error) { return c.end(ctx, s, u, r, reason, message) }
	root, err := verity.ParseHash(r.GetRootHash())
	if err != nil {
		return end(reasonFailed, "its record is damaged: "+err.Error())
	}
	is := &machinepb.UpgradeStatus{Version: r.GetVersion(), RootHash: r.GetRootHash()}
	e, there := c.entries.of(root)
	switch {
	case there && e.State == bootentry.Good:
		return end(reasonSucceeded, "")
	case root == c.machine.root:
		is.Reason, is.Message = reasonTrying, c.missing
	case !there:
		return end(reasonFailed, "its boot entry is not there: the node lost power before it was, or somebody removed it")
	case e.State == bootentry.Bad && r.GetMessage() != "":
		return end(reasonRolledBack, fmt.Sprintf("booted %d times, %s", e.Done, r.GetMessage()))
	case e.State == bootentry.Bad:
		return end(reasonRolledBack, fmt.Sprintf("booted %d times, it never came so far as to say what was wrong", e.Done))
	case e.Done > 0 || u.Spec.GetNoReboot():
		is.Reason, is.Message = reasonStaged, fmt.Sprintf("it is booted next, and has %d tries left", e.Left)
	case u.Spec.GetAt() != nil && time.Now().Before(u.Spec.GetAt().AsTime()):
		at := u.Spec.GetAt().AsTime()
		c.at(at)
		is.Reason, is.Message = reasonStaged, "the node reboots into it at "+at.UTC().Format(time.RFC3339)
	default:
		return is, c.reboot(ctx, s, u, is)
	}
	return is, nil
}

// end records an outcome.
func (c *controller) end(ctx context.Context, s *sdk.State, u request, r record, reason, message string) (says, error) {
	r = proto.CloneOf(r)
	r.Outcome, r.Message = reason, message
	r.ObservedVersion, r.Created = u.GetVersion(), u.GetCreated()
	return outcome(r), s.Write(ctx, recordType, u.GetId(), r, u.Metadata)
}

// reboot asks for a reboot into a version that is in place.
func (c *controller) reboot(ctx context.Context, s *sdk.State, u request, is says) (err error) {
	is.Reason = reasonRebooting
	var refused string
	is.Message, refused, err = askReboot(ctx, s, u.Metadata, fmt.Sprintf("upgrade %s to version %s", u.GetId(), is.Version))
	if refused != "" {
		is.Reason, is.Message = reasonStaged, "it runs after the next reboot; this one was refused: "+refused
	}
	return err
}

// askReboot asks for a reboot. It returns what that waits for, or why it is refused, if somebody has said so.
func askReboot(ctx context.Context, s *sdk.State, cause *resourcepb.Metadata, reason string) (waits, refused string, err error) {
	if down, ok := sdk.Get[*powerpb.ShutdownStatus](s, shutdownStateType, rebootID); ok {
		switch down.Spec.GetReason() {
		case reasonRefused:
			refused = down.Spec.GetMessage()
		case reasonWaiting:
			waits = down.Spec.GetMessage()
		}
	}
	return waits, refused, s.Write(ctx, shutdownType, rebootID, &powerpb.ShutdownRequest{Action: powerpb.ShutdownRequest_REBOOT, Reason: reason}, cause)
}

// advance goes on with an Upgrade that was not tried yet.
func (c *controller) advance(ctx context.Context, s *sdk.State, u request, p *policy) (says, error) {
	refuse := func(message string) (says, error) {
		return c.end(ctx, s, u, &machinepb.UpgradeRecord{}, reasonRefused, message)
	}
	waits := func(message string) (says, error) {
		return &machinepb.UpgradeStatus{Reason: reasonWaiting, Message: message}, nil
	}
	if wrong := senseless(u.Spec); wrong != "" {
		return refuse(wrong)
	}
	mine, ok := c.entries.of(c.machine.root)
	switch {
	case !ok:
		return refuse("no boot entry boots the version that runs: there would be nothing to go back to")
	case mine.State != bootentry.Good:
		return waits("the version that runs is on trial itself")
	case u.Spec.GetPrevious():
		return c.back(ctx, s, u)
	case p == nil:
		return refuse("no UpgradePolicies that is in force says whose upgrades are taken: cosictl explain upgradepolicy")
	}
	return c.receive(ctx, s, u, *p)
}

// senseless says what is wrong with an Upgrade, whatever the node.
func senseless(u *machinepb.Upgrade) string {
	switch {
	case sources(u.GetUrl() != "", u.GetPushed(), u.GetPrevious()) != 1:
		return "want one of url, pushed and previous"
	case u.GetDigest() == "" && !u.GetPrevious():
		return "digest: missing"
	}
	return ""
}

// sources counts those that are given.
func sources(given ...bool) (n int) {
	for _, is := range given {
		if is {
			n++
		}
	}
	return n
}

// back has the version in the other slot booted again.
func (c *controller) back(ctx context.Context, s *sdk.State, u request) (says, error) {
	e, ok := c.entries.without(c.machine.root)
	r := &machinepb.UpgradeRecord{Version: e.Version, RootHash: e.Root.String(), Entry: c.entries.next(), Attempted: timestamppb.Now()}
	switch {
	case !ok || e.State != bootentry.Good:
		return c.end(ctx, s, u, &machinepb.UpgradeRecord{}, reasonRefused, "the other slot holds no good version")
	case u.Spec.GetVersion() != "" && e.Version != u.Spec.GetVersion():
		return c.end(ctx, s, u, &machinepb.UpgradeRecord{}, reasonRefused, fmt.Sprintf("the other slot holds version %s", e.Version))
	}
	return c.try(ctx, s, u, r, func() error { return c.machine.again(e, r.GetEntry()) })
}

// receive goes on with what is installed from a source.
func (c *controller) receive(ctx context.Context, s *sdk.State, u request, p policy) (says, error) {
	started, waits, err := c.begin(ctx, s, u.Metadata, u.Spec.GetUrl(), func() *job {
		t := terms{p, u.Spec.GetDigest(), u.Spec.GetVersion()}
		m := c.machine
		return newJob(u.GetId(), u.GetVersion(), u.Spec.GetUrl(), t.digest, func(open func() (io.ReadCloser, error), opened func(format.Manifest)) error {
			source, err := open()
			if err != nil {
				return err
			}
			defer source.Close()
			return m.install(source, t, opened)
		})
	})
	switch {
	case err != nil || waits == retries:
		return nil, err // the status says why
	case started:
		return &machinepb.UpgradeStatus{Reason: reasonReceiving}, nil
	case waits != "":
		return &machinepb.UpgradeStatus{Reason: reasonWaiting, Message: waits}, nil
	}
	if u.Spec.GetPushed() {
		c.feed(s, u.GetId(), u.Spec.GetDigest())
	}
	progress := c.job.look()
	is := &machinepb.UpgradeStatus{Reason: reasonReceiving, Received: uint64(progress.received), Size: uint64(progress.size)}
	r := &machinepb.UpgradeRecord{}
	if progress.manifest != nil {
		is.Version, is.RootHash = progress.manifest.Version, progress.manifest.Root.Hash
		r.Version, r.RootHash = is.Version, is.RootHash
	}
	if !progress.done {
		return is, nil
	}
	over := c.job
	c.job, c.fresh = nil, false
	switch err := progress.err; {
	case errors.Is(err, errRefused):
		return c.end(ctx, s, u, r, reasonRefused, why(err))
	case errors.Is(err, errBroken):
		return c.end(ctx, s, u, r, reasonFailed, err.Error())
	case err != nil:
		is.Message = c.later(s, over, err)
		return is, nil
	}
	root, err := verity.ParseHash(is.RootHash)
	if err != nil {
		return nil, err
	}
	if err := c.read(); err != nil {
		return nil, err
	}
	r.Entry, r.Attempted = c.entries.next(), timestamppb.Now()
	entry := bootentry.Entry{Number: r.GetEntry(), State: bootentry.Trying, Left: bootentry.Tries, Version: is.Version, Root: root}
	return c.try(ctx, s, u, r, func() error { return c.machine.place(entry) })
}

// retries is what begin waits for when a source has failed.
const retries = "the source"

// attempt is what a source was asked for. When it has failed, anything else is tried at once.
type attempt struct {
	wanted      string // the Upgrade or Installation, as it stands
	credentials string // those that there were; empty: none
}

// failure is an attempt that failed, and when it is made again.
type failure struct {
	attempt
	again time.Time
}

// begin starts the job of an Upgrade or an Installation, unless it runs: started. Or it waits for something.
func (c *controller) begin(ctx context.Context, s *sdk.State, m *resourcepb.Metadata, url string, make func() *job) (started bool, waits string, err error) {
	if c.job != nil {
		if c.job.id != m.GetId() {
			return false, fmt.Sprintf("for %q", c.job.id), nil
		}
		return false, "", nil
	}
	known, which := credentialsFor(s, url)
	next := attempt{written(m), which}
	if f := c.failed[m.GetId()]; f.attempt == next && time.Now().Before(f.again) {
		c.at(f.again)
		return false, retries, nil
	}
	j := make()
	j.credentials, j.attempt = known, next
	select {
	case c.jobs <- j:
		c.job = j
		delete(c.failed, j.id)
	case <-time.After(100 * time.Millisecond): // one that was cancelled is not over yet
		c.at(time.Now().Add(time.Second))
	case <-ctx.Done():
		return false, "", ctx.Err()
	}
	return true, "", nil
}

// feed gives the job what was pushed for it.
func (c *controller) feed(s *sdk.State, id, digest string) {
	for _, chunk := range sdk.List[*machinepb.UpgradeChunk](s, chunkType) {
		if chunk.Spec.GetUpgrade() == id && chunk.Spec.GetDigest() == digest {
			c.job.accept(int64(chunk.Spec.GetOffset()), int64(chunk.Spec.GetSize()), chunk.Spec.GetData())
		}
	}
}

// written tells what is written from all else that was or will be, under the same id.
func written(m *resourcepb.Metadata) string {
	return m.GetCreated().AsTime().String() + " " + m.GetVersion()
}

// later has a source that failed tried again, and says so. Whoever is not let in does not knock every 10 seconds.
func (c *controller) later(s *sdk.State, j *job, err error) string {
	wait, or := soon, ""
	if errors.Is(err, errDenied) {
		wait, or = rarely, fmt.Sprintf(", or when %s are written", j.credentials)
	}
	again := time.Now().Add(wait)
	c.failed[j.id] = failure{j.attempt, again}
	c.at(again)
	if _, which := credentialsFor(s, j.url); which != j.attempt.credentials {
		c.at(time.Now()) // they were written while it was tried
	}
	return fmt.Sprintf("%v; tried again in %v%s", err, wait, or)
}

// try records that a version is tried, has it booted next, and asks for the reboot.
func (c *controller) try(ctx context.Context, s *sdk.State, u request, r record, place func() error) (says, error) {
	r.ObservedVersion, r.Created = u.GetVersion(), u.GetCreated()
	if err := s.Write(ctx, recordType, u.GetId(), r, u.Metadata); err != nil {
		return nil, err
	}
	c.fresh = false
	if err := place(); err != nil {
		return c.end(ctx, s, u, r, reasonFailed, err.Error())
	}
	if err := c.read(); err != nil {
		return nil, err
	}
	if err := c.show(ctx, s, nil); err != nil {
		return nil, err
	}
	return c.judge(ctx, s, u, r)
}
