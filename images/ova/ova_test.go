package ova

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/internal/judge"
	"github.com/cosi-os/cosi/images/vmdk"
)

func spec(t *testing.T) Spec {
	t.Helper()
	var disk bytes.Buffer
	s := Spec{Name: "cosi-x", Version: "1 & <2>", Capacity: 100 << 20, Time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	if err := (vmdk.Spec{Name: s.DiskName(), ID: "01234567-89AB-4DEF-8123-456789ABCDEF"}).Convert(&disk, judge.Disk(t, s.Capacity)); err != nil {
		t.Fatal(err)
	}
	s.Disk = bytes.NewReader(disk.Bytes())
	return s
}

func TestTarUnpacksWhatTheManifestSays(t *testing.T) {
	s, dir := spec(t), t.TempDir()
	file := filepath.Join(dir, "x.ova")
	var out bytes.Buffer
	if err := s.Write(&out); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := judge.Run(t, "tar", "-tf", file); got != "cosi-x.ovf\ncosi-x.mf\ncosi-x.vmdk\n" {
		t.Fatalf("tar lists %q", got)
	}
	judge.Run(t, "tar", "-xf", file, "-C", dir)
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	want := fmt.Sprintf("SHA256(cosi-x.ovf)= %x\nSHA256(cosi-x.vmdk)= %x\n", sha256.Sum256(read("cosi-x.ovf")), sha256.Sum256(read("cosi-x.vmdk")))
	if got := string(read("cosi-x.mf")); got != want {
		t.Errorf("manifest %q; want %q", got, want)
	}
	judge.Run(t, "qemu-img", "check", "-f", "vmdk", filepath.Join(dir, "cosi-x.vmdk"))

	var again bytes.Buffer
	if err := s.Write(&again); err != nil || !bytes.Equal(again.Bytes(), out.Bytes()) {
		t.Errorf("written once more: %v, or other bytes", err)
	}
	h, err := tar.NewReader(&again).Next()
	if err != nil || h.Format != tar.FormatUSTAR || !h.ModTime.Equal(s.Time) || h.Uid != 0 || h.Uname != "" || h.Mode != 0o644 {
		t.Errorf("header %+v, %v", h, err)
	}
}

// envelope is what of a descriptor refers to something.
type envelope struct {
	Files []struct {
		ID   string `xml:"id,attr"`
		Href string `xml:"href,attr"`
		Size int64  `xml:"size,attr"`
	} `xml:"References>File"`
	Disks []struct {
		ID       string `xml:"diskId,attr"`
		File     string `xml:"fileRef,attr"`
		Capacity int64  `xml:"capacity,attr"`
	} `xml:"DiskSection>Disk"`
	Networks []struct {
		Name string `xml:"name,attr"`
	} `xml:"NetworkSection>Network"`
	Version string `xml:"VirtualSystem>ProductSection>Version"`
	Items   []struct {
		ID         string `xml:"InstanceID"`
		Parent     string
		Host       string `xml:"HostResource"`
		Connection string
	} `xml:"VirtualSystem>VirtualHardwareSection>Item"`
	Config []struct {
		Key   string `xml:"key,attr"`
		Value string `xml:"value,attr"`
	} `xml:"VirtualSystem>VirtualHardwareSection>Config"`
}

func TestTheDescriptorRefersToWhatIsThere(t *testing.T) {
	s := spec(t)
	var text bytes.Buffer
	if err := descriptor.Execute(&text, s); err != nil {
		t.Fatal(err)
	}
	var e envelope
	if err := xml.Unmarshal(text.Bytes(), &e); err != nil {
		t.Fatal(err)
	}
	if len(e.Files) != 1 || e.Files[0].Href != "cosi-x.vmdk" || e.Files[0].Size != s.Disk.Size() {
		t.Errorf("files %+v; want the disk's, of %d bytes", e.Files, s.Disk.Size())
	}
	if len(e.Disks) != 1 || e.Disks[0].File != e.Files[0].ID || e.Disks[0].Capacity != 100 {
		t.Errorf("disks %+v; want one of 100 MiB in that file", e.Disks)
	}
	if e.Version != s.Version {
		t.Errorf("version %q; want %q", e.Version, s.Version)
	}
	if len(e.Config) != 1 || e.Config[0].Key != "firmware" || e.Config[0].Value != "efi" {
		t.Errorf("settings %+v; want UEFI", e.Config)
	}
	ids, disks, cards := map[string]bool{"": true}, 0, 0
	for _, item := range e.Items {
		if ids[item.ID] || !ids[item.Parent] {
			t.Errorf("item %+v: its number is another's, or its parent is not before it", item)
		}
		ids[item.ID] = true
		if item.Host == "ovf:/disk/"+e.Disks[0].ID {
			disks++
		}
		if item.Connection == e.Networks[0].Name {
			cards++
		}
	}
	if disks != 1 || cards != 1 {
		t.Errorf("%d disks and %d network cards are connected; want one of each", disks, cards)
	}
}

// torn is a disk that cannot be read.
type torn struct{ content.Content }

func (torn) ReadAt([]byte, int64) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestWriteFailsInWords(t *testing.T) {
	s := Spec{Name: "x", Disk: torn{content.String("disk")}}
	if err := s.Write(io.Discard); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.HasPrefix(err.Error(), "ova: x.vmdk: ") {
		t.Errorf("of a disk that cannot be read: %v", err)
	}
	s.Capacity = 512
	if err := s.Write(io.Discard); err == nil || err.Error() != "ova: a disk of 512 bytes is not one of whole MiB" {
		t.Errorf("of a disk of 512 bytes: %v", err)
	}
}
