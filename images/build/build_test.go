package build

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/descriptors"
	"github.com/cosi-os/cosi/api/layout/bootentry"
	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/api/layout/layouttest"
	"github.com/cosi-os/cosi/api/layout/verity"
	"github.com/cosi-os/cosi/api/upgrade"
	"github.com/cosi-os/cosi/images/definition"
	"github.com/cosi-os/cosi/images/grub"
	"github.com/cosi-os/cosi/images/inspect"
	"github.com/cosi-os/cosi/images/internal/judge"
	"github.com/cosi-os/cosi/images/manifest"
	"github.com/cosi-os/cosi/images/rootfs"
	"github.com/cosi-os/cosi/images/uki/ukitest"
	"github.com/cosi-os/cosi/kernel"
)

func build(t *testing.T, o Options) (*Result, *manifest.Manifest) {
	t.Helper()
	result, err := Run(context.Background(), o, o.definition())
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Read(filepath.Join(o.Output, result.Plan.Name+".manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	return result, m
}

func TestTwoBuildsInDifferentDirectoriesGiveTheSameBytes(t *testing.T) {
	var manifests [2][]byte
	for i := range manifests {
		o := fixture(t)
		o.change(t, "images/dev.yaml", "pxe]", "pxe, vhd, vmdk, ova, gcp, oci, raw.zst]")
		o.commit(t)
		_, m := build(t, o)
		if err := m.Verify(o.Output); err != nil {
			t.Error(err)
		}
		if !strings.HasPrefix(m.Inputs.Version, "1.2.3+") || strings.Contains(m.Inputs.Version, "dirty") || m.Inputs.Epoch.Unix() != 1700000000 {
			t.Errorf("version %q, epoch %v; want those of the commit", m.Inputs.Version, m.Inputs.Epoch)
		}
		var err error
		if manifests[i], err = json.MarshalIndent(m, "", " "); err != nil {
			t.Fatal(err)
		}
	}
	if string(manifests[0]) != string(manifests[1]) {
		t.Errorf("two builds differ:\n%s\n%s", manifests[0], manifests[1])
	}
}

// What lies beside the outputs is for those who have no builder: sha256sum checks the files, and iPXE boots them.
func TestChecksumsAndScriptNameTheFiles(t *testing.T) {
	o := fixture(t)
	o.change(t, "images/dev.yaml", "raw, qcow2, iso, pxe]", "pxe, uki]")
	o.commit(t)
	build(t, o)
	check := exec.Command("sha256sum", "--check", "--strict", "cosi-dev-amd64.sha256")
	check.Dir = o.Output
	out, err := check.CombinedOutput()
	const want = "cosi-dev-amd64.vmlinuz: OK\ncosi-dev-amd64.initramfs: OK\ncosi-dev-amd64.efi: OK\ncosi-dev-amd64.ipxe: OK\ncosi-dev-amd64.undionly.kpxe: OK\ncosi-dev-amd64.snponly.efi: OK\ncosi-dev-amd64.manifest.json: OK\n"
	if err != nil || string(out) != want {
		t.Errorf("sha256sum --check: %v\n%s", err, out)
	}
	script, err := os.ReadFile(filepath.Join(o.Output, "cosi-dev-amd64.ipxe"))
	if err != nil {
		t.Fatal(err)
	}
	const lines = `
iseq ${platform} efi && goto efi ||
initrd cosi-dev-amd64.initramfs
chain cosi-dev-amd64.vmlinuz initrd=cosi-dev-amd64.initramfs rootfstype=ramfs console=ttyS0 ${arguments}
:efi
chain cosi-dev-amd64.efi rootfstype=ramfs console=ttyS0 ${arguments}
`
	if !strings.HasPrefix(string(script), "#!ipxe\n# Boots cosi-dev-amd64 1.2.3+") || !strings.HasSuffix(string(script), lines) {
		t.Errorf("the script is\n%s", script)
	}
}

// kernelOf is the file that systemd-boot starts, on the EFI system partition of a disk.
func kernelOf(t *testing.T, image string) string {
	t.Helper()
	if loader := judge.Run(t, "mtype", "-i", espOf(image), "::EFI/BOOT/BOOTX64.EFI"); !strings.Contains(loader, "systemd-boot") {
		t.Fatal("the firmware does not start systemd-boot")
	}
	entry, err := bootentry.Parse("cosi-00000001.conf", judge.Run(t, "mtype", "-i", espOf(image), "::loader/entries/cosi-00000001.conf"))
	if err != nil {
		t.Fatal(err)
	}
	return entry.Kernel()
}

// espOf is what mtools are told of the EFI system partition of a disk or an ISO.
func espOf(image string) string {
	if filepath.Ext(image) == ".iso" {
		return image + "@@512K"
	}
	return image + "@@2M"
}

// esp copies a file out of the EFI system partition of a disk or an ISO.
func esp(t *testing.T, image, path string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "copy")
	judge.Run(t, "mcopy", "-i", espOf(image), "::"+path, file)
	return file
}

// A disk has its root in slot A with the hash tree behind it, and its kernel is told of both; the other outputs have it in their initramfs.
func TestTheRootOfADiskIsInASlot(t *testing.T) {
	o := fixture(t)
	o.change(t, "images/dev.yaml", "lz4", "none")
	o.change(t, "images/dev.yaml", "raw, qcow2, iso, pxe]", "raw, uki]")
	build(t, o)
	raw := filepath.Join(o.Output, "cosi-dev-amd64.raw")
	onDisk := judge.Run(t, "mtype", "-i", raw+"@@2M", "::"+kernelOf(t, raw))
	m := regexp.MustCompile(`console=ttyS0 roothash=([0-9a-f]{64}) systemd\.verity_root_options=hash-offset=(\d+)`).FindStringSubmatch(onDisk)
	if m == nil {
		t.Fatal("the kernel of the disk is not told where its root is")
	}
	disk, err := os.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	slot := io.NewSectionReader(disk, 66<<20, 64<<20)
	hash, err := verity.ParseHash(m[1])
	if err != nil {
		t.Fatal(err)
	}
	offset, _ := strconv.ParseInt(m[2], 10, 64)
	if _, err := verity.Find(slot, offset, hash); err != nil {
		t.Errorf("slot A: %v", err)
	}
	root, err := rootfs.Open(slot)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Stat(root, "usr/bin/engine"); err != nil {
		t.Errorf("slot A: %v", err)
	}
	alone, err := os.ReadFile(filepath.Join(o.Output, "cosi-dev-amd64.efi"))
	if err != nil {
		t.Fatal(err)
	}
	const inInitramfs = "root.erofs\x00"
	if strings.Contains(onDisk, inInitramfs) || strings.Contains(string(alone), "roothash=") || !strings.Contains(string(alone), inInitramfs) {
		t.Error("the initramfs of the disk holds a root, or that of the kernel image alone does not")
	}
}

// An upgrade holds what a disk does, and says so by the key that the definition names.
func TestAnUpgradeIsWhatADiskHolds(t *testing.T) {
	o := fixture(t)
	o.change(t, "images/dev.yaml", "outputs: [raw, qcow2, iso, pxe]", "upgrade: {key: upgrade.pem, public_key: upgrade.pub, floor: 1.2.0}\noutputs: [raw, upgrade]")
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	private := filepath.Join(o.Tree, "images/upgrade.pem")
	writeFile(t, private, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if der, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(o.Tree, "images/upgrade.pub"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	build(t, o)
	raw := filepath.Join(o.Output, "cosi-dev-amd64.raw")
	f, err := os.Open(filepath.Join(o.Output, "cosi-dev-amd64.upgrade"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	u, err := upgrade.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	var root, kernel bytes.Buffer
	disk, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	installed := &layouttest.Memory{Data: make([]byte, len(disk))}
	err = errors.Join(u.Root(&root), u.Kernel(&kernel))
	head, failed := u.Disk(installed)
	if err := errors.Join(err, failed, u.Close()); err != nil {
		t.Fatal(err)
	}
	copy(installed.Data, head)
	copy(installed.Data[u.Manifest.Disk.RootAt:], root.Bytes())
	copy(installed.Data[u.Manifest.Disk.KernelAt:], kernel.Bytes())
	if n := len(disk) - 1<<20; !bytes.Equal(installed.Data[:n], disk[:n]) {
		t.Error("a disk that is made of it is not the one that the builder makes")
	}
	if err := u.Manifest.Check(installed, head); err != nil {
		t.Error(err)
	}
	if slot := disk[66<<20:]; !bytes.Equal(slot[:root.Len()], root.Bytes()) || slot[root.Len()] != 0 {
		t.Error("slot A holds something else")
	}
	if judge.Run(t, "mtype", "-i", raw+"@@2M", "::"+kernelOf(t, raw)) != kernel.String() {
		t.Error("the disk boots another kernel")
	}
	m := u.Manifest
	if config := judge.Run(t, "mtype", "-i", raw+"@@2M", "::grub/"+m.Root.Hash+".cfg"); m.BIOS != config {
		t.Errorf("a BIOS boots it by\n%s; want\n%s", m.BIOS, config)
	}
	if want := kernelOf(t, raw); want != "EFI/cosi/"+m.Root.Hash+".efi" || m.Version != "1.2.3" || m.Arch != "amd64" || m.Floor != "1.2.0" || m.Image != "cosi-dev-amd64" {
		t.Errorf("manifest: %+v", m)
	}
	if !u.SignedBy([]ed25519.PublicKey{key.Public().(ed25519.PublicKey)}) {
		t.Error("it is not signed by the definition's key")
	}
	// Who has the file can build it again, without the private key.
	if err := os.Remove(private); err != nil {
		t.Fatal(err)
	}
	if v := verify(t, o, filepath.Join(o.Output, "cosi-dev-amd64.manifest.json")); !v.Equal() || v.Signed != 1 || v.Covered != 1 {
		t.Errorf("built again:\n%s", v)
	}
}

// What GRUB's configuration says of the kernel and its arguments is so in the file that UEFI starts.
func TestABIOSBootsWhatUEFIBoots(t *testing.T) {
	o := fixture(t)
	o.change(t, "images/dev.yaml", "outputs: [raw, qcow2, iso, pxe]", "outputs: [raw]")
	build(t, o)
	raw := filepath.Join(o.Output, "cosi-dev-amd64.raw")
	kernel := kernelOf(t, raw)
	root := strings.TrimSuffix(filepath.Base(kernel), ".efi")
	config := judge.Run(t, "mtype", "-i", raw+"@@2M", "::grub/"+root+".cfg")
	env, err := os.ReadFile(esp(t, raw, "grub/grubenv"))
	if err != nil {
		t.Fatal(err)
	}
	if e, err := bootentry.ParseEnv(env); err != nil || e.Good.String() != root || e.Trial != (verity.Hash{}) {
		t.Errorf("GRUB boots %+v, %v; want %s", e, err, root)
	}
	if got := judge.Run(t, "mtype", "-i", raw+"@@2M", "::grub/grub.cfg"); got != grub.DiskConfig {
		t.Errorf("grub.cfg:\n%s", got)
	}
	image := judge.Run(t, "mtype", "-i", raw+"@@2M", "::"+kernelOf(t, raw))
	if !strings.Contains(config, "loopback uki /"+kernelOf(t, raw)+"\n") {
		t.Errorf("grub.cfg does not name %s:\n%s", kernelOf(t, raw), config)
	}
	m := regexp.MustCompile(`(?m)^linux \(uki\)(\d+)\+(\d+) 'rootfstype=ramfs' 'console=ttyS0' '(roothash=[0-9a-f]{64})' '(systemd\.verity_root_options=hash-offset=\d+)'$`).FindStringSubmatch(config)
	if m == nil {
		t.Fatalf("grub.cfg:\n%s", config)
	}
	first, _ := strconv.Atoi(m[1])
	count, _ := strconv.Atoi(m[2])
	if got, want := image[first*512:(first+count)*512], string(ukitest.Program("kernel")); got != want {
		t.Errorf("at sectors %d+%d there are %d bytes that begin %q; want the kernel", first, count, len(got), got[:16])
	}
	if !strings.Contains(image, "rootfstype=ramfs console=ttyS0 "+strings.Join(m[3:], " ")) {
		t.Errorf("UEFI does not start the kernel with %s", m[3:])
	}
}

func TestABuildIsDoneOnceForItsInputs(t *testing.T) {
	o := fixture(t)
	o.change(t, "images/dev.yaml", "iso, pxe]", "direct]")
	first, m := build(t, o)
	if first.UpToDate || len(first.Outputs) != 4 {
		t.Fatalf("first build: %+v", first)
	}
	if again, _ := build(t, o); !again.UpToDate {
		t.Error("nothing has changed, and it was built again")
	}
	o.change(t, "README", "not", "still not")
	o.change(t, "engine/main_test.go", "main", "main_test")
	if again, _ := build(t, o); !again.UpToDate {
		t.Error("built again for files that are no inputs")
	}
	raw := filepath.Join(o.Output, "cosi-dev-amd64.raw")
	if err := os.Remove(raw); err != nil {
		t.Fatal(err)
	}
	again, after := build(t, o)
	if again.UpToDate || after.Outputs[2] != m.Outputs[2] {
		t.Errorf("after the disk was deleted: up to date %v, %v; want %v", again.UpToDate, after.Outputs[2], m.Outputs[2])
	}
	// As a boot from it does.
	if err := os.Chtimes(raw, time.Time{}, time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if again, _ := build(t, o); again.UpToDate {
		t.Error("up to date with a disk that was changed")
	}
}

func TestEveryInputChangesTheImage(t *testing.T) {
	o := fixture(t)
	o.change(t, "images/dev.yaml", "outputs: [raw, qcow2, iso, pxe]", "outputs: [direct]")
	ca, err := os.ReadFile("../definition/testdata/ca.pem")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(o.Tree, "images/ca.pem"), append([]byte("the CA of the lab\n"), ca...))
	_, m := build(t, o)
	last := m.Outputs[1].SHA256
	for _, change := range []struct{ file, from, to string }{
		{"api/api.go", "one", "two"},
		{"plugins/mount/plugin.json", "mounts", "mounts things"},
		{"images/dev.yaml", "id: default", "id: other"},
		{"images/VERSION", "1.2.3", "1.2.4"},
		{"images/dev.yaml", "outputs:", "user_data: {url_ca: ca.pem}\noutputs:"},
		{"images/ca.pem", "of the lab", "of the other lab"},
	} {
		o.change(t, change.file, change.from, change.to)
		_, m := build(t, o)
		if m.Outputs[1].SHA256 == last {
			t.Errorf("%s changed, the initramfs did not", change.file)
		}
		last = m.Outputs[1].SHA256
	}
	o.SourceDateEpoch = "1"
	if _, m := build(t, o); m.Outputs[1].SHA256 == last || m.Inputs.Epoch.Unix() != 1 {
		t.Errorf("SOURCE_DATE_EPOCH=1: epoch %v", m.Inputs.Epoch)
	}
}

// What a definition says of the disk is what the disk has.
func TestADiskHasThePartitionsOfItsDefinition(t *testing.T) {
	o := fixture(t)
	o.change(t, "images/dev.yaml", "outputs: [raw, qcow2, iso, pxe]", "outputs: [raw]")
	o.change(t, "images/dev.yaml", "root: 64MiB", "root: 65MiB, extra: [{name: seed, size: 2MiB, content: seed.img}]")
	writeFile(t, filepath.Join(o.Tree, "images/seed.img"), []byte("seed of a node"))
	_, m := build(t, o)
	f, err := os.Open(filepath.Join(o.Output, m.Outputs[0].Name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := gpt.Read(f, m.Outputs[0].Size)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range table.Partitions {
		got = append(got, fmt.Sprintf("%s %d", p.Name, (p.End-p.Start)>>20))
	}
	if want := "bios-boot 1, esp 64, root-a 65, root-b 65, seed 2"; strings.Join(got, ", ") != want {
		t.Errorf("the partitions are %q; want %s", got, want)
	}
	seed := make([]byte, 14)
	if _, err := f.ReadAt(seed, table.Partitions[4].Start); err != nil || string(seed) != "seed of a node" {
		t.Errorf("the fifth begins with %q, %v", seed, err)
	}
	o.change(t, "images/seed.img", "node", "mode")
	if again, changed := build(t, o); again.UpToDate || changed.Outputs[0] == m.Outputs[0] || changed.Inputs.Files["images/seed.img"] == "" {
		t.Errorf("with another content: up to date %v, %v", again.UpToDate, changed.Outputs[0])
	}
}

func TestBuildFailsInWords(t *testing.T) {
	for name, test := range map[string]struct{ file, from, to, want string }{
		"a default resource that no node takes": {"images/dev.yaml", "all_physical", "all_fysical", "dev.yaml:9: resources[0].spec.link"},
		"a default resource that breaks a rule": {"images/dev.yaml", "all_physical: true", "all_physical: false", "dev.yaml:9: resources[0].spec.link.all_physical"},
		"a kind that does not exist":            {"plugins/mount/plugin.json", "MountPoints.", "MountPoint.", "plugins/mount/plugin.json: MountPoint.storage.cosi.dev"},
		"a plugin under another name":           {"plugins/mount/plugin.json", `"mount"`, `"mound"`, `plugins/mount/plugin.json: name: "mound"`},
		"a plugin that is not there":            {"images/dev.yaml", "\nplugins: [mount]", "\nplugins: [mount, nfs]", "dev.yaml:6: plugins: \"nfs\": there is no plugins/nfs/plugin.json"},
		"a program that does not compile":       {"engine/main.go", "println", "printline", "engine/main.go:5"},
		"a module that the kernel lacks":        {"images/dev.yaml", "ext4", "ext5", "dev.yaml:4: kernel.modules.ship: ext5"},
		"an argument that iPXE would change":    {"images/dev.yaml", "ttyS0]", "ttyS0, 'a=${b}']", "${"},
		"an architecture without packages":      {"images/dev.yaml", "amd64", "arm64", "kernel/lock.yaml: kernel-cloud for arm64"},
	} {
		t.Run(name, func(t *testing.T) {
			o := fixture(t)
			o.change(t, test.file, test.from, test.to)
			_, err := Run(context.Background(), o, o.definition())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Run = %v; want an error with %q", err, test.want)
			}
			if left, _ := filepath.Glob(filepath.Join(o.Output, "*")); len(left) != 0 {
				t.Errorf("it left %q", left)
			}
		})
	}
}

func TestErrorsCanBeTold(t *testing.T) {
	o := fixture(t)
	o.change(t, "images/dev.yaml", "virtio_net", "virtio_nat")
	if _, err := Run(context.Background(), o, o.definition()); !errors.Is(err, kernel.ErrUnknownModule) {
		t.Errorf("Run = %v; want ErrUnknownModule", err)
	}
	o.SourceDateEpoch = "yesterday"
	if _, err := Run(context.Background(), o, o.definition()); err == nil || !strings.Contains(err.Error(), "SOURCE_DATE_EPOCH") {
		t.Errorf("Run = %v; want an error about SOURCE_DATE_EPOCH", err)
	}
	o.change(t, "images/dev.yaml", "plugins", "plugin")
	var problems definition.Problems
	if _, err := Run(context.Background(), o, o.definition()); !errors.As(err, &problems) {
		t.Errorf("Run = %v; want Problems", err)
	}
}

func TestRootHoldsWhatTheEngineExpects(t *testing.T) {
	o := fixture(t)
	ca, err := filepath.Abs("../definition/testdata/ca.pem")
	if err != nil {
		t.Fatal(err)
	}
	o.change(t, "images/dev.yaml", "outputs:", "user_data: {disks_under_secure_boot: true, url_ca: "+ca+"}\noutputs:")
	if _, err := Root(context.Background(), o, o.definition()); err != nil {
		t.Fatal(err)
	}
	read := func(path string) []byte {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(o.Output, path))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	declared, err := declaration.Load(filepath.Join(o.Output, "usr/lib/cosi/plugins"))
	if err != nil || len(declared) != 2 {
		t.Fatalf("Load = %v, %v", declared, err)
	}
	d := declared[1]
	if d.Name != "mount" || strings.Join(d.Argv, " ") != "/usr/lib/cosi/bin/plugins mount" || d.UID != 902 || d.GID != 902 {
		t.Errorf("declaration: %q as %d:%d", d.Argv, d.UID, d.GID)
	}
	if separate := declared[0]; strings.Join(separate.Argv, " ") != "/usr/lib/cosi/bin/marker" || separate.UID != 901 {
		t.Errorf("declaration of a plugin of its own: %q as %d", separate.Argv, separate.UID)
	}
	if err := d.LoadDefinitions(filepath.Join(o.Output, "usr/lib/cosi/plugins")); err != nil {
		t.Fatal(err)
	}
	found, err := descriptors.Kinds(d.Definitions)
	if err != nil {
		t.Fatal(err)
	}
	set, err := kinds.NewSet(found...)
	if err != nil || set.ByType("MountPoints.storage.cosi.dev") == nil || set.ByType("MountPointStatuses.storage.cosi.dev") == nil {
		t.Errorf("the definitions hold %d kinds, %v; want those that the plugin reads and writes", len(found), err)
	}
	if image := string(read("usr/lib/cosi/image.json")); !strings.Contains(image, `"version": "1.2.3"`) || !strings.Contains(image, `"built": "2026-01-01T00:00:00Z"`) ||
		!strings.Contains(image, `"disk_user_data_under_secure_boot": true`) { // as the plugin userdata reads it
		t.Errorf("image.json: %s", image)
	}
	if resources := string(read("usr/lib/cosi/resources.yaml")); !strings.Contains(resources, "all_physical: true") {
		t.Errorf("resources.yaml: %s", resources)
	}
	if release := string(read("usr/lib/os-release")); !strings.Contains(release, "ID=cosi\n") || strings.Contains(release, "UNPINNED") {
		t.Errorf("os-release: %s", release)
	}
	if pinned := string(read("usr/lib/cosi/userdata-ca.pem")); !strings.Contains(pinned, "BEGIN CERTIFICATE") {
		t.Errorf("userdata-ca.pem: %s", pinned)
	}
	for _, program := range []string{"usr/bin/engine", "usr/bin/runtime", "usr/lib/cosi/bin/plugins", "usr/lib/cosi/bin/marker"} {
		if info, err := os.Stat(filepath.Join(o.Output, program)); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", program, info, err)
		}
	}
}

// An image says itself what it is made of: the same as the manifest beside it, without the hashes of the outputs.
func TestTheManifestIsInTheImage(t *testing.T) {
	o := fixture(t)
	o.change(t, "images/dev.yaml", "outputs: [raw, qcow2, iso, pxe]", "outputs: [raw]")
	_, beside := build(t, o)
	image, err := inspect.Open(filepath.Join(o.Output, beside.Outputs[0].Name))
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	inside, err := image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if beside.Outputs = nil; !reflect.DeepEqual(inside, beside) {
		t.Errorf("in the image: %+v; beside it: %+v", inside, beside)
	}
	if inside.Source != "images/dev.yaml" || !strings.Contains(inside.Definition, "- marker\n") || strings.Contains(inside.Definition, o.Tree) {
		t.Errorf("it was built from %s:\n%s", inside.Source, inside.Definition)
	}
}

func TestVerifyFindsAChangedOutput(t *testing.T) {
	o := fixture(t)
	o.change(t, "images/dev.yaml", "outputs: [raw, qcow2, iso, pxe]", "outputs: [uki]")
	_, m := build(t, o)
	writeFile(t, filepath.Join(o.Output, m.Outputs[0].Name), []byte("another"))
	if err := m.Verify(o.Output); err == nil || !strings.Contains(err.Error(), "cosi-dev-amd64.efi") {
		t.Errorf("Verify = %v; want the file's name", err)
	}
}
