package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/engine/wire"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// kept is a directory as PID 1 hands it over, and the state of a runtime that starts in it.
func kept(t *testing.T) *wire.Storage {
	t.Helper()
	return &wire.Storage{Dir: t.TempDir(), Device: "/dev/vda5"}
}

func (m *machine) admin() resourcepb.StateClient { return resourcepb.NewStateClient(m.dial("runtime")) }

// kill ends the runtime as a crash does.
func (m *machine) kill() {
	m.cmd.Process.Kill()
	m.cmd.Wait()
}

func stateStatus(t *testing.T, c resourcepb.StateClient) *machinepb.StateStatus {
	t.Helper()
	s := &machinepb.StateStatus{}
	eventually(t, "the state is shown", func() bool {
		return read(t.Context(), c, "status", "StateStatuses.machine.cosi.dev", "state", s) == nil
	})
	return s
}

func TestWhatPeopleWriteOutlivesTheRuntime(t *testing.T) {
	disk := kept(t)
	m := bootWith(t, disk)
	c := m.admin()
	if s := stateStatus(t, c); !s.GetDurable() || s.GetDevice() != "/dev/vda5" {
		t.Errorf("state %v; want it kept on /dev/vda5", s)
	}
	create(t, c, "", "config", mountPoints, "a", &storagepb.MountPoint{Source: "tmpfs", Target: "/var/a", Fstype: "tmpfs"})
	create(t, c, "", "requests", "ShutdownRequests.power.cosi.dev", "a", &powerpb.ShutdownRequest{Action: powerpb.ShutdownRequest_REBOOT})
	m.kill()

	m = bootWith(t, disk)
	c = m.admin()
	point := &storagepb.MountPoint{}
	if err := read(t.Context(), c, "config", mountPoints, "a", point); err != nil || point.GetTarget() != "/var/a" {
		t.Errorf("the mount point is %v, %v", point, err)
	}
	if err := read(t.Context(), c, "requests", "ShutdownRequests.power.cosi.dev", "a", &powerpb.ShutdownRequest{Action: powerpb.ShutdownRequest_REBOOT}); status.Code(err) != codes.NotFound {
		t.Errorf("the request after the crash: %v; want that it is gone", err)
	}
	endsCleanly(t, m.cmd)
}

// TestTheNodesOwnKeyOutlivesTheRuntime: clients that have pinned what the console showed know the node again, and nobody but an admin is
// shown the key.
func TestTheNodesOwnKeyOutlivesTheRuntime(t *testing.T) {
	disk, ca, end := kept(t), newAuthority(t), time.Now().Add(time.Hour)
	m := bootWith(t, disk)
	create(t, m.admin(), "", "config", certificates, "node", &machinepb.Certificates{ClientCas: []string{ca.pem}})
	var prints []string
	for range 2 {
		answers := func() bool {
			return read(t.Context(), m.connect(ca.client("admin", end)), "config", certificates, "node", &machinepb.Certificates{}) == nil
		}
		eventually(t, "the API answers", answers)
		prints = append(prints, m.fingerprint(ca.client("admin", end)))
		m.kill()
		m = bootWith(t, disk)
	}
	if prints[0] != prints[1] {
		t.Errorf("the node showed %s, and after the crash %s", prints[0], prints[1])
	}

	key := &machinepb.ServingKey{}
	if err := read(t.Context(), m.admin(), "config", servingKeys, "node", key); err != nil {
		t.Fatal(err)
	}
	canary := strings.Split(key.GetKey(), "\n")[1]
	for _, organisation := range []string{"operator", "reader"} {
		var theirs said
		c := m.connect(ca.client(organisation, end))
		eventually(t, organisation+" is let in", func() bool {
			return read(t.Context(), c, "status", machineStatuses, "machine", &machinepb.MachineStatus{}) == nil
		})
		if denied := theirs.everything(t.Context(), c, document(t, "config", servingKeys, "node", key)); denied != 15 || strings.Contains(theirs.String(), canary) {
			t.Errorf("%s is refused %d of 15 calls:\n%s", organisation, denied, theirs.String())
		}
	}
	var open said
	open.lists(m.admin())
	m.mu.Lock()
	console, _ := json.Marshal(m.downs)
	m.mu.Unlock()
	endsCleanly(t, m.cmd)
	for what, text := range map[string]string{"a resource that is not Sensitive": open.String(), "the console": string(console), "the log": m.stderr.String()} {
		if strings.Contains(text, canary) {
			t.Errorf("%s holds the key", what)
		}
	}
}

// TestAKindOutlivesThePluginThatTakesIt: another image has another plugin for it, and what people want is still there.
func TestAKindOutlivesThePluginThatTakesIt(t *testing.T) {
	disk := kept(t)
	statuses := "MountPointStatuses.storage.cosi.dev"
	for _, name := range []string{"mount", "fuse"} {
		m := bootWith(t, disk, &declaration.Declaration{
			Name: name, Inputs: []declaration.Input{{Type: mountPoints, Finalizers: true}}, Outputs: []string{statuses},
		})
		if name == "mount" {
			create(t, m.admin(), "", "config", mountPoints, "a", &storagepb.MountPoint{Source: "tmpfs", Target: "/var/a", Fstype: "tmpfs"})
		}
		p := m.plug(name)
		point := &storagepb.MountPoint{}
		if err := read(t.Context(), p.state, "config", mountPoints, "a", point); err != nil || point.GetTarget() != "/var/a" {
			t.Errorf("%s reads %v, %v", name, point, err)
		}
		create(t, p.state, name, "status", statuses, "a", &storagepb.MountPointStatus{ObservedVersion: "1", Ready: true})
		m.kill()
	}
}

func TestWithoutADiskTheNodeSaysSo(t *testing.T) {
	c := boot(t).admin()
	if s := stateStatus(t, c); s.GetDurable() || s.GetReason() != "NoBootDisk" || s.GetMessage() == "" {
		t.Errorf("state %v; want none, and why", s)
	}
	c = bootWith(t, &wire.Storage{Reason: "NoSpace", Message: "4 MiB are too little"}).admin()
	if s := stateStatus(t, c); s.GetDurable() || s.GetReason() != "NoSpace" || s.GetMessage() != "4 MiB are too little" {
		t.Errorf("state %v; want what PID 1 said", s)
	}
}

func TestADamagedLogTakesTheAPINotAway(t *testing.T) {
	disk := kept(t)
	m := bootWith(t, disk)
	create(t, m.admin(), "", "config", mountPoints, "a", &storagepb.MountPoint{Source: "tmpfs", Target: "/var/a", Fstype: "tmpfs"})
	create(t, m.admin(), "", "config", mountPoints, "b", &storagepb.MountPoint{Source: "tmpfs", Target: "/var/b", Fstype: "tmpfs"})
	m.kill()
	file := damage(t, disk.Dir)
	before := contents(t, disk.Dir)

	m = bootWith(t, disk)
	c := m.admin()
	s := stateStatus(t, c)
	if s.GetDurable() || s.GetReason() != "StateDamaged" || !strings.HasSuffix(s.GetFile(), filepath.Base(file)) || s.GetOffset() == 0 {
		t.Errorf("state %v; want the damaged file and the place in it", s)
	}
	eventually(t, "the console says so", func() bool { return m.shows("state damaged: ") && m.shows("cosictl reset state --confirm n1") })
	point := &storagepb.MountPoint{Source: "tmpfs", Target: "/var/c", Fstype: "tmpfs"}
	_, err := c.Create(t.Context(), &resourcepb.CreateRequest{Resource: document(t, "config", mountPoints, "c", point)})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "cosictl reset state") {
		t.Errorf("a write to config: %v; want FAILED_PRECONDITION and what to do", err)
	}
	if after := contents(t, disk.Dir); after != before {
		t.Error("the damaged directory was changed")
	}

	create(t, c, "", "requests", "StateResets.machine.cosi.dev", "wrong", &machinepb.StateReset{Confirm: "n2"})
	answer := &machinepb.StateResetStatus{}
	eventually(t, "the wrong name is refused", func() bool {
		return read(t.Context(), c, "status", "StateResetStatuses.machine.cosi.dev", "wrong", answer) == nil
	})
	if answer.GetReady() || answer.GetReason() != "Refused" || !strings.Contains(answer.GetMessage(), `"n1"`) {
		t.Errorf("answer %v; want a refusal with the node's name", answer)
	}
	create(t, c, "", "requests", "StateResets.machine.cosi.dev", "right", &machinepb.StateReset{Confirm: "n1", Reason: "test"})
	eventually(t, "the node reboots", func() bool {
		return m.said(func(d wire.Down) bool {
			return d.Shutdown != nil && d.Shutdown.Reboot && d.Shutdown.Reason == "the state was reset: test"
		})
	})
	m.kill()

	m = bootWith(t, disk)
	c = m.admin()
	if s := stateStatus(t, c); !s.GetDurable() {
		t.Errorf("state after the reset: %v", s)
	}
	create(t, c, "", "config", mountPoints, "a", point)
	if aside, _ := filepath.Glob(filepath.Join(disk.Dir, "log-given-up-*", filepath.Base(file))); len(aside) != 1 {
		t.Errorf("the damaged log is not kept: %v", aside)
	}
}

func TestADamagedPartitionIsFormattedAtTheNextBoot(t *testing.T) {
	m := bootWith(t, &wire.Storage{Device: "/dev/vda5", Reason: wire.StorageDamaged, Message: "mount /dev/vda5: structure needs cleaning", Frozen: true})
	c := m.admin()
	if s := stateStatus(t, c); s.GetReason() != "StateDamaged" || s.GetFile() != "/dev/vda5" {
		t.Errorf("state %v; want it damaged", s)
	}
	create(t, c, "", "requests", "StateResets.machine.cosi.dev", "a", &machinepb.StateReset{Confirm: "n1"})
	eventually(t, "PID 1 is told to format, and then to reboot", func() bool {
		return m.said(func(d wire.Down) bool { return d.ResetStorage != nil }) &&
			m.said(func(d wire.Down) bool { return d.Shutdown != nil && d.Shutdown.Reboot })
	})
}

// What is sealed and cannot be opened says how it can be, and is given up when somebody says so.
func TestALockedPartitionIsFormattedAtTheNextBoot(t *testing.T) {
	m := bootWith(t, &wire.Storage{Device: "/dev/vda5", Reason: wire.StorageLocked, Message: "the TPM does not open it", Frozen: true})
	c := m.admin()
	if s := stateStatus(t, c); s.GetReason() != "Locked" || !s.GetFrozen() || s.GetDevice() != "/dev/vda5" {
		t.Errorf("state %v; want it locked", s)
	}
	refused(t, c, "with the recovery key opens it")
	create(t, c, "", "requests", "VolumeUnlocks.storage.cosi.dev", "state", &storagepb.VolumeUnlock{RecoveryKey: "x"})
	create(t, c, "", "requests", "StateResets.machine.cosi.dev", "a", &machinepb.StateReset{Confirm: "n1"})
	eventually(t, "PID 1 is told to format", func() bool {
		return m.said(func(d wire.Down) bool { return d.ResetStorage != nil })
	})
}

// refused fails unless a write to config is.
func refused(t *testing.T, c resourcepb.StateClient, because string) {
	t.Helper()
	point := &storagepb.MountPoint{Source: "tmpfs", Target: "/var/c", Fstype: "tmpfs"}
	_, err := c.Create(t.Context(), &resourcepb.CreateRequest{Resource: document(t, "config", mountPoints, "c", point)})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), because) {
		t.Errorf("a write to config: %v; want FAILED_PRECONDITION and %q", err, because)
	}
}

// reset asks for one, and returns the answer.
func reset(t *testing.T, c resourcepb.StateClient) *machinepb.StateResetStatus {
	t.Helper()
	create(t, c, "", "requests", "StateResets.machine.cosi.dev", "a", &machinepb.StateReset{Confirm: "n1"})
	answer := &machinepb.StateResetStatus{}
	eventually(t, "the reset is answered", func() bool {
		return read(t.Context(), c, "status", "StateResetStatuses.machine.cosi.dev", "a", answer) == nil
	})
	return answer
}

// TestADiskThatCannotBeReadTakesTheAPINotAway: no bit is wrong, the disk does not give them.
func TestADiskThatCannotBeReadTakesTheAPINotAway(t *testing.T) {
	disk := kept(t)
	m := bootWith(t, disk)
	create(t, m.admin(), "", "config", mountPoints, "a", &storagepb.MountPoint{Source: "tmpfs", Target: "/var/a", Fstype: "tmpfs"})
	m.kill()
	bad := filepath.Join(disk.Dir, "log", "00000000000000000001.snapshot")
	if err := os.Symlink("/proc/self/mem", bad); err != nil { // its first page is never mapped: to read it is EIO
		t.Fatal(err)
	}

	m = bootWith(t, disk)
	c := m.admin()
	s := stateStatus(t, c)
	if s.GetDurable() || s.GetReason() != "StateDamaged" || !s.GetFrozen() || s.GetFile() != bad || !strings.Contains(s.GetMessage(), "input/output error") {
		t.Errorf("state %v; want it frozen, and %s with an input/output error", s, bad)
	}
	refused(t, c, "cosictl reset state")
	if answer := reset(t, c); !answer.GetReady() {
		t.Errorf("the reset is answered %v", answer)
	}
	m.kill()
	if s := stateStatus(t, bootWith(t, disk).admin()); !s.GetDurable() {
		t.Errorf("state after the reset: %v", s)
	}
}

// TestAResetOfADirectoryThatTakesNothingFormatsThePartition: the mark of a reset cannot be left there.
func TestAResetOfADirectoryThatTakesNothingFormatsThePartition(t *testing.T) {
	disk := kept(t)
	if err := os.WriteFile(filepath.Join(disk.Dir, "log"), nil, 0o600); err != nil { // not a directory
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(disk.Dir, "reset"), 0o700); err != nil { // and nothing can be created here
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(disk.Dir, "reset", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	m := bootWith(t, disk)
	c := m.admin()
	if s := stateStatus(t, c); !s.GetFrozen() || s.GetReason() != "StateDamaged" {
		t.Errorf("state %v; want it frozen", s)
	}
	if answer := reset(t, c); !answer.GetReady() {
		t.Errorf("the reset is answered %v", answer)
	}
	eventually(t, "PID 1 is told to format", func() bool { return m.said(func(d wire.Down) bool { return d.ResetStorage != nil }) })
}

// TestAStateThatIsThereAndCannotBeUsedTakesNoWrites: they would be gone with the next boot, and a reset would not help.
func TestAStateThatIsThereAndCannotBeUsedTakesNoWrites(t *testing.T) {
	m := bootWith(t, &wire.Storage{Reason: "Ambiguous", Message: "/dev/vda and /dev/vdb are copies", Frozen: true})
	c := m.admin()
	if s := stateStatus(t, c); s.GetDurable() || s.GetReason() != "Ambiguous" || !s.GetFrozen() {
		t.Errorf("state %v; want it frozen and ambiguous", s)
	}
	refused(t, c, "are copies")
	eventually(t, "the console says so", func() bool { return m.shows("state cannot be used: /dev/vda and /dev/vdb are copies") })
	if answer := reset(t, c); answer.GetReady() || answer.GetReason() != "Refused" {
		t.Errorf("the reset is answered %v; want it refused", answer)
	}
}

// damage changes a byte in the middle of the newest file of the log, and returns its name.
func damage(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "log", "*.log"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no log: %v", err)
	}
	file := files[len(files)-1]
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[60] ^= 0xff // in the first record of several
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// contents returns all names and bytes below dir.
func contents(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		all.WriteString(path)
		all.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}
