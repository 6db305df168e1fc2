package oci

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/internal/judge"
)

func spec() Spec {
	return Spec{
		Name: "cosi-x-amd64", Version: "1.2", Arch: "amd64", Time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		Files: []File{
			{"EFI/BOOT/BOOTX64.EFI", UKI, content.String(strings.Repeat("kernel", 1e5))},
			{"grub/grub.cfg", GRUB, content.String("boot")},
		},
	}
}

// What a registry is given is read back as whoever pulls it reads it.
func TestTheLayoutHoldsTheFiles(t *testing.T) {
	var out bytes.Buffer
	if err := spec().Write(&out); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "x.tar")
	if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	judge.Run(t, "tar", "-xf", file, "-C", dir)
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	list, err := index.IndexManifest()
	if err != nil || len(list.Manifests) != 1 {
		t.Fatalf("index %+v, %v; want one manifest", list, err)
	}
	entry := list.Manifests[0]
	if entry.Platform.Architecture != "amd64" || entry.Platform.OS != "linux" || entry.Annotations[version] != "1.2" {
		t.Errorf("index says %+v of it", entry)
	}
	image, err := index.Image(entry.Digest)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if manifest.Config.MediaType != Config || manifest.MediaType != "application/vnd.oci.image.manifest.v1+json" || manifest.Annotations[created] != "2026-01-01T00:00:00Z" || manifest.Annotations[title] != "cosi-x-amd64" {
		t.Errorf("manifest %+v", manifest)
	}
	if config, err := image.ConfigFile(); err != nil || config.Architecture != "amd64" || len(config.RootFS.DiffIDs) != 2 {
		t.Errorf("configuration %+v, %v", config, err)
	}
	for i, want := range spec().Files {
		l := manifest.Layers[i]
		if l.MediaType != want.Type || l.Annotations[title] != want.Path || l.Size != want.Size() {
			t.Errorf("layer %d is %+v; want %s", i, l, want.Path)
		}
		blob, err := layout.Path(dir).Bytes(l.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := io.ReadAll(content.Reader(want)); err != nil || !bytes.Equal(blob, plain) {
			t.Errorf("%s has other bytes, or %v", want.Path, err)
		}
	}
	var again bytes.Buffer
	if err := spec().Write(&again); err != nil || !bytes.Equal(again.Bytes(), out.Bytes()) {
		t.Errorf("written once more: %v, or other bytes", err)
	}
}

// torn is a file that cannot be read.
type torn struct{ content.Content }

func (torn) ReadAt([]byte, int64) (int, error) { return 0, io.ErrUnexpectedEOF }

type full struct{}

var errFull = errors.New("no space")

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestWriteFailsInWords(t *testing.T) {
	s := spec()
	if err := s.Write(full{}); !errors.Is(err, errFull) {
		t.Errorf("Write without room = %v; want %v", err, errFull)
	}
	s.Files[1].Content = torn{s.Files[1].Content}
	if err := s.Write(io.Discard); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.HasPrefix(err.Error(), "oci: grub/grub.cfg: ") {
		t.Errorf("Write of what cannot be read = %v", err)
	}
}
