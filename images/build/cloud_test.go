package build

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/cosi-os/cosi/images/inspect"
	"github.com/cosi-os/cosi/images/internal/judge"
	"github.com/cosi-os/cosi/images/manifest"
	"github.com/cosi-os/cosi/images/plan"
)

// Every cloud's file holds the disk of the same build, and nothing else is left in the output directory.
func TestCloudsGetTheSameDisk(t *testing.T) {
	o, dir := fixture(t), t.TempDir()
	o.change(t, "images/dev.yaml", "outputs: [raw, qcow2, iso, pxe]", "platform: openstack\noutputs: [raw, vhd, ova, gcp, oci, upgrade]")
	_, m := build(t, o)
	var files []string
	for _, f := range m.Outputs {
		files = append(files, strings.TrimPrefix(f.Name, "cosi-dev-amd64"))
	}
	if want := []string{".raw", ".vhd", ".ova", ".gcp.tar.gz", ".oci.tar", ".upgrade"}; !slices.Equal(files, want) {
		t.Errorf("made %q; want %q", files, want)
	}
	made, err := filepath.Glob(filepath.Join(o.Output, "cosi-*"))
	if err != nil || len(made) != len(files)+2 {
		t.Errorf("the output directory has %q, %v; want the outputs, the manifest, the checksums", made, err)
	}
	file := func(suffix string) string { return filepath.Join(o.Output, "cosi-dev-amd64"+suffix) }
	for _, archive := range []string{".ova", ".gcp.tar.gz", ".oci.tar"} {
		judge.Run(t, "tar", "-xf", file(archive), "-C", dir)
	}
	for format, path := range map[string]string{"vpc": file(".vhd"), "vmdk": filepath.Join(dir, "cosi-dev-amd64.vmdk"), "raw": filepath.Join(dir, "disk.raw")} {
		judge.Run(t, "qemu-img", "compare", "-f", "raw", "-F", format, file(".raw"), path)
	}

	want := append(slices.Clone(layers), "cosi-dev-amd64.upgrade application/vnd.cosi.image.upgrade.v1")
	if got := layersOf(t, dir); !slices.Equal(got, want) {
		t.Errorf("layers %q; want %q", got, want)
	}
	upgrade := slices.IndexFunc(m.Outputs, func(f manifest.File) bool { return f.Name == "cosi-dev-amd64.upgrade" })
	if _, err := os.Stat(filepath.Join(dir, "blobs/sha256", m.Outputs[upgrade].SHA256)); err != nil {
		t.Errorf("the artifact does not have the upgrade by its digest: %v", err)
	}

	node, err := inspect.Open(file(".raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	data, err := fs.ReadFile(node.Root, plan.Image)
	if err != nil {
		t.Fatal(err)
	}
	says := struct{ Platform string }{}
	if err := json.Unmarshal(data, &says); err != nil || says.Platform != "openstack" {
		t.Errorf("the image says %s, %v; want its platform", data, err)
	}
}

// layers of an artifact are the same whether its boot image is signed or not, and whoever enrols keys.
var layers = []string{
	"EFI/BOOT/BOOTX64.EFI application/vnd.cosi.image.uki.v1", "grub/grub.cfg application/vnd.cosi.image.grub.v1",
	"manifest.json.gz application/vnd.cosi.image.manifest.v1+gzip",
}

// layersOf are the files of an unpacked artifact, with what they are.
func layersOf(t *testing.T, dir string) (all []string) {
	t.Helper()
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	list, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	image, err := index.Image(list.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range manifest.Layers {
		all = append(all, l.Annotations["org.opencontainers.image.title"]+" "+string(l.MediaType))
	}
	return all
}
