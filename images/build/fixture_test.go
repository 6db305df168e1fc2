package build

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/images/grub/grubtest"
	"github.com/cosi-os/cosi/images/uki/ukitest"
)

// The smallest tree that an image can be made of: three programs, a plugin, a lock.
var smallTree = map[string]string{
	"go.mod":                 "module example.org/small\n\ngo 1.26\n",
	"go.sum":                 "",
	"api/api.go":             "package api\n\nconst Text = \"one\"\n",
	"engine/main.go":         "package main\n\nimport \"example.org/small/api\"\n\nfunc main() { println(api.Text) }\n",
	"engine/main_test.go":    "package main\n",
	"engine/runtime/main.go": "package main\n\nfunc main() {}\n",
	"plugins/main.go":        "package main\n\nfunc main() {}\n",
	"sdk/sdk.go":             "package sdk\n",
	"plugins/mount/plugin.json": `{"name": "mount", "description": "mounts", "modules": ["fuse"],
"inputs": [{"type": "MountPoints.storage.cosi.dev", "finalizers": true}], "outputs": ["MountPointStatuses.storage.cosi.dev"]}`,
	"plugins/marker/plugin.json":  `{"name": "marker", "description": "marks"}`,
	"plugins/marker/main/main.go": "package main\n\nfunc main() {}\n",
	"kernel/lock.yaml": `suite: trixie
packages:
  - {role: kernel-cloud, architecture: amd64, name: linux, series: linux, version: "1", path: pool/l.deb, sha256: ` + kernelHash + `}
  - {role: bios-loader, architecture: amd64, name: grub, series: grub, version: "1", path: pool/g.deb, sha256: ` + loaderHash + `}
  - {role: network-loader, architecture: amd64, name: ipxe, series: ipxe, version: "1", path: pool/i.deb, sha256: ` + networkHash + `}
  - {role: efi-stub, architecture: amd64, name: stub, series: stub, version: "1", path: pool/s.deb, sha256: ` + stubHash + `}
`,
	"images/VERSION":  "1.2.3\n",
	"images/dev.yaml": smallDefinition,
	"README":          "not an input\n",
}

const (
	kernelHash      = "1111111111111111111111111111111111111111111111111111111111111111"
	loaderHash      = "3333333333333333333333333333333333333333333333333333333333333333"
	networkHash     = "4444444444444444444444444444444444444444444444444444444444444444"
	stubHash        = "2222222222222222222222222222222222222222222222222222222222222222"
	smallDefinition = `name: dev
arch: amd64
epoch: 2026-01-01T00:00:00Z
kernel: {flavour: cloud, modules: {boot: [virtio_net], ship: [ext4]}, arguments: [console=ttyS0]}
initramfs: {compression: lz4}
plugins: [mount]
separate_plugins: [marker]
resources:
  - metadata: {type: DHCPClients.network.cosi.dev, id: default}
    spec: {link: {all_physical: true}}
outputs: [raw, qcow2, iso, pxe]
partitions: {esp: 64MiB, root: 64MiB}
`
)

// fixture writes the small tree and returns options to build it, with a cache that holds its packages.
func fixture(t *testing.T) Options {
	t.Helper()
	dir := t.TempDir()
	o := Options{Tree: filepath.Join(dir, "tree"), Output: filepath.Join(dir, "out"), Cache: filepath.Join(dir, "cache"),
		Phase: func(string) func(string) { return func(string) {} }, Log: t.Logf}
	for path, content := range smallTree {
		writeFile(t, filepath.Join(o.Tree, path), []byte(content))
	}
	const modules = "usr/lib/modules/6.12.1-test"
	for path, content := range map[string][]byte{
		kernelHash + "/boot/vmlinuz-6.12.1-test":                   ukitest.Program("kernel"),
		kernelHash + "/" + modules + "/modules.builtin":            []byte("kernel/crypto/crc32c_generic.ko\nkernel/drivers/md/dm-verity.ko\nkernel/fs/erofs.ko\nkernel/fs/ext4.ko\nkernel/fs/fuse.ko\nkernel/virtio_net.ko\n"),
		kernelHash + "/" + modules + "/kernel/.keep":               nil,
		stubHash + "/usr/lib/systemd/boot/efi/linuxx64.efi.stub":   ukitest.Program("stub"),
		stubHash + "/usr/lib/systemd/boot/efi/systemd-bootx64.efi": ukitest.Program("systemd-boot"),
		networkHash + "/usr/lib/ipxe/undionly.kpxe":                []byte("iPXE for a BIOS"),
		networkHash + "/usr/lib/ipxe/snponly.efi":                  []byte("iPXE for UEFI"),
	} {
		writeFile(t, filepath.Join(o.Cache, "packages", path), content)
	}
	grubtest.Write(t, filepath.Join(o.Cache, "packages", loaderHash))
	return o
}

func (o Options) definition() string { return filepath.Join(o.Tree, "images/dev.yaml") }

// change replaces text in a file of the tree.
func (o Options) change(t *testing.T, path, from, to string) {
	t.Helper()
	file := filepath.Join(o.Tree, path)
	data, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(data), from) {
		t.Fatalf("%s: no %q in it, %v", path, from, err)
	}
	writeFile(t, file, []byte(strings.ReplaceAll(string(data), from, to)))
}

// commit makes the tree a git repository with one commit.
func (o Options) commit(t *testing.T) {
	t.Helper()
	for _, arguments := range [][]string{{"init", "-q"}, {"add", "."}, {"-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "all"}} {
		cmd := exec.Command("git", arguments...)
		cmd.Dir = o.Tree
		cmd.Env = append(os.Environ(), "GIT_AUTHOR_DATE=1700000000 +0000", "GIT_COMMITTER_DATE=1700000000 +0000")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git: %v: %s", err, out)
		}
	}
}

func writeFile(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
}
