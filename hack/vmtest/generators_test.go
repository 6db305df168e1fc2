package vmtest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/hack/soak/hotplug"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/qemu"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// TestGenerators: what happens on a node is told by the generators, and of whom; by eBPF, and where the kernel or their rights forbid that by
// the next best way, which says what it does not hear.
func TestGenerators(t *testing.T) {
	vmtest.Parallel(t, 280)
	for _, tc := range []struct {
		name, commandLine string
		ebpf              bool
	}{{"eBPF", impatient, true}, {"WithoutEBPF", "lockdown=confidentiality", false}} {
		t.Run(tc.name, func(t *testing.T) {
			ebpf := tc.ebpf
			disks, extra := []qemu.Disk{vmtest.BrokenExt4(t, "broken", "victim"), vmtest.Ext4(t, "stuck")}, hotplug.SCSI.Arguments
			var hardware *vmtest.Laptop
			if vmtest.Arch() == qemu.AMD64 { // QEMU adds tables to the firmware's of no other machine
				hardware = vmtest.NewLaptop(t)
				extra = slices.Concat(extra, hardware.Extra)
			}
			n := vmtest.Start(t, vmtest.Options{
				Definition: "test", Boot: node.Kernel, CommandLine: tc.commandLine, Disks: disks, HotplugPorts: 1, Extra: extra,
			})
			n.Ready(t)
			said := 0 // events of power
			lid := func() {
				if hardware != nil {
					t.Run("Lid", func(t *testing.T) { l := laptop{Node: n, hardware: hardware}; l.watch(t); l.lid(t) })
					said += 4 // of the lid and the sleep button
				}
			}
			t.Run("Processes", func(t *testing.T) { checkProcessEvents(t, n, ebpf) })
			t.Run("Kernel", func(t *testing.T) { checkKernelEvents(t, n) })
			t.Run("Pressure", func(t *testing.T) { checkPressureEvents(t, n) })
			t.Run("Links", func(t *testing.T) { checkLinkEvents(t, n, ebpf) })
			if ebpf {
				t.Run("Blocks", func(t *testing.T) { checkBlockEvents(t, n, ebpf) }) // before the kernel's types are hidden
			}
			t.Run("Mounts", func(t *testing.T) { checkMountEvents(t, n, !ebpf) })
			if ebpf {
				lid()
				t.Run("WithoutBTF", func(t *testing.T) { checkWithoutBTF(t, n) })
				stuck := holdUp(t, n) // meanwhile
				t.Run("WithoutCapability", func(t *testing.T) { checkWithoutCapability(t, n, said) })
				t.Run("Troubles", func(t *testing.T) { checkTroubles(t, n, stuck) })
			} else {
				t.Run("Disks", func(t *testing.T) { checkDisks(t, n, "netlink", 2, hotplug.SCSI) })
				t.Run("Keys", func(t *testing.T) { checkPress(t, n, "evdev", 1) })
				lid()
				t.Run("Blocks", func(t *testing.T) { checkBlockEvents(t, n, ebpf) }) // power-events, too, may lose some of so many events of the kernel's
				t.Run("EtcdGuard", func(t *testing.T) { checkEtcdGuard(t, n) })      // the last: the node powers off
			}
		})
	}
}

// checkProcessEvents: a plugin crashes, executes a program from memory as it starts again, and is killed for want of memory.
func checkProcessEvents(t *testing.T, n *vmtest.Node, ebpf bool) {
	mode, unavailable := "tracepoint", 0
	if !ebpf {
		mode, unavailable = "netlink", 1
	}
	status := generator(t, n, "process-events", mode)
	if u := status.GetUnavailable(); len(u) != unavailable || len(u) > 0 && u[0].GetWhy() == "" || (status.GetMessage() == "") != ebpf {
		t.Errorf("generator %v; want %d modes unavailable, and said why and what is not heard", status, unavailable)
	}
	n.Apply(t, "metadata: {type: ProbeRequests.test.cosi.dev, id: abort}\nspec: {action: ABORT}\n")
	e := &eventspb.ProcessEvent{}
	await(t, n, "processevents", e, func() bool { return e.GetAction() == "Crashed" })
	// The process is named for the descriptor that it was executed from.
	if e.GetPlugin() != "probe" || e.GetSignal() != "SIGABRT" || e.GetProcess() != "3" || e.GetCgroup() != "/cosi/plugins/probe" || (e.GetMessage() == "sent by a thread") != ebpf {
		t.Errorf("crash: %v", e)
	}
	if ebpf {
		await(t, n, "processevents", e, func() bool { return e.GetAction() == "UnexpectedExec" })
		if e.GetPlugin() != "probe" || e.GetExecutable() != "/proc/self/fd/3" {
			t.Errorf("unexpected exec: %v", e)
		}
	}
	n.Apply(t, gaugeRequest("starve", "starve: probe"))
	await(t, n, "processevents", e, func() bool { return e.GetAction() == "OOMKilled" })
	if e.GetPlugin() != "probe" || e.GetSignal() != "SIGKILL" || e.GetTime() == nil || e.GetBoottimeNs() == 0 {
		t.Errorf("OOM kill: %v", e)
	}
	for _, event := range list(t, n, "processevents") {
		other := &eventspb.ProcessEvent{}
		decode(t, event, other)
		if other.GetPlugin() != "probe" || strings.HasPrefix(other.GetAction(), "Resync") {
			t.Errorf("an event that nobody provoked: %v", other)
		}
	}
	// The status comes after the event.
	n.Until(t, "generators", "process-events", status, func(*resourcepb.Metadata) bool { return status.GetRings() >= 2 })
	if status.GetLost() > 0 {
		t.Errorf("generator: %v; want that none is lost", status)
	}
}

// checkKernelEvents: a warning in the kernel's log is an event, and a notice before it is none.
func checkKernelEvents(t *testing.T, n *vmtest.Node) {
	const notice, warning = "generators: a notice", "generators: a warning"
	for id, message := range map[string]string{"notice": "<5>" + notice, "warning": "<4>" + warning} {
		n.Converged(t, n.Apply(t, gaugeRequest(id, fmt.Sprintf("kernel_message: %q", message)))...)
	}
	e := &eventspb.KernelEvent{}
	await(t, n, "kernelevents", e, func() bool { return e.GetMessage() == warning })
	if e.GetAction() != "Logged" || e.GetSeverity() != "warning" || e.GetFacility() != "user" || e.GetSequence() == 0 || e.GetBoottimeNs() == 0 {
		t.Errorf("warning: %v", e)
	}
	await(t, n, "kernelevents", e, func() bool { return e.GetFacility() == "kern" }) // what the kernel said while it started, or of the OOM kill
	for _, event := range list(t, n, "kernelevents") {
		decode(t, event, e)
		if e.GetMessage() == notice || !slices.Contains([]string{"emergency", "alert", "critical", "error", "warning"}, e.GetSeverity()) {
			t.Errorf("event of less than a warning: %v", e)
		}
	}
	generator(t, n, "kernel-events", "kmsg")
}

// checkMountEvents: a file system finds an error in itself and becomes read-only, and somebody mounts and unmounts what nobody asked for.
// What a MountPoint asks for is no event. The kernel's types are hidden then, which fentry needs: the plugin, which is killed, hears by the
// next mode. The probes read nothing of the kernel, so that lockdown forbids kprobes only.
func checkMountEvents(t *testing.T, n *vmtest.Node, lockdown bool) {
	c := &mountEvents{n: n, provoked: map[string]bool{}}
	if mode, unavailable := byFunctions(t, n); mode == "fentry" || !lockdown {
		c.mode(t, mode, unavailable...)
	} else {
		c.mode(t, "poll", "fentry", "kprobe")
	}
	c.fault(t)
	c.stranger(t, "first")
	c.mount(t, "/sys/kernel/btf")
	n.Converged(t, n.Apply(t, gaugeRequest("kill", "kill: mount-events"))...)
	if lockdown {
		c.mode(t, "poll", "fentry", "kprobe")
	} else {
		c.mode(t, "kprobe", "fentry")
	}
	c.provoked["Resynchronised "] = true
	c.stranger(t, "second")
	n.Delete(t, "mountpoints", "broken")
	c.mount(t, "/run/mnt/last") // later than all that is no event
	e := &eventspb.MountEvent{}
	for _, event := range list(t, n, "mountevents") {
		if decode(t, event, e); !c.provoked[e.GetAction()+" "+e.GetTarget()] {
			t.Errorf("an event that nobody provoked: %v", e)
		}
	}
}

// mountEvents are those of a node.
type mountEvents struct {
	n        *vmtest.Node
	provoked map[string]bool // action and target
	since    time.Time       // it has heard in the mode that it was in last
}

// mode waits until the generator, which was started again if it was in a mode before, hears in one, and checks that it says why not in those before.
func (c *mountEvents) mode(t *testing.T, mode string, unavailable ...string) {
	t.Helper()
	status := &eventspb.GeneratorStatus{}
	c.n.Until(t, "generators", "mount-events", status, func(*resourcepb.Metadata) bool {
		return status.GetMode() == mode && status.GetSince().AsTime().After(c.since)
	})
	c.since = status.GetSince().AsTime()
	var modes []string
	for _, u := range status.GetUnavailable() {
		if modes = append(modes, u.GetMode()); u.GetWhy() == "" {
			t.Errorf("it does not say why %s is unavailable", u.GetMode())
		}
	}
	if !slices.Equal(modes, unavailable) || status.GetMessage() != "" || status.GetLost() > 0 {
		t.Errorf("generator %v; want %q unavailable, all noticed, and nothing lost", status, unavailable)
	}
}

// event waits for one.
func (c *mountEvents) event(t *testing.T, action, target string) *eventspb.MountEvent {
	t.Helper()
	e := &eventspb.MountEvent{}
	await(t, c.n, "mountevents", e, func() bool { return e.GetAction() == action && e.GetTarget() == target })
	if e.GetBoottimeNs() == 0 || e.GetTime() == nil {
		t.Errorf("no time in %v", e)
	}
	c.provoked[action+" "+target] = true
	return e
}

// fault opens a file whose inode is broken.
func (c *mountEvents) fault(t *testing.T) {
	t.Helper()
	const target = "/run/mnt/broken"
	c.n.Converged(t, c.n.Apply(t, "metadata: {type: MountPoints.storage.cosi.dev, id: broken}\nspec: {source: /dev/vdb, target: "+target+", fstype: ext4, data: errors=remount-ro}\n")...)
	c.n.Apply(t, gaugeRequest("victim", "open: "+target+"/victim"))
	e := c.event(t, "FileSystemError", target)
	if e.GetSource() != "/dev/vdb" || e.GetDevice() != "vdb" || e.GetFstype() != "ext4" || e.GetInode() == 0 || e.GetMessage() != "structure needs cleaning" {
		t.Errorf("error: %v", e)
	}
	if e := c.event(t, "ReadOnly", target); e.GetSource() != "/dev/vdb" || e.GetDevice() != "vdb" || e.GetFstype() != "ext4" {
		t.Errorf("read-only: %v", e)
	}
}

// stranger mounts something, and unmounts it.
func (c *mountEvents) stranger(t *testing.T, name string) {
	t.Helper()
	target := "/run/mnt/" + name
	c.mount(t, target)
	c.n.Converged(t, c.n.Apply(t, gaugeRequest("unmount", "unmount: "+target))...)
	c.event(t, "Unmounted", target)
}

func (c *mountEvents) mount(t *testing.T, target string) {
	t.Helper()
	c.n.Converged(t, c.n.Apply(t, gaugeRequest("mount", "mount: "+target))...)
	if e := c.event(t, "Mounted", target); e.GetSource() != "stranger" || e.GetFstype() != "tmpfs" {
		t.Errorf("mounted: %v", e)
	}
}

// await watches a kind of event until one is as wanted; it is in spec then.
func await(t *testing.T, n *vmtest.Node, kind string, spec proto.Message, wanted func() bool) {
	t.Helper()
	err := n.Client.Watch(n.Patience(t, moment), n.Kind(t, kind), "", &resourcepb.WatchOptions{BootstrapContents: true}, func(e *resourcepb.Event) error {
		if e.GetEventType() != resourcepb.EventType_CREATED {
			return nil
		}
		proto.Reset(spec)
		if err := proto.Unmarshal(e.GetResource().GetSpec().GetProtoSpec(), spec); err != nil {
			return err
		}
		if wanted() {
			return client.ErrStop
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v; the last was %v", kind, err, spec)
	}
}

// list returns all resources of a kind.
func list(t *testing.T, n *vmtest.Node, kind string) []*resourcepb.Resource {
	t.Helper()
	all, err := n.Client.List(n.Patience(t, moment), n.Kind(t, kind))
	if err != nil {
		t.Fatal(err)
	}
	return all
}
