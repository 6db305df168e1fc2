// Package userdata is the plugin that finds user data when a node boots and applies the resources in it.
//
// Sources are looked at in this order: QEMU's fw_cfg, VMware's guestinfo, the kernel argument cosi.userdata, disks with the label CIDATA,
// OpenStack's config drive, user-data.yaml on the EFI system partition; then the image's default resources; then, once there is a network, the
// metadata service of the platform that the machine is of, and a URL. Documents of a source are applied
// once for each digest of its bytes, which a UserDataRecord keeps: what people change over the API afterwards is undone neither by a
// restart nor by a reboot. A new digest updates what its source wrote last and reports the rest as conflicts; default resources that another image
// had go with it, unless somebody has changed them. Every source and every problem in it is shown as a UserDataSource.
package userdata

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/api/document"
	"github.com/cosi-os/cosi/plugins/internal/uevent"
	"github.com/cosi-os/cosi/sdk"
	"google.golang.org/protobuf/types/known/timestamppb"
)

//go:embed plugin.json
var declaration []byte

const (
	// Version is shown in PluginStatuses.
	Version = "0.1.0"

	kindSource = "UserDataSources.machine.cosi.dev"
	kindRecord = "UserDataRecords.machine.cosi.dev"
	// summaryID is the UserDataSource that says whether all sources have been looked at.
	summaryID = "userdata"
	// defaultsFile holds the image's default resources.
	defaultsFile = "usr/lib/cosi/resources.yaml"
)

// Plugin returns the plugin.
func Plugin() sdk.Plugin { return plugin(cmp.Or(os.Getenv("COSI_ROOT"), "/")) }

// plugin returns the plugin for a node whose files are below root, which "engine --root" names in COSI_ROOT: the machine's own disks and
// kernel arguments are then none of its business.
func plugin(root string) sdk.Plugin { return newController(root).plugin() }

func newController(root string) *controller {
	c := &controller{root: root, now: time.Now, retries: map[string]*retry{}, metadata: metadataAddress, wire: wireAddress, guestinfo: guestinfo}
	c.platform, c.named = findPlatform(root)
	return c
}

func (c *controller) plugin() sdk.Plugin {
	return sdk.Plugin{
		Declaration: declaration,
		Version:     Version,
		Controllers: []sdk.Controller{{
			Name:      "userdata",
			Outputs:   []string{kindRecord, kindSource},
			Reconcile: c.reconcile,
			Watch:     c.watch,
		}},
	}
}

type controller struct {
	root string
	now  func() time.Time

	// trusted says whether the node had a trust anchor before this plugin looked for user data; nil until it has been asked for.
	trusted *bool

	// platform is the machine's; named says that the image's definition names it.
	platform platform
	named    bool
	// metadata and wire are where a platform's services are; guestinfo asks VMware for a variable. Tests have their own.
	metadata, wire string
	guestinfo      func(name string) (string, error)
	retries        map[string]*retry

	mu   sync.Mutex // guards the field below: watch and reconcile run side by side
	wake func()
}

// watch looks again when a disk has appeared.
func (c *controller) watch(ctx context.Context, wake func()) error {
	c.mu.Lock()
	c.wake = wake
	c.mu.Unlock()
	return uevent.Watch(ctx, func(e uevent.Event) {
		if e.Action == uevent.Lost || e.Variables["SUBSYSTEM"] == "block" && e.Action != "remove" {
			wake()
		}
	})
}

// reconcile applies what has not been applied. Twice is harmless: a source whose digest is on record is not applied again.
func (c *controller) reconcile(ctx context.Context, s *sdk.State) error {
	value, err := cmdline(c.root)
	if err != nil {
		return err
	}
	if err := c.askTrust(ctx, s); err != nil {
		return err
	}
	offline := c.offline(value)
	a, err := newApplier(ctx, s.Client(), offline)
	if err != nil {
		return err
	}
	all := append(offline, c.defaults())
	for _, f := range all {
		if err := c.settle(ctx, s, a, f); err != nil {
			return err
		}
	}
	if err := c.forget(ctx, s, all); err != nil {
		return err
	}
	pending, err := c.askRemotes(ctx, s, a, c.remotes(value, offline))
	if err != nil {
		return err
	}
	return c.summarise(ctx, s, pending)
}

// offline reads every source that needs no network.
func (c *controller) offline(argument string) []*found {
	all := []*found{fwCfg(c.root)}
	if c.platform == platformVMware {
		all = append(all, c.vmware())
	}
	switch {
	case argument == "":
		all = append(all, nowhere(sourceCmdline, "no argument cosi.userdata"))
	case strings.HasPrefix(argument, "data:"):
		all = append(all, inline(argument))
	}
	for _, f := range disks(c.root) {
		if !f.absent() {
			if err := c.diskAllowed(f.source); err != nil {
				f.data, f.err = nil, err
			}
		}
		all = append(all, f)
	}
	return all
}

func (c *controller) defaults() *found {
	f := &found{source: sourceImage, id: sourceImage, name: filepath.Base(defaultsFile), missing: "no default resources"}
	f.data, f.err = readFile(filepath.Join(c.root, defaultsFile))
	return f
}

// settle brings one source to its end: applied, absent, refused.
func (c *controller) settle(ctx context.Context, s *sdk.State, a *applier, f *found) error {
	status := &machinepb.UserDataSource{Source: f.source, Unauthenticated: f.unauthenticated}
	done := recorded(s, f)
	switch {
	case f.absent():
		if known, ok := sdk.Get[*machinepb.UserDataSource](s, kindSource, f.id); ok && finished(known.Spec.State) {
			return nil // a disk that was applied and then pulled is still shown
		}
		status.State, status.Message = stateAbsent, f.missing
	case done != nil && !(a.network && describesNetwork(done)):
		return c.write(ctx, s, f.id, done.GetOutcome())
	case errors.Is(f.err, errRefused):
		status.State, status.Message = stateRefused, strings.TrimPrefix(f.err.Error(), errRefused.Error()+": ")
	case f.err != nil:
		status.State, status.Message = stateFailed, f.err.Error()
	default:
		return c.apply(ctx, s, a, f, status)
	}
	return c.write(ctx, s, f.id, status)
}

// apply applies a source and puts on record that it did.
func (c *controller) apply(ctx context.Context, s *sdk.State, a *applier, f *found, status *machinepb.UserDataSource) error {
	written, err := a.apply(ctx, f, earlier(s, f.id), status)
	if err != nil {
		return err
	}
	status.Digest, status.Time = f.digest(), timestamppb.New(c.now())
	report(f, status)
	record := &machinepb.UserDataRecord{Outcome: status, Resources: written}
	if err := s.Write(ctx, kindRecord, f.id, record, nil); err != nil {
		return err
	}
	return c.write(ctx, s, f.id, status)
}

// forget removes what was absent and is no more: a disk has come, or gone.
func (c *controller) forget(ctx context.Context, s *sdk.State, all []*found) error {
	for _, known := range sdk.List[*machinepb.UserDataSource](s, kindSource) {
		if known.Spec.GetState() != stateAbsent || slices.ContainsFunc(all, func(f *found) bool { return f.id == known.GetId() }) {
			continue
		}
		if err := s.Delete(ctx, kindSource, known.GetId()); err != nil {
			return err
		}
	}
	return nil
}

// finished reports whether a source in that state has been dealt with for good, its digest given.
func finished(state string) bool {
	return state == stateApplied || state == statePartlyApplied || state == stateFailed || state == stateRefused
}

// summarise says whether all sources have been looked at.
func (c *controller) summarise(ctx context.Context, s *sdk.State, pending string) error {
	summary := &machinepb.UserDataSource{State: stateApplied, Complete: pending == "", Message: pending}
	if pending != "" {
		summary.State = stateUnreachable
	}
	return c.write(ctx, s, summaryID, summary)
}

func (c *controller) write(ctx context.Context, s *sdk.State, id string, status *machinepb.UserDataSource) error {
	return s.Write(ctx, kindSource, id, status, nil)
}

// report prints what came of a source, for the console and the log.
func report(f *found, status *machinepb.UserDataSource) {
	fmt.Fprintf(os.Stderr, "%s: %d of %d documents applied\n", f.name, status.Applied, status.Documents)
	for _, p := range status.Problems {
		fmt.Fprintln(os.Stderr, document.Problem{
			Source: f.name, Document: int(p.Document), Line: int(p.Line), Field: p.Field, Message: p.Message, Resource: p.Resource,
		})
	}
}
