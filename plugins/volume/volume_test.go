package volume

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
	"golang.org/x/sys/unix"

	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/api/layout/luks2"
	"github.com/cosi-os/cosi/api/volume"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/hack/swtpmtest"
	"github.com/cosi-os/cosi/sdk"
)

// kernel shows volumes as files beside the device. The real one is what hack/vmtest has.
type kernel struct {
	dir   string
	shown map[string]string
	busy  atomic.Bool // what is shown is mounted
}

func (k *kernel) open(name, device string, v *vault) (string, int64, error) {
	total, err := sizeOf(device)
	if err != nil {
		return "", 0, err
	}
	sectors, _, err := v.header.Target(device, total, v.key)
	if err != nil {
		return "", 0, err
	}
	node := filepath.Join(k.dir, "shown-"+name)
	if err := os.WriteFile(node, nil, 0o600); err != nil {
		return "", 0, err
	}
	k.shown[name] = node
	return node, sectors * 512, os.Truncate(node, sectors*512)
}

func (k *kernel) find(name string) (string, error) { return k.shown[name], nil }

func (k *kernel) close(name string) error {
	if k.busy.Load() {
		return unix.EBUSY
	}
	delete(k.shown, name)
	return nil
}

// newMachine is a machine with a TPM that is new, at a socket that may be exchanged for another's.
func newMachine(t *testing.T, socket *string) *machine {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"volume", "boot", "mapper"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return &machine{
		dir: filepath.Join(dir, "volume"), bootDir: filepath.Join(dir, "boot"), links: filepath.Join(dir, "mapper"),
		mapped: &kernel{dir: dir, shown: map[string]string{}}, grow: func(string) error { return nil },
		openTPM: func() (transport.TPMCloser, error) {
			if *socket == "" {
				return nil, fs.ErrNotExist
			}
			return linuxudstpm.Open(*socket)
		},
	}
}

// start runs the plugin until stop is called or the test ends.
func start(t *testing.T, r *plugintest.Runtime, m *machine) (stop func()) {
	t.Helper()
	t.Setenv(sdk.EnvEndpoint, r.Endpoint)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = sdk.Run(ctx, plugin(m)) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

const deviceSize = 80 << 20

func device(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "device")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, deviceSize); err != nil {
		t.Fatal(err)
	}
	return file
}

// boot has the state partition opened, or made, as PID 1 does.
func boot(t *testing.T, m *machine, order, device string) *volume.State {
	t.Helper()
	if k, ok := m.mapped.(*kernel); ok {
		clear(k.shown)
	}
	err := m.early(order + " " + device)
	is, readErr := volume.Read(m.dir)
	if readErr != nil {
		t.Fatal(readErr)
	}
	if (err == nil) != (is.Device != "") || err != nil && is.Message != err.Error() || !is.Sealed {
		t.Fatalf("%s: %v, and the answer is %+v", order, err, is)
	}
	return is
}

// opens reports whether cryptsetup takes a passphrase.
func opens(t *testing.T, device, passphrase string) bool {
	t.Helper()
	file := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(file, []byte(passphrase), 0o600); err != nil {
		t.Fatal(err)
	}
	program := "/sbin/cryptsetup"
	if _, err := os.Stat(program); err != nil && os.Getenv("CI") == "" {
		t.Skip("cryptsetup is not installed (hack/setup installs it)")
	}
	out, err := exec.Command(program, "open", "--test-passphrase", "--key-file", file, device).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 2) {
		t.Fatalf("cryptsetup: %v\n%s", err, out)
	}
	return err == nil
}

func TestTheStateIsSealedAndRecovered(t *testing.T) {
	first, second := swtpmtest.Start(t), swtpmtest.Start(t)
	socket := first
	m, disk := newMachine(t, &socket), device(t)
	is := boot(t, m, volume.Create, disk)
	if is.Policy != "PCR 7" || is.UnlockedBy != byTPM || is.Size != deviceSize-luks2.DataOffset {
		t.Errorf("the first boot: %+v", is)
	}
	r := plugintest.Start(t, declared)
	stop := start(t, r, m)
	key := &storagepb.RecoveryKey{}
	r.Wait("the recovery key is shown", func() bool { return r.Get(stateID, key) != nil })
	if !opens(t, disk, key.GetKey()) || opens(t, disk, key.GetKey()[1:]) {
		t.Errorf("cryptsetup does not take the recovery key %q, or takes another", key.GetKey())
	}
	unlock(t, r, stateID, newRecoveryKey(), "WrongKey")
	if r.Get(stateID, &storagepb.RecoveryKey{}) == nil {
		t.Error("the recovery key is forgotten, and nobody has it")
	}
	unlock(t, r, stateID, key.GetKey(), "KeyIsRight")
	r.Wait("the recovery key is forgotten", func() bool { return r.Get(stateID, &storagepb.RecoveryKey{}) == nil })
	if left, err := m.recoveryKeys(); err != nil || len(left) > 0 {
		t.Errorf("recovery keys in files: %v, %v", left, err)
	}
	st := &status{}
	r.Wait("the status", func() bool { r.Get(stateID, st); return st.GetReason() != "" })
	if !st.GetReady() || !st.GetSealed() || st.GetReason() != reasonOpen || st.GetUnlockedBy() != byTPM || st.GetPolicy() != "PCR 7" || st.GetSource() != disk {
		t.Errorf("status = %v", st)
	}
	unlock(t, r, "other", key.GetKey(), "Failed") // there is no such volume
	if r.Get("unlocked", &powerpb.ShutdownRequest{}) != nil {
		t.Error("the node reboots for nothing")
	}
	stop()

	if is := boot(t, m, volume.Open, disk); is.UnlockedBy != byTPM {
		t.Errorf("the next boot: %+v", is)
	}
	// A replaced TPM opens nothing, until it is told the recovery key, however that is typed.
	socket = second
	if is := boot(t, m, volume.Open, disk); !strings.Contains(is.Message, "it was sealed by another TPM") {
		t.Errorf("with another TPM: %+v", is)
	}
	stop = start(t, r, m)
	r.Wait("the status", func() bool { r.Get(stateID, st); return st.GetReason() == reasonLocked })
	unlock(t, r, stateID, newRecoveryKey(), "WrongKey")
	unlock(t, r, stateID, " "+strings.ToUpper(strings.ReplaceAll(key.GetKey(), "-", ""))+"\n", "Resealed")
	r.Wait("the reboot", func() bool { return r.Get("unlocked", &powerpb.ShutdownRequest{}) != nil })
	stop()
	if is := boot(t, m, volume.Open, disk); is.UnlockedBy != byTPM {
		t.Errorf("after the recovery: %+v", is)
	}
	if !opens(t, disk, key.GetKey()) {
		t.Error("the recovery key does not open it any more")
	}
	socket = first
	if is := boot(t, m, volume.Open, disk); is.Device != "" {
		t.Errorf("the old TPM still opens it: %+v", is)
	}
	socket = ""
	if is := boot(t, m, volume.Open, disk); is.Message != errNoTPM.Error() {
		t.Errorf("without a TPM: %+v", is)
	}
}

func unlock(t *testing.T, r *plugintest.Runtime, id, key, want string) {
	t.Helper()
	r.Apply(id, &storagepb.VolumeUnlock{RecoveryKey: key})
	is := &storagepb.VolumeUnlockStatus{}
	r.Wait("the VolumeUnlock of "+id+" is answered", func() bool {
		request := r.Get(id, &storagepb.VolumeUnlock{})
		return r.Get(id, is) != nil && is.GetObservedVersion() == request.GetVersion()
	})
	if is.GetReason() != want {
		t.Errorf("the VolumeUnlock of %s: %v; want %s", id, is, want)
	}
}

// Without a volume, the state is shown as what it is.
func TestAStateThatIsNotSealedIsShown(t *testing.T) {
	socket := ""
	m := newMachine(t, &socket)
	if err := (&volume.State{Partition: "/dev/vda5", Message: "no TPM"}).Write(m.dir); err != nil {
		t.Fatal(err)
	}
	r := plugintest.Start(t, declared)
	start(t, r, m)
	st := &status{}
	r.Wait("the status", func() bool { return r.Get(stateID, st) != nil })
	if !st.GetReady() || st.GetSealed() || st.GetReason() != reasonNotSealed || st.GetMessage() != "no TPM" {
		t.Errorf("status = %v", st)
	}
	if err := m.early("neither /dev/vda5"); err == nil {
		t.Error("an order that is none was obeyed")
	}
}

func TestVolumes(t *testing.T) {
	first, second := swtpmtest.Start(t), swtpmtest.Start(t)
	socket := first
	m, empty := newMachine(t, &socket), device(t)
	r := plugintest.Start(t, declared)
	stop := start(t, r, m)
	r.Apply("data", &storagepb.Volume{Source: empty})
	waitFor(t, r, "data", reasonNotAVolume) // nobody has asked for it to be made
	r.Apply("gone", &storagepb.Volume{Source: empty + "x"})
	waitFor(t, r, "gone", reasonSourceMissing)
	r.Apply("data", &storagepb.Volume{Source: empty, Format: "ext4"})
	st := waitFor(t, r, "data", reasonOpen)
	if st.GetDevice() != filepath.Join(m.links, "data") || !st.GetSealed() || st.GetPolicy() != "PCR 7" {
		t.Errorf("status = %v", st)
	}
	superblock := make([]byte, 2)
	f, err := os.Open(st.GetDevice())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt(superblock, 1024+0x38); err != nil || superblock[0] != 0x53 || superblock[1] != 0xef {
		t.Errorf("no ext4 is on it: %x, %v", superblock, err)
	}
	key := &storagepb.RecoveryKey{}
	r.Wait("the recovery key is shown", func() bool { return r.Get("data", key) != nil })
	if !opens(t, empty, key.GetKey()) {
		t.Error("cryptsetup does not take the recovery key")
	}
	r.Delete("data", &storagepb.Volume{})
	if _, err := os.Lstat(filepath.Join(m.links, "data")); !errors.Is(err, unix.ENOENT) {
		t.Errorf("its name is still there: %v", err)
	}
	r.Apply("data", &storagepb.Volume{Source: empty})
	waitFor(t, r, "data", reasonOpen) // what was made is opened again
	stop()

	socket = second
	clear(m.mapped.(*kernel).shown)
	stop = start(t, r, m)
	r.Apply("data", &storagepb.Volume{Source: empty, Format: "ext4"})
	waitFor(t, r, "data", reasonLocked)
	unlock(t, r, "data", key.GetKey(), "Resealed")
	waitFor(t, r, "data", reasonOpen)
	stop()
	start(t, r, m) // it is still open, and still known who has opened it
	r.Apply("data", &storagepb.Volume{Source: empty})
	if st := waitFor(t, r, "data", reasonOpen); st.GetUnlockedBy() != byRecovery || st.GetPolicy() != "PCR 7" {
		t.Errorf("status = %v", st)
	}
}

// waitFor waits until the plugin says that of a Volume as it is now.
func waitFor(t *testing.T, r *plugintest.Runtime, id, reason string) *status {
	t.Helper()
	st := &status{}
	r.Wait(id+" is "+reason, func() bool {
		v, is := r.Get(id, &storagepb.Volume{}), r.Get(id, st)
		return v != nil && is != nil && st.GetObservedVersion() == v.GetVersion() && st.GetReason() == reason
	})
	return st
}

// What cannot be a volume is left as it is, and the status says why.
func TestWhatIsNotMadeAVolume(t *testing.T) {
	socket := swtpmtest.Start(t)
	m, empty, full, small := newMachine(t, &socket), device(t), device(t), device(t)
	if err := os.WriteFile(full, []byte("something"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(small, 5<<20); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(m.links, "other")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := plugintest.Start(t, declared)
	stop := start(t, r, m)
	for id, c := range map[string]struct{ source, reason, message string }{
		"full":    {full, reasonNotAVolume, full + ": it holds something that is no volume, and is left as it is"},
		"small":   {small, reasonFailed, small + ": it has 5 MiB, and a volume takes 68"},
		"Bad":     {empty, reasonFailed, `"Bad" is no name of a volume: want lower-case letters, digits and hyphens, and not "control"`},
		"control": {empty, reasonFailed, `"control" is no name of a volume: want lower-case letters, digits and hyphens, and not "control"`},
	} {
		r.Apply(id, &storagepb.Volume{Source: c.source, Format: "ext4"})
		if st := waitFor(t, r, id, c.reason); st.GetMessage() != c.message || st.GetSealed() {
			t.Errorf("%s: %v; want %s", id, st, c.message)
		}
	}
	for _, file := range []string{empty, small} {
		if data, err := os.ReadFile(file); err != nil || len(bytes.TrimLeft(data, "\x00")) > 0 {
			t.Errorf("%s was written to, or %v", file, err)
		}
	}
	if data, err := os.ReadFile(full); err != nil || string(data) != "something" {
		t.Errorf("what was on the device is now %q, %v", data, err)
	}
	r.Apply("other", &storagepb.Volume{Source: empty, Format: "ext4"}) // a name that is taken by what is no link
	waitFor(t, r, "other", reasonFailed)
	if st, err := os.Lstat(other); err != nil || !st.Mode().IsRegular() {
		t.Errorf("what had the volume's name: %v, %v", st, err)
	}
	stop()

	// Without a TPM, nothing is made, and what was made is locked.
	socket = ""
	clear(m.mapped.(*kernel).shown)
	start(t, r, m)
	r.Apply("none", &storagepb.Volume{Source: device(t), Format: "ext4"})
	if st := waitFor(t, r, "none", reasonFailed); st.GetMessage() != errNoTPM.Error() {
		t.Errorf("without a TPM: %v", st)
	}
	r.Apply("sealed", &storagepb.Volume{Source: empty})
	if st := waitFor(t, r, "sealed", reasonLocked); st.GetMessage() != empty+": the TPM does not open it: the kernel has found no TPM 2.0" || !st.GetSealed() {
		t.Errorf("a volume without a TPM: %v", st)
	}
}

// A Volume that names another device is not left open on the one before, nor on one that has gone.
func TestAVolumeMovesToAnotherDevice(t *testing.T) {
	socket := swtpmtest.Start(t)
	m, one, two := newMachine(t, &socket), device(t), device(t)
	r := plugintest.Start(t, declared)
	start(t, r, m)
	r.Apply("data", &storagepb.Volume{Source: one, Format: "ext4"})
	waitFor(t, r, "data", reasonOpen)
	m.mapped.(*kernel).busy.Store(true)
	r.Apply("data", &storagepb.Volume{Source: two, Format: "ext4"})
	if st := waitFor(t, r, "data", reasonFailed); st.GetSource() != one || !strings.Contains(st.GetMessage(), "close what is on "+one) {
		t.Errorf("while the one before is used: %v", st)
	}
	m.mapped.(*kernel).busy.Store(false)
	if st := waitFor(t, r, "data", reasonOpen); st.GetSource() != two {
		t.Errorf("status = %v", st)
	}
	if err := os.Rename(two, two+"x"); err != nil {
		t.Fatal(err)
	}
	r.Apply("data", &storagepb.Volume{Source: two}) // as the kernel's event does, it wakes the plugin
	waitFor(t, r, "data", reasonSourceMissing)
	if err := os.Rename(two+"x", two); err != nil {
		t.Fatal(err)
	}
	r.Apply("data", &storagepb.Volume{Source: two, Format: "ext4"})
	waitFor(t, r, "data", reasonOpen)
	for _, file := range []string{one, two} {
		if data, err := os.ReadFile(file); err != nil || !bytes.HasPrefix(data, []byte(luks2.Magic)) {
			t.Errorf("%s is no volume, or %v", file, err)
		}
	}
}
