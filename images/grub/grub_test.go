package grub

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ulikunitz/xz/lzma"

	"github.com/cosi-os/cosi/images/grub/grubtest"
	"github.com/cosi-os/cosi/images/uki"
)

const start = 1 << 20

func open(t *testing.T) *Loader {
	t.Helper()
	dir := t.TempDir()
	grubtest.Write(t, dir)
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

var le = binary.LittleEndian

// The MBR leads to the core image, its first sector to the others, and El Torito's image to itself and what follows.
func TestEachStageFindsTheNext(t *testing.T) {
	l := open(t)
	mbr, core, cd := l.mbr(start), l.imageAt(start), l.CD(start)
	if len(mbr) != mbrCode || le.Uint64(mbr[0x5c:]) != 2048 || string(mbr[0x66:0x68]) != "\x90\x90" {
		t.Errorf("the MBR's code has %d bytes and loads sector %d", len(mbr), le.Uint64(mbr[0x5c:]))
	}
	sectors := (len(core) - 512 + 511) / 512
	if first, n, segment := le.Uint64(core[0x1f4:]), le.Uint16(core[0x1fc:]), le.Uint16(core[0x1fe:]); first != 2049 || int(n) != sectors || segment != 0x820 {
		t.Errorf("the core image loads %d sectors from %d to segment %#x; want %d from 2049 to 0x820", n, first, segment, sectors)
	}
	var sum uint32
	whole := append(append(append([]byte(nil), cd...), core...), 0, 0, 0)
	for i := 64; i+4 <= len(whole); i += 4 {
		sum += le.Uint32(whole[i:])
	}
	for i, want := range []uint32{16, 511, uint32(len(cd) + len(core)), sum} {
		if got := le.Uint32(cd[8+4*i:]); got != want {
			t.Errorf("word %d of the boot information table is %d; want %d", i, got, want)
		}
	}
}

// unpack returns what the decompressor unpacks.
func unpack(t *testing.T, core []byte) []byte {
	t.Helper()
	packed, plain := le.Uint32(core[512+8:]), le.Uint32(core[512+12:])
	header := le.AppendUint64([]byte{0x5d, 0, 0, 0x10, 0}, uint64(plain)) // the properties, a dictionary of 1 MiB
	r, err := lzma.NewReader(bytes.NewReader(append(header, core[len(core)-int(packed):]...)))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Behind the kernel lie all modules that are needed, none before what it needs itself, and the place of grub.cfg.
func TestTheCoreImageHoldsWhatTheKernelLooksFor(t *testing.T) {
	data := unpack(t, open(t).core)
	objects, ok := bytes.CutPrefix(data, []byte(grubtest.Kernel))
	if !ok || le.Uint32(objects) != 0x676d696d || le.Uint32(objects[4:]) != 12 || int(le.Uint32(objects[8:])) != len(objects) {
		t.Fatalf("it unpacks to %q", data)
	}
	var got []string
	for objects = objects[12:]; len(objects) > 0; {
		kind, size := le.Uint32(objects), le.Uint32(objects[4:])
		got = append(got, fmt.Sprintf("%d %s", kind, bytes.TrimRight(objects[8:size], "\x00")))
		objects = objects[size:]
	}
	const want = "0 the module biosdisk, 0 the module part_gpt, 0 the module fshelp, 0 the module fat, 0 the module loopback, " +
		"0 the module boot, 0 the module normal, 0 the module linux, 0 the module sleep, 0 the module reboot, 0 the module extcmd, " +
		"0 the module loadenv, 0 the module test, 0 the module configfile, 3 (,gpt2)/grub"
	if strings.Join(got, ", ") != want {
		t.Errorf("the objects are\n%q; want\n%s", got, want)
	}
}

// sections is a unified kernel image with what it has by name.
type sections map[string][2]int64

func (s sections) Section(name string) (offset, size int64) { return s[name][0], s[name][1] }

func TestConfigStartsWhatIsInTheImage(t *testing.T) {
	image := sections{uki.Linux: {40960, 1025}, uki.Initrd: {1024, 4096}}
	got, err := Config("EFI/BOOT/BOOTX64.EFI", image, "console=ttyS0 cosi.userdata=data:;base64,YQ== a=$b")
	const want = `# Written with the image. A BIOS boots the kernel, the initramfs and the arguments of the file that UEFI starts.
loopback uki /EFI/BOOT/BOOTX64.EFI
linux (uki)80+3 'console=ttyS0' 'cosi.userdata=data:;base64,YQ==' 'a=$b'
initrd (uki)2+8
boot
sleep 30
reboot
`
	if err != nil || got != want {
		t.Errorf("Config = %v:\n%s\nwant\n%s", err, got, want)
	}
	for _, test := range []struct {
		image     Image
		arguments string
		want      string
	}{
		{image, `quiet a='b'`, `kernel argument a='b': GRUB`},
		{image, `a=\b`, `kernel argument a=\b: GRUB`},
		{sections{uki.Linux: {512, 1}}, "", "section .initrd of the unified kernel image: 0 bytes at 0"},
		{sections{uki.Linux: {100, 1}, uki.Initrd: {1024, 4096}}, "", "section .linux of the unified kernel image: 1 bytes at 100"},
	} {
		if _, err := Config("x", test.image, test.arguments); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("Config = %v; want an error with %q", err, test.want)
		}
	}
}

func TestOpenFailsInWords(t *testing.T) {
	for name, test := range map[string]struct{ file, data, want string }{
		"a part is missing":         {"diskboot.img", "", "diskboot.img: no such file"},
		"a part has another size":   {"boot.img", "short", "GRUB: boot.img: 5 bytes; want 512"},
		"a module is missing":       {"fshelp.mod", "", "fshelp.mod: no such file"},
		"the kernel is none":        {"kernel.img", "text", "GRUB: kernel.img: "},
		"the kernel lies elsewhere": {"kernel.img", "\x7fELF\x01\x01\x01" + strings.Repeat("\x00", 9) + "\x02\x00\x03\x00\x01" + strings.Repeat("\x00", 31), "GRUB: kernel.img: nothing to load at 0x9000"},
		"no decompressor":           {"lzma_decompress.img", "short", "GRUB: lzma_decompress.img: 5 bytes"},
		"more than can be loaded":   {"lzma_decompress.img", strings.Repeat("x", 500<<10), "at most 454656 can be loaded"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			grubtest.Write(t, dir)
			file := filepath.Join(dir, Parts, test.file)
			err := os.Remove(file)
			if test.data != "" {
				err = os.WriteFile(file, []byte(test.data), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Open = %v; want an error with %q", err, test.want)
			}
		})
	}
}
