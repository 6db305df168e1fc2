package initramfs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pierrec/lz4/v4"
	"github.com/u-root/u-root/pkg/cpio"

	"github.com/cosi-os/cosi/images/content"
)

func example() []File {
	return []File{
		{Path: "root.erofs", Content: content.String(strings.Repeat("erofs", 5000))},
		{Path: "init", Executable: true, Content: content.String("engine")},
		{Path: "usr/lib/modules/6.12/a.ko", Content: content.String("a")},
		{Path: "usr/lib/b", Content: content.String("b")},
	}
}

func TestArchiveHoldsParentsBeforeFilesAndTheConsole(t *testing.T) {
	archive := &bytes.Buffer{}
	if err := Write(archive, example(), Raw); err != nil {
		t.Fatal(err)
	}
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(archive.Bytes())))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range records {
		got = append(got, r.Name)
		if r.MTime != 0 || r.UID != 0 {
			t.Errorf("%s: not reproducible: %v", r.Name, r.Info)
		}
		if r.Mode&cpio.S_IFMT == cpio.S_IFDIR && r.Mode&0o7777 != 0o755 {
			t.Errorf("%s: mode %o; want 755", r.Name, r.Mode&0o7777)
		}
		if r.Name == "init" && r.Mode != cpio.S_IFREG|0o755 {
			t.Errorf("init: mode %o", r.Mode)
		}
		if r.Name == "dev/console" && (r.Mode != cpio.S_IFCHR|0o600 || r.Rmajor != 5 || r.Rminor != 1) {
			t.Errorf("dev/console: %v", r.Info)
		}
	}
	want := "dev dev/console init root.erofs usr usr/lib usr/lib/b usr/lib/modules usr/lib/modules/6.12 usr/lib/modules/6.12/a.ko"
	if strings.Join(got, " ") != want {
		t.Errorf("the archive holds %q; want %q", got, want)
	}
}

func TestSameFilesInAnyOrderGiveTheSameBytes(t *testing.T) {
	for _, c := range Compressions {
		var archives [2]bytes.Buffer
		files := example()
		for i := range archives {
			if err := Write(&archives[i], files, c); err != nil {
				t.Fatal(err)
			}
			files[0], files[2] = files[2], files[0]
		}
		if !bytes.Equal(archives[0].Bytes(), archives[1].Bytes()) {
			t.Errorf("%s: two archives differ", c)
		}
	}
}

func TestLZ4IsTheLegacyFormatOfTheSameArchive(t *testing.T) {
	raw, packed := &bytes.Buffer{}, &bytes.Buffer{}
	if err := errors.Join(Write(raw, example(), Raw), Write(packed, example(), LZ4)); err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(packed.Bytes(), []byte{0x02, 0x21, 0x4c, 0x18}) {
		t.Errorf("magic % x; the kernel wants 02 21 4c 18", packed.Bytes()[:4])
	}
	unpacked, err := io.ReadAll(lz4.NewReader(packed))
	if err != nil || !bytes.Equal(unpacked, raw.Bytes()) {
		t.Errorf("unpacked %d bytes, %v; want the %d of the raw archive", len(unpacked), err, raw.Len())
	}
}

func TestCpioReadsIt(t *testing.T) {
	tool, err := exec.LookPath("cpio")
	if err != nil {
		t.Fatalf("%v (hack/setup installs it)", err)
	}
	archive := &bytes.Buffer{}
	if err := Write(archive, append(example()[1:], File{Path: "etc/cosi/modules", Content: content.String("/x\n")}), Raw); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tool, "-i", "--no-absolute-filenames", "init", "etc", "etc/*")
	cmd.Dir, cmd.Stdin = t.TempDir(), archive
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v: %s", err, out)
	}
	if data, err := os.ReadFile(filepath.Join(cmd.Dir, "init")); string(data) != "engine" {
		t.Errorf("init holds %q, %v", data, err)
	}
}

func TestWriteRefusesPathsThatDoNotBelong(t *testing.T) {
	for _, path := range []string{"", "/init", "a/../b", "a//b", "a/", "dev/console"} {
		if err := Write(io.Discard, []File{{Path: path, Content: content.String("")}}, Raw); !errors.Is(err, ErrPath) {
			t.Errorf("Write(%q) = %v; want ErrPath", path, err)
		}
	}
	if err := Write(io.Discard, []File{{Path: "a", Content: content.String("")}, {Path: "a", Content: content.String("")}}, Raw); !errors.Is(err, ErrPath) {
		t.Errorf("Write of a path twice = %v; want ErrPath", err)
	}
	if err := Write(io.Discard, nil, "zip"); err == nil {
		t.Error("Write with an unknown compression succeeded")
	}
}
