package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	format "github.com/cosi-os/cosi/api/upgrade"
	"github.com/cosi-os/cosi/sdk"
)

type (
	installation       = sdk.Resource[*machinepb.Installation]
	installationStatus = *machinepb.InstallationStatus
)

// reasonInstalled is the reason of an InstallationStatus beside those of an UpgradeStatus.
const reasonInstalled = "Installed"

// settle is for how long no disk may have come or gone before one is chosen: another that matches may be on its way.
const settle = 10 * time.Second

// installationStatuses writes those of Installations: see each.
func (c *controller) installationStatuses(ctx context.Context, s *sdk.State, f func(installation) installationStatus) error {
	return each(ctx, s, installationType, installationStatusType, func(i installation) installationStatus {
		is := f(i)
		if is != nil {
			is.ObservedVersion, is.Ready = i.GetVersion(), is.Reason == reasonInstalled || is.Reason == reasonRebooting
		}
		return is
	})
}

// installed says of every Installation what there is to say on a node that runs from a disk.
func (c *controller) installed(ctx context.Context, s *sdk.State) error {
	disk, there := sdk.Get[*storagepb.Disk](s, diskType, c.machine.disk)
	return c.installationStatuses(ctx, s, func(i installation) installationStatus {
		is := &machinepb.InstallationStatus{Device: "/dev/" + c.machine.disk}
		switch {
		case !there:
			is.Reason, is.Message = reasonWaiting, "for what Disks say of "+is.Device
		case matches(disk.Spec, disk.GetId(), i.Spec.GetDisk()):
			is.Reason, is.Done, is.Version, is.RootHash = reasonInstalled, true, c.machine.version, c.machine.root.String()
			is.Message = "the node runs from it"
		default:
			is.Reason, is.Done = reasonRefused, true
			is.Message = fmt.Sprintf("the node runs from %s, which is another disk: nodes whose root is in memory install", is.Device)
		}
		return is
	})
}

// installations goes on with the Installations, one at a time.
func (c *controller) installations(ctx context.Context, s *sdk.State, p *policy) (err error) {
	cancelUnwanted[*machinepb.Installation](c, s, installationType)
	busy := ""
	failed := c.installationStatuses(ctx, s, func(i installation) installationStatus {
		before, _ := sdk.Get[installationStatus](s, installationStatusType, i.GetId())
		told := before.Spec.GetObservedVersion() == i.GetVersion()
		switch {
		case busy != "":
			return &machinepb.InstallationStatus{Reason: reasonWaiting, Message: fmt.Sprintf("for Installation %q", busy)}
		case told && before.Spec.GetReason() == reasonRebooting:
			busy = i.GetId()
			is, problem := reboots(ctx, s, i, proto.CloneOf(before.Spec))
			err = errors.Join(err, problem)
			return is
		case told && before.Spec.GetDone() && before.Spec.GetReason() != reasonRefused:
			return nil // what was done once is not begun again
		}
		is, problem := c.install(ctx, s, i, p, told)
		err = errors.Join(err, problem)
		if c.job != nil && c.job.id == i.GetId() || is.GetReason() == reasonRebooting {
			busy = i.GetId()
		}
		return is
	})
	return errors.Join(err, failed)
}

// matches reports whether a disk is what a selector chooses.
func matches(d *storagepb.Disk, id string, by *machinepb.Installation_Selector) bool {
	for _, is := range [][2]string{
		{by.GetName(), id}, {by.GetSerial(), d.GetSerial()}, {by.GetModel(), d.GetModel()}, {by.GetWwid(), d.GetWwid()}, {by.GetTransport(), d.GetTransport()},
	} {
		if is[0] != "" && is[0] != is[1] {
			return false
		}
	}
	return d.GetSize() >= by.GetMinSize() && (by.GetMaxSize() == 0 || d.GetSize() <= by.GetMaxSize())
}

// transports are those of disks that may be installed on.
var transports = []string{"virtio", "scsi", "ata", "usb", "nvme", "mmc", "xen"}

// candidates are the disks that a selector matches, and all that there are, as people and as the plugin tell them apart.
func candidates(s *sdk.State, by *machinepb.Installation_Selector) (fit []target, there, identity string) {
	var all, ids []string
	for _, d := range sdk.List[*storagepb.Disk](s, diskType) {
		is := d.Spec
		if is.GetSize() == 0 || is.GetReadOnly() || !slices.Contains(transports, is.GetTransport()) || strings.HasPrefix(d.GetId(), "sr") {
			continue
		}
		t := target{name: d.GetId(), node: is.GetDevice(), size: int64(is.GetSize()), sector: is.GetLogicalBlockSize()}
		all = append(all, fmt.Sprintf("%s, serial %q, model %q, %s", t, is.GetSerial(), is.GetModel(), is.GetTransport()))
		ids = append(ids, fmt.Sprintf("%s %d %d", d.GetId(), is.GetDiskseq(), is.GetSize()))
		if matches(is, d.GetId(), by) {
			fit = append(fit, t)
		}
	}
	return fit, strings.Join(all, "; "), strings.Join(ids, "\n")
}

// media are the devices that may be the medium that the node was booted from.
func media(s *sdk.State) (nodes []string) {
	for _, d := range sdk.List[*storagepb.Disk](s, diskType) {
		if d.Spec.GetSize() > 0 && slices.Contains(transports, d.Spec.GetTransport()) {
			nodes = append(nodes, d.Spec.GetDevice())
		}
	}
	return nodes
}

// pointless says what is wrong with an Installation, whatever the node.
func pointless(i *machinepb.Installation) string {
	by := i.GetDisk()
	switch {
	case by.GetName() == "" && by.GetSerial() == "" && by.GetModel() == "" && by.GetWwid() == "" && by.GetTransport() == "" && by.GetMinSize() == 0 && by.GetMaxSize() == 0:
		return "disk: says nothing"
	case sources(i.GetUrl() != "", i.GetPushed(), i.GetMedium()) != 1:
		return "want one of url, pushed and medium"
	case i.GetDigest() == "" && !i.GetMedium():
		return "digest: missing"
	}
	return ""
}

// install goes on with an Installation. nil: its status stays. told: there is one of what stands in the Installation.
func (c *controller) install(ctx context.Context, s *sdk.State, i installation, p *policy, told bool) (installationStatus, error) {
	refuse := func(message string) (installationStatus, error) {
		return &machinepb.InstallationStatus{Reason: reasonRefused, Message: message, Done: true}, nil
	}
	waits := func(format string, args ...any) (installationStatus, error) {
		return &machinepb.InstallationStatus{Reason: reasonWaiting, Message: fmt.Sprintf(format, args...)}, nil
	}
	if wrong := pointless(i.Spec); wrong != "" {
		return refuse(wrong)
	}
	if p == nil {
		return refuse("no UpgradePolicies that is in force says whose versions are taken")
	}
	fit, there, identity := candidates(s, i.Spec.GetDisk())
	if identity != c.disks {
		c.disks, c.since = identity, time.Now()
	}
	judged := i.GetVersion() + "\n" + identity
	if c.job == nil || c.job.id != i.GetId() {
		settled := c.since.Add(c.settle)
		switch {
		case told && c.judged[i.GetId()] == judged:
			return nil, nil
		case len(fit) == 0:
			return waits("for a disk that matches; there are: %s", there)
		case time.Now().Before(settled):
			c.at(settled)
			return waits("%v for other disks", c.settle)
		}
	}
	started, other, err := c.begin(ctx, s, i.Metadata, i.Spec.GetUrl(), func() *job {
		j := c.installing(i, *p, fit, media(s))
		j.judges = judged
		return j
	})
	switch {
	case err != nil || other == retries:
		return nil, err
	case started:
		return &machinepb.InstallationStatus{Reason: reasonReceiving}, nil
	case other != "":
		return waits("%s", other)
	}
	if i.Spec.GetPushed() {
		c.feed(s, i.GetId(), i.Spec.GetDigest())
	}
	return c.progress(ctx, s, i)
}

// installing is the job of an Installation: first the disk is chosen, and then the source is opened.
func (c *controller) installing(i installation, p policy, fit []target, media []string) *job {
	by := c.installer
	by.all, by.media, by.fingerprint, by.keepState, by.userData = fit, media, i.Spec.GetFingerprint(), i.Spec.GetKeepState(), i.Spec.GetUserData()
	t := terms{p, i.Spec.GetDigest(), i.Spec.GetVersion()}
	var j *job
	j = newJob(i.GetId(), i.GetVersion(), i.Spec.GetUrl(), t.digest, func(open func() (io.ReadCloser, error), opened func(format.Manifest)) error {
		by.found = func(t target, holds contents) {
			j.note(func(p *progress) { p.device, p.holds = t.node, holds })
		}
		on, err := by.choose()
		if err != nil {
			return err
		}
		source, err := open()
		if err == nil {
			err = by.install(on, source, t, opened)
			source.Close()
		}
		return errors.Join(err, on.disk.Close())
	})
	if i.Spec.GetMedium() {
		j.medium = func() (*medium, error) {
			m, err := by.medium()
			if err == nil && t.digest == "" {
				t.digest = m.Digest // what is on a medium arrives as it is: who may have it run, the policy says
			}
			return m, err
		}
	}
	return j
}

// progress says how far the job of an Installation is, and what came of it.
func (c *controller) progress(ctx context.Context, s *sdk.State, i installation) (installationStatus, error) {
	over, progress := c.job, c.job.look()
	is := &machinepb.InstallationStatus{
		Reason: reasonReceiving, Device: progress.device, Received: uint64(progress.received), Size: uint64(progress.size),
	}
	if progress.manifest != nil {
		is.Version, is.RootHash = progress.manifest.Version, progress.manifest.Root.Hash
	}
	if !progress.done {
		return is, nil
	}
	c.job = nil
	switch err := progress.err; {
	case errors.Is(err, errRefused):
		c.judged[i.GetId()] = over.judges
		c.at(time.Now()) // the disks may be others by now
		is.Reason, is.Message, is.Done = reasonRefused, why(err), true
		if len(progress.holds.found) > 0 {
			is.Fingerprint = progress.holds.fingerprint
		}
		return is, nil
	case errors.Is(err, errBroken):
		is.Reason, is.Message, is.Done = reasonFailed, err.Error(), true
		return is, nil
	case err != nil:
		is.Reason, is.Message = reasonWaiting, c.later(s, over, err)
		return is, nil
	}
	is.Reason, is.Done = reasonInstalled, true
	if i.Spec.GetNoReboot() {
		is.Message = "it runs when the node is booted from this disk"
		return is, nil
	}
	return reboots(ctx, s, i, is)
}

// reboots asks for the reboot into what is installed.
func reboots(ctx context.Context, s *sdk.State, i installation, is installationStatus) (installationStatus, error) {
	waits, refused, err := askReboot(ctx, s, i.Metadata, fmt.Sprintf("installation %s of version %s on %s", i.GetId(), is.Version, is.Device))
	is.Reason, is.Message, is.Done = reasonRebooting, waits, false
	if refused != "" {
		is.Reason, is.Message, is.Done = reasonInstalled, "it runs when the node is booted from this disk; a reboot was refused: "+refused, true
	}
	return is, err
}
