// Package upgrade is the plugin that replaces the node by another version of itself (Upgrades), and that says when a version is good (BootHealths).
// It shows what the node can be booted from (BootEntries). On a node whose root is in memory it installs a version on a disk (Installations).
//
// A disk has two slots for a root, and the EFI system partition has for each a kernel and a boot entry: see package bootentry. A new version goes
// into the slot that the node does not run from. Whenever power is lost, the next boot runs the version before, or the new one, whole:
//
//  1. the entry of the slot is removed, then its kernel      only what runs is bootable now
//  2. the slot is written, and read back from the medium
//  3. the kernel is written                                  nothing boots it yet
//  4. an UpgradeRecord says that the version is tried        from here on it is tried once
//  5. the entry is written, with three tries                 the new version is booted next
//  6. a ShutdownRequest asks for a reboot
//
// Each step is on the disk before the next begins, and 1, 3 and 5 happen whole or not at all: see package fat. The boot manager counts a try before
// it boots. The new version renames its entry, without a counter, when it is healthy. If it never is, it reboots, or the watchdog, the kernel's
// panic=, or PID 1 after 15 minutes do; when no tries are left, the version before is booted, and says so in the record.
//
// An installation writes all of a disk but its partition table, whose first sector comes last. Until then the disk says that it is begun: no firmware
// boots it, and another installation takes it. One that keeps the state leaves the partition table, too, and one copy of it names the state whenever
// power is lost:
//
//  1. the first sector says that it is begun, by other words   no firmware boots it, and no installation that keeps nothing takes it
//  2. the table, each copy, names the state alone              no firmware finds a system that is half there
//  3. all that lies before the state is written, and read back
//  4. the table, each copy, names the new partitions, too
//  5. the first sector                                         it can be booted
package upgrade

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/plugins/internal/alarm"
	"github.com/cosi-os/cosi/sdk"
)

// Types of the plugin's inputs and outputs.
const (
	upgradeType       = "Upgrades.machine.cosi.dev"
	statusType        = "UpgradeStatuses.machine.cosi.dev"
	recordType        = "UpgradeRecords.machine.cosi.dev"
	chunkType         = "UpgradeChunks.machine.cosi.dev"
	policyType        = "UpgradePolicies.machine.cosi.dev"
	policyStatusType  = "UpgradePolicyStatuses.machine.cosi.dev"
	healthType        = "BootHealths.machine.cosi.dev"
	healthStatusType  = "BootHealthStatuses.machine.cosi.dev"
	entryType         = "BootEntries.machine.cosi.dev"
	machineType       = "MachineStatuses.machine.cosi.dev"
	shutdownType      = "ShutdownRequests.power.cosi.dev"
	shutdownStateType = "ShutdownStatuses.power.cosi.dev"

	installationType       = "Installations.machine.cosi.dev"
	installationStatusType = "InstallationStatuses.machine.cosi.dev"
	diskType               = "Disks.storage.cosi.dev"

	credentialsType       = "RegistryCredentials.machine.cosi.dev"
	credentialsStatusType = "RegistryCredentialsStatuses.machine.cosi.dev"
)

// conditionTypes are the observed kinds that BootHealths may name, beside machineType.
var conditionTypes = []string{
	"AddressStatuses.network.cosi.dev", "DHCPClientStatuses.network.cosi.dev", "LinkStatuses.network.cosi.dev", "MountPointStatuses.storage.cosi.dev",
	"PluginStatuses.service.cosi.dev", "RouteStatuses.network.cosi.dev",
}

// nodeID is the id of what there is one of.
const nodeID = "node"

// Version is the plugin's version.
const Version = "0.1.0"

//go:embed plugin.json
var declared []byte

// Plugin returns the plugin.
func Plugin() sdk.Plugin {
	return plugin(&controller{
		look: here, started: bootTime(), alarm: alarm.New(alarm.System{}), settle: settle,
		installer: installer{firmware: firmwareOf("/sys"), open: openPartition, reread: reread, read: openMedium},
	})
}

func plugin(c *controller) sdk.Plugin {
	c.jobs, c.judged, c.failed = make(chan *job), map[string]string{}, map[string]failure{}
	return sdk.Plugin{
		Declaration: declared,
		Version:     Version,
		Controllers: []sdk.Controller{{
			Name: "upgrade",
			Inputs: append([]string{upgradeType, installationType, diskType, chunkType, policyType, credentialsType, healthType, machineType, shutdownStateType},
				conditionTypes...),
			Outputs:   []string{statusType, recordType, installationStatusType, policyStatusType, credentialsStatusType, healthStatusType, entryType, shutdownType},
			Reconcile: c.reconcile,
			Watch:     c.watch,
		}},
	}
}

// here is the machine that the plugin runs on.
func here() (*machine, error) {
	arguments, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil, err
	}
	var root unix.Stat_t
	if err := unix.Stat("/", &root); err != nil {
		return nil, fmt.Errorf("stat /: %w", err)
	}
	m, err := look("/sys", root.Dev, string(arguments))
	if err != nil {
		return nil, err
	}
	const file = "/usr/lib/cosi/image.json"
	image, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var says struct{ Version string }
	if err := json.Unmarshal(image, &says); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	m.version = says.Version
	return m, nil
}

// bootTime is when the kernel began, in this process's time.
func bootTime() time.Time {
	var since unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &since) != nil {
		return time.Now()
	}
	return time.Now().Add(-time.Duration(since.Nano()))
}

// controller is the plugin at work. Its fields are used by reconcile only, but for jobs, which hands a job over to watch.
type controller struct {
	look    func() (*machine, error)
	started time.Time // the kernel
	alarm   *alarm.Alarm
	jobs    chan *job

	machine *machine
	entries entries
	fresh   bool // entries are as they are on the disk
	missing string
	givenUp bool // the trial of what runs
	job     *job
	failed  map[string]failure // of sources, by the id of the Upgrade or Installation
	ring    time.Time          // when to reconcile again

	installer installer // but for what Installations say
	settle    time.Duration
	disks     string            // all that there are
	since     time.Time         // they are so
	judged    map[string]string // Installations that are refused, with the disks that they are refused for
}

// watch runs the alarm, and one job at a time.
func (c *controller) watch(ctx context.Context, wake func()) error {
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() {
		for {
			select {
			case j := <-c.jobs:
				jobContext, cancel := context.WithCancel(ctx)
				stop := context.AfterFunc(j.cancelled, cancel)
				j.run(jobContext, wake)
				stop()
				cancel()
			case <-ctx.Done():
				return
			}
		}
	})
	return c.alarm.Watch(ctx, wake)
}

// at has the controller reconcile at a time, if nothing happens before.
func (c *controller) at(t time.Time) {
	if c.ring.IsZero() || t.Before(c.ring) {
		c.ring = t
	}
}

// soon is when what failed is tried again, and rarely when that takes somebody who changes something.
const (
	soon   = 10 * time.Second
	rarely = 10 * time.Minute
)

// reconcile looks what runs, says whether it is good, and goes on with the Upgrades.
func (c *controller) reconcile(ctx context.Context, s *sdk.State) error {
	c.ring = time.Time{}
	err := c.all(ctx, s)
	c.alarm.Ring(c.ring)
	return err
}

func (c *controller) all(ctx context.Context, s *sdk.State) error {
	policy, err := c.policy(ctx, s)
	if err != nil {
		return err
	}
	if err := credentialStatuses(ctx, s); err != nil {
		return err
	}
	if c.machine == nil {
		m, err := c.look()
		if err != nil {
			if err := c.nowhere(ctx, s, err); err != nil {
				return err
			}
			return c.installations(ctx, s, policy)
		}
		c.machine = m
	}
	if err := c.installed(ctx, s); err != nil {
		return err
	}
	problem := c.read()
	if problem == nil {
		if problem, err = c.health(ctx, s); err != nil {
			return err
		}
	}
	if problem == nil {
		problem = c.read() // it may have been blessed
	}
	if err := c.show(ctx, s, problem); err != nil {
		return err
	}
	if problem != nil {
		c.at(time.Now().Add(soon))
		return nil
	}
	return c.upgrades(ctx, s, policy)
}

// read reads the boot entries if they have changed. While a job has the EFI system partition, they are what they were.
func (c *controller) read() (err error) {
	if c.fresh || c.job != nil {
		return nil
	}
	c.entries, err = c.machine.entries()
	c.fresh = err == nil
	return err
}
