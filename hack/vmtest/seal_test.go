package vmtest_test

import (
	"bytes"
	"crypto/sha256"
	"debug/pe"
	"encoding/binary"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/api/upgrade"
	"github.com/cosi-os/cosi/hack/swtpmtest"
	"github.com/cosi-os/cosi/hack/versions"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/secureboot"
	"github.com/cosi-os/cosi/tools/qemu"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// sealedBy is the policy of what such an image seals.
const sealedBy = "PCR 7 and a signed PCR 11"

// checkSealed fails the test unless the node's state is sealed and was opened by the TPM.
func checkSealed(t *testing.T, n *vmtest.Node) {
	t.Helper()
	v, state := &storagepb.VolumeStatus{}, &machinepb.StateStatus{}
	n.Until(t, "volumestatuses", "state", v, func(m *resourcepb.Metadata) bool { return m != nil })
	n.Get(t, "state", "state", state)
	if !v.GetReady() || !v.GetSealed() || v.GetPolicy() != sealedBy || v.GetUnlockedBy() != "tpm" || !state.GetDurable() {
		t.Errorf("the state's volume: %v; the state: %v; want it sealed, opened by the TPM and durable", v, state)
	}
}

// secret is what must not be found on a disk.
const secret = "what nobody finds on a disk"

// sealing is a machine with a TPM, and disks that are sealed to it.
type sealing struct {
	dir, image    string
	id            *node.Identity
	data, foreign qemu.Disk
	tpm           string            // the directory of the TPM that is in it
	next          string            // an upgrade of the image
	keys          map[string]string // the volumes' recovery keys
}

// A node's state and a data volume are sealed on the first boot, and opened by each boot of an image of the same vendor, an upgrade included. They are
// not by another boot image, nor without Secure Boot, nor by another TPM; that is told the recovery keys, which open the volumes on any Linux, too.
func TestVolumesAreSealed(t *testing.T) {
	if os.Getenv("COSI_TEST_BOOTS") != "all" {
		t.Skip("COSI_TEST_BOOTS is not all (make test-boot)")
	}
	vmtest.Parallel(t, 300)
	vmtest.Host(t)
	s := newSealing(t)
	s.first(t)
	s.upgraded(t)
	s.judgedByOthers(t)
	s.otherBoots(t)
	s.otherTPM(t)
}

func newSealing(t *testing.T) *sealing {
	t.Helper()
	s := &sealing{dir: t.TempDir(), id: vmtest.Identity(t), tpm: swtpmtest.Dir(t), keys: map[string]string{}, foreign: vmtest.Ext4(t, "foreign")}
	data, err := s.id.UserData()
	if err != nil {
		t.Fatal(err)
	}
	url, ca := serveTLS(t, string(data))
	argument := "cosi.userdata=" + url
	s.image = buildImage(t, s.dir, ca, argument)
	more := signedDefinition(argument) + "resources:\n  - metadata: {type: MountPoints.storage.cosi.dev, id: next}\n    spec: {source: tmpfs, target: /var/next, fstype: tmpfs}\n"
	if s.next, err = versions.Build(t.Context(), filepath.Join("..", ".."), s.dir, "next", more, t.Logf); err != nil {
		t.Fatal(err)
	}
	s.data = qemu.Disk{ID: "data", File: filepath.Join(s.dir, "data"), Format: "raw"}
	writeText(t, s.data.File, "")
	for file, size := range map[string]int64{s.image: gib, s.data.File: 200 << 20} {
		if err := os.Truncate(file, size); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *sealing) start(t *testing.T) *vmtest.Node {
	t.Helper()
	return vmtest.Start(t, vmtest.Options{
		File: s.image, Keep: true, Identity: s.id, NoUserData: true, Disks: []qemu.Disk{s.data, s.foreign}, Extra: startTPM(t, s.tpm),
	})
}

// first boots the node for the first time, where both volumes are made.
func (s *sealing) first(t *testing.T) {
	t.Helper()
	before := fileHash(t, s.foreign.File)
	n := s.start(t)
	n.Ready(t)
	checkSealed(t, n)
	n.Apply(t, `metadata: {type: volume, id: data}
spec: {source: /dev/vdb, format: ext4}
---
metadata: {type: mountpoint, id: data}
spec: {source: /dev/mapper/data, target: /var/data, fstype: ext4}
---
metadata: {type: mountpoint, id: sealed-marker, annotations: {note: `+secret+`}}
spec: {source: tmpfs, target: /var/sealed-marker, fstype: tmpfs}
`)
	v := &storagepb.VolumeStatus{}
	n.Until(t, "volumestatuses", "data", v, func(*resourcepb.Metadata) bool { return v.GetReason() == "Open" && v.GetPolicy() == sealedBy })
	mounted(t, n)
	key := &storagepb.RecoveryKey{}
	for _, volume := range []string{"state", "data"} {
		n.Until(t, "recoverykeys", volume, key, func(m *resourcepb.Metadata) bool { return m != nil })
		s.keys[volume] = key.GetKey()
	}
	refusesVolumes(t, n)
	unlock(t, n, "nobody", s.keys["data"], "Failed", `there is no Volume "nobody"`)
	unlock(t, n, "data", s.keys["state"], "WrongKey", "that is not the recovery key of /dev/vdb")
	if n.Get(t, "recoverykeys", "data", key) == nil {
		t.Error("the recovery key is forgotten, and nobody has it")
	}
	unlock(t, n, "data", s.keys["data"], "KeyIsRight", "")
	n.Until(t, "recoverykeys", "data", key, func(m *resourcepb.Metadata) bool { return m == nil })
	n.PressPower(t)
	if fileHash(t, s.foreign.File) != before {
		t.Error("the disk that holds something else was written to")
	}
}

// refusesVolumes: what holds something, or is in use, is left as it is.
func refusesVolumes(t *testing.T, n *vmtest.Node) {
	t.Helper()
	for id, is := range map[string]struct{ source, reason, message string }{
		"foreign": {"/dev/vdc", "NotAVolume", "it holds something that is no volume, and is left as it is"},
		"whole":   {"/dev/vda", "NotAVolume", "it holds something that is no volume, and is left as it is"},
		"twice":   {"/dev/vdb", "Failed", "open /dev/vdb: device or resource busy"},
		"own":     {"/dev/vda5", "Failed", "open /dev/vda5: device or resource busy"},
		"gone":    {"/dev/vdz", "SourceMissing", "no such file or directory"},
		"control": {"/dev/vdc", "Failed", `"control" is no name of a volume`},
	} {
		n.Apply(t, fmt.Sprintf("metadata: {type: volume, id: %s}\nspec: {source: %s, format: ext4}\n", id, is.source))
		v := &storagepb.VolumeStatus{}
		n.Until(t, "volumestatuses", id, v, func(*resourcepb.Metadata) bool { return v.GetReason() != "" })
		if v.GetReady() || v.GetReason() != is.reason || !strings.Contains(v.GetMessage(), is.message) {
			t.Errorf("the Volume %q: %v; want %s: …%s", id, v, is.reason, is.message)
		}
		n.Delete(t, "volume", id)
	}
	mounted(t, n)
}

// unlock sends a VolumeUnlock and fails the test unless that is the answer.
func unlock(t *testing.T, n *vmtest.Node, id, key, reason, message string) {
	t.Helper()
	r := n.Apply(t, fmt.Sprintf("metadata: {type: unlock, id: %s}\nspec: {recovery_key: %s}\n", id, key))
	answer := &storagepb.VolumeUnlockStatus{}
	n.Until(t, "unlockstatus", id, answer, func(*resourcepb.Metadata) bool { return answer.GetObservedVersion() == r[0].GetMetadata().GetVersion() })
	if answer.GetReason() != reason || !strings.Contains(answer.GetMessage(), message) {
		t.Errorf("the VolumeUnlock of %q: %v; want %s: …%s", id, answer, reason, message)
	}
}

// mounted waits until the data volume is.
func mounted(t *testing.T, n *vmtest.Node) {
	t.Helper()
	is := &storagepb.MountPointStatus{}
	n.Until(t, "mountpointstatuses", "data", is, func(*resourcepb.Metadata) bool { return is.GetReady() })
}

// opened fails the test unless the TPM has opened both volumes, and what was kept is there.
func opened(t *testing.T, n *vmtest.Node) {
	t.Helper()
	n.Ready(t)
	checkSealed(t, n)
	mounted(t, n)
	if n.Get(t, "mountpoints", "sealed-marker", &storagepb.MountPoint{}) == nil {
		t.Error("what was kept is gone")
	}
}

// upgraded boots the node again and has it upgraded to an image of the same vendor.
func (s *sealing) upgraded(t *testing.T) {
	t.Helper()
	data, err := os.ReadFile(s.next)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(serves(string(data)))
	t.Cleanup(server.Close)
	n := s.start(t)
	opened(t, n)
	if n.Get(t, "recoverykeys", "state", &storagepb.RecoveryKey{}) != nil {
		t.Error("the recovery key is shown after a reboot")
	}
	from := n.Console.Position()
	n.Apply(t, fmt.Sprintf(`metadata: {type: UpgradePolicies.machine.cosi.dev, id: node}
spec: {allow_unsigned: true}
---
metadata: {type: upgrade, id: next}
spec: {url: %q, digest: %x}
`, seenFromGuest(server), sha256.Sum256(data)))
	n.Expect(t, from, `engine: COSI .* from /dev/vda4, which dm-verity checks`)
	n.Expect(t, from, `upgrade: version \S+ is good`)
	opened(t, n)
	if n.Get(t, "mountpoints", "next", &storagepb.MountPoint{}) == nil {
		t.Error("it is not the new version that runs")
	}
	n.PressPower(t)
}

// judgedByOthers has cryptsetup open the volumes by their recovery keys, and looks for what was written on them.
func (s *sealing) judgedByOthers(t *testing.T) {
	t.Helper()
	for file, key := range map[string]string{statePartition(t, s.image): s.keys["state"], s.data.File: s.keys["data"]} {
		passphrase := filepath.Join(s.dir, "passphrase")
		writeText(t, passphrase, key)
		judged(t, "cryptsetup", "open", "--test-passphrase", "--key-file", passphrase, file)
		if raw, err := os.ReadFile(file); err != nil || bytes.Contains(raw, []byte(secret)) || bytes.Contains(raw, []byte("sealed-marker")) {
			t.Errorf("%s: what was written down is on the disk as it is, or %v", file, err)
		}
	}
}

// otherBoots boots the node by an image that its vendor's key for Secure Boot has signed, and that for policies has not; then without Secure Boot.
func (s *sealing) otherBoots(t *testing.T) {
	t.Helper()
	data, err := os.ReadFile(s.next)
	if err != nil {
		t.Fatal(err)
	}
	next, err := upgrade.Open(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	esp, onESP := fmt.Sprintf("%s@@%d", s.image, espStart), "::EFI/cosi/"+next.Manifest.Root.Hash+".efi"
	good, changed := filepath.Join(s.dir, "good.efi"), filepath.Join(s.dir, "changed.efi")
	judged(t, "mcopy", "-i", esp, onESP, good)
	s.resign(t, good, changed)
	judged(t, "mcopy", "-o", "-i", esp, changed, onESP)
	n := s.start(t)
	locked(t, n, "this machine was booted differently: what the image's signed policy says of PCR 11 is not what it holds")
	n.PressPower(t)

	judged(t, "mcopy", "-o", "-i", esp, good, onESP)
	judged(t, "mdeltree", "-i", esp, "::loader/keys")
	n = s.start(t)
	locked(t, n, "this machine was booted differently: PCR [7] holds another value")
	n.PressPower(t)
	judged(t, "mmd", "-i", esp, "::loader/keys", "::loader/keys/auto")
	for _, name := range []string{"PK", "KEK", "db"} {
		judged(t, "mcopy", "-i", esp, filepath.Join(s.dir, "keys", name+".auth"), "::loader/keys/auto/"+name+".auth")
	}
}

// resign writes a boot image with another letter in its command line, signed for the firmware again. The signed policy is that of the image as it was.
func (s *sealing) resign(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	image, err := pe.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	line := image.Section(".cmdline")
	at := bytes.Index(data[line.Offset:][:line.VirtualSize], []byte("module.sig_enforce=1"))
	if at < 0 {
		t.Fatal("no argument to change")
	}
	data[int(line.Offset)+at] = 'M'
	certificates := binary.LittleEndian.Uint32(data[0x3c:]) + 4 + 20 + 112 + 4*8 // where the header says where they are, at the end
	end := binary.LittleEndian.Uint32(data[certificates:])
	clear(data[certificates:][:8])
	signer := secureboot.Signer{Time: time.Now()}
	if signer.Key, err = secureboot.ReadKey(filepath.Join(s.dir, "keys", "db.key")); err != nil {
		t.Fatal(err)
	}
	if signer.Certificate, err = secureboot.ReadCertificate(filepath.Join(s.dir, "keys", "db.crt")); err != nil {
		t.Fatal(err)
	}
	signed, err := signer.SignProgram(bytes.NewReader(data[:end]))
	if err != nil {
		t.Fatal(err)
	}
	if data, err = io.ReadAll(content.Reader(signed)); err != nil {
		t.Fatal(err)
	}
	writeText(t, to, string(data))
}

// locked fails the test unless the node comes up without its state, says why, and takes no writes.
func locked(t *testing.T, n *vmtest.Node, why string) {
	t.Helper()
	n.Expect(t, 0, `not ready because the state is locked`)
	n.Serves(t)
	v, state := &storagepb.VolumeStatus{}, &machinepb.StateStatus{}
	n.Until(t, "volumestatuses", "state", v, func(m *resourcepb.Metadata) bool { return m != nil })
	n.Get(t, "state", "state", state)
	if v.GetReason() != "Locked" || v.GetReady() || !strings.HasSuffix(v.GetMessage(), why) || state.GetReason() != "Locked" || !state.GetFrozen() {
		t.Errorf("the state's volume: %v; the state: %v; want both locked: …%s", v, state, why)
	}
	if n.Get(t, "mountpoints", "sealed-marker", &storagepb.MountPoint{}) != nil {
		t.Error("what was kept is there, and the TPM has not opened it")
	}
}

// otherTPM boots the node with another TPM, and unlocks it.
func (s *sealing) otherTPM(t *testing.T) {
	t.Helper()
	s.tpm = swtpmtest.Dir(t)
	n := s.start(t)
	locked(t, n, "it was sealed by another TPM, or this one was cleared since")
	unlock(t, n, "state", s.keys["data"], "WrongKey", "that is not the recovery key of /dev/vda5")
	from := n.Console.Position()
	n.Apply(t, fmt.Sprintf("metadata: {type: unlock, id: state}\nspec: {recovery_key: %s}\n", s.keys["state"]))
	n.Expect(t, from, `reboot: Restarting system`)
	n.Ready(t)
	checkSealed(t, n)
	if n.Get(t, "mountpoints", "sealed-marker", &storagepb.MountPoint{}) == nil {
		t.Error("what was kept is gone")
	}
	v := &storagepb.VolumeStatus{}
	n.Until(t, "volumestatuses", "data", v, func(*resourcepb.Metadata) bool { return v.GetReason() == "Locked" })
	unlock(t, n, "data", s.keys["state"], "WrongKey", "that is not the recovery key of /dev/vdb")
	unlock(t, n, "data", s.keys["data"], "Resealed", "")
	mounted(t, n)
	n.PressPower(t)
}

func fileHash(t *testing.T, file string) [sha256.Size]byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(data)
}

// statePartition copies the state partition of a disk into a file of its own.
func statePartition(t *testing.T, image string) string {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := gpt.Read(f, gib)
	if err != nil || len(table.Partitions) != 5 {
		t.Fatalf("the table: %+v, %v", table, err)
	}
	p := table.Partitions[4]
	out, err := os.Create(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, io.NewSectionReader(f, p.Start, p.End-p.Start)); err != nil {
		t.Fatal(err)
	}
	return out.Name()
}
