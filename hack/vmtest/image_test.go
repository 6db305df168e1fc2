package vmtest_test

import (
	"bytes"
	"debug/elf"
	"debug/pe"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/cosi-os/cosi/api/layout/bootentry"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/images/rootfs"
)

// known is every file that may be in the base image's initramfs and root; directories are known by what is in them, or by name.
var known = regexp.MustCompile(`^(` + strings.Join([]string{
	`init`, `root\.erofs`, `dev/console`, `etc/cosi/modules`,
	`dev`, `etc`, `proc`, `run`, `sys`, `tmp`, `var`,
	`usr/bin/(engine|runtime)`,
	`usr/lib/cosi/bin/plugins`,
	`usr/lib/cosi/plugins/(block-events|mount|network|power|power-events|upgrade|userdata)\.(json|binpb)`,
	`usr/lib/cosi/(image\.json|manifest\.json\.gz|kinds\.binpb\.gz|modules|resources\.yaml)`,
	`usr/lib/modules/[^/]+/(modules\.(alias|builtin|dep)|kernel/.+\.ko)`,
	`usr/lib/os-release`,
}, "|") + `)$`)

// programs are the only files that may be executed.
var programs = regexp.MustCompile(`^(init|usr/bin/(engine|runtime)|usr/lib/cosi/bin/plugins)$`)

// file is one of the image.
type file struct {
	path    string
	mode    fs.FileMode
	owner   string
	content io.ReaderAt
	size    int64
}

// Every file of the image is one that we know: no shell, no interpreter, nothing linked dynamically, nothing setuid.
func TestEveryFileOfTheImageIsKnown(t *testing.T) {
	image := vmtest.Image(t, "base", "efi")
	files := imageFiles(t, initrd(t, image))
	onDisk := imageFiles(t, initrd(t, ukiOf(t, vmtest.Image(t, "base", "raw"), t.TempDir())))
	if slices.ContainsFunc(onDisk, func(f file) bool { return f.path == "root.erofs" }) {
		t.Error("the disk's initramfs holds a root")
	}
	for _, f := range onDisk {
		for _, problem := range problems(f) {
			t.Errorf("the disk's initramfs: /%s (%v, %d bytes) %s", f.path, f.mode, f.size, problem)
		}
	}
	if len(files) < 40 {
		t.Errorf("%d files: has everything been read?", len(files))
	}
	seen := map[string]bool{}
	for _, f := range files {
		seen[f.path] = true
		for _, problem := range problems(f) {
			t.Errorf("/%s (%v, %d bytes) %s", f.path, f.mode, f.size, problem)
		}
	}
	for _, path := range []string{"init", "root.erofs", "usr/bin/engine", "usr/bin/runtime", "usr/lib/cosi/bin/plugins", "usr/lib/os-release"} {
		if !seen[path] {
			t.Errorf("/%s is not in the image", path)
		}
	}
}

// The disk and the CD hold a boot image, what starts it, and no other file. On the CD it is the one beside it.
func TestDiskAndCDHoldTheBootImage(t *testing.T) {
	raw, iso, dir := vmtest.Image(t, "base", "raw"), vmtest.Image(t, "base", "iso"), t.TempDir()
	cd := filepath.Join(dir, "cd")
	files := regexp.MustCompile(`(?m)^'/.*'$`).FindAllString(judged(t, "xorriso", "-indev", iso, "-find", "/"), -1)
	if want := []string{"'/'", "'/BOOT.CAT'", "'/ESP.IMG'", "'/GRUB.IMG'", "'/UPGRADE.DAT'"}; !slices.Equal(files, want) {
		t.Errorf("files of the CD: %q; want %q", files, want)
	}
	judged(t, "xorriso", "-osirrox", "on", "-indev", iso, "-extract", "/ESP.IMG", cd)
	const boot = "/EFI/BOOT/BOOTX64.EFI"
	for name, esp := range map[string]struct {
		at   string
		want []string
	}{
		"disk": {raw + "@@2M", []string{boot, "/" + kernelOf(t, raw), "/grub/" + rootOf(t, raw) + ".cfg", "/grub/grub.cfg", "/grub/grubenv", "/loader/entries/cosi-00000001.conf", "/loader/loader.conf"}},
		"CD":   {cd, []string{boot, "/grub/grub.cfg"}},
	} {
		var got []string
		for file := range strings.FieldsSeq(judged(t, "mdir", "-/", "-b", "-i", esp.at, "::")) {
			if file = strings.TrimPrefix(file, "::"); !strings.HasSuffix(file, "/") {
				got = append(got, file)
			}
		}
		if slices.Sort(got); !slices.Equal(got, esp.want) {
			t.Errorf("files of the %s's EFI system partition: %q; want %q", name, got, esp.want)
		}
	}
	want, err := io.ReadAll(initrd(t, vmtest.Image(t, "base", "efi")))
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "cd.efi")
	judged(t, "mcopy", "-i", cd, "::"+boot, copied)
	if got, err := io.ReadAll(initrd(t, copied)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the CD boots another initramfs than the boot image's (%v)", err)
	}
}

// problems says what is wrong with a file.
func problems(f file) []string {
	var all []string
	if !f.mode.IsDir() && !known.MatchString(f.path) {
		all = append(all, "is a file that no image should hold")
	}
	if f.mode&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != 0 || f.mode.Perm()&0o022 != 0 && f.mode.Type() != fs.ModeSymlink {
		all = append(all, "has a mode that no file should have")
	}
	if f.mode.Type() == fs.ModeCharDevice|fs.ModeDevice && f.path != "dev/console" || f.mode.Type()&(fs.ModeNamedPipe|fs.ModeSocket) != 0 {
		all = append(all, "is neither file nor directory")
	}
	if f.owner != "0:0" {
		all = append(all, "belongs to "+f.owner)
	}
	if f.mode.IsRegular() {
		all = append(all, contentProblems(f)...)
	}
	return all
}

func contentProblems(f file) []string {
	start := make([]byte, 4)
	if n, _ := f.content.ReadAt(start, 0); n >= 2 && string(start[:2]) == "#!" {
		return []string{"is a script"}
	}
	executable := f.mode.Perm()&0o111 != 0
	if executable != programs.MatchString(f.path) {
		return []string{"has the wrong mode for what it is"}
	}
	if string(start) != elf.ELFMAG {
		if executable || strings.HasSuffix(f.path, ".ko") {
			return []string{"is not ELF"}
		}
		return nil
	}
	e, err := elf.NewFile(f.content)
	if err != nil {
		return []string{err.Error()}
	}
	switch {
	case e.Type == elf.ET_REL && strings.HasSuffix(f.path, ".ko"):
		return nil
	case !executable:
		return []string{"is a program under a false name"}
	}
	var all []string
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP {
			all = append(all, "wants an interpreter")
		}
	}
	if needed, err := e.DynString(elf.DT_NEEDED); len(needed) > 0 {
		all = append(all, fmt.Sprintf("wants the libraries %q (%v)", needed, err))
	}
	return all
}

// initrd returns the initramfs inside a unified kernel image.
func initrd(t *testing.T, uki string) *io.SectionReader {
	t.Helper()
	image, err := pe.Open(uki)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { image.Close() })
	section := image.Section(".initrd")
	if section == nil {
		t.Fatalf("%s has no initramfs", uki)
	}
	return io.NewSectionReader(section, 0, int64(section.VirtualSize))
}

// imageFiles lists the initramfs and the root file system in it.
func imageFiles(t *testing.T, initramfs io.ReaderAt) []file {
	t.Helper()
	var all []file
	for r := cpio.Newc.Reader(initramfs); ; {
		record, err := r.ReadRecord()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("the initramfs after %d files: %v", len(all), err)
		}
		all = append(all, file{record.Name, unixMode(record.Mode), fmt.Sprintf("%d:%d", record.UID, record.GID), record.ReaderAt, int64(record.FileSize)})
		if record.Name == "root.erofs" {
			all = append(all, rootFiles(t, record.ReaderAt)...)
		}
	}
}

func rootFiles(t *testing.T, image io.ReaderAt) []file {
	t.Helper()
	root, err := rootfs.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	var all []file
	err = fs.WalkDir(root, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		f := file{path: path, mode: info.Mode(), owner: "unknown", size: info.Size()}
		if owner, ok := info.Sys().(rootfs.Owner); ok {
			f.owner = fmt.Sprintf("%d:%d", owner.UID, owner.GID)
		}
		if info.Mode().IsRegular() {
			data, err := fs.ReadFile(root, path)
			if err != nil {
				return err
			}
			f.content = bytes.NewReader(data)
		}
		all = append(all, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// unixMode reads the mode of stat(2).
func unixMode(m uint64) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	for bit, is := range map[uint64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if m&bit != 0 {
			mode |= is
		}
	}
	return mode | map[uint64]fs.FileMode{
		0o040000: fs.ModeDir, 0o120000: fs.ModeSymlink, 0o020000: fs.ModeDevice | fs.ModeCharDevice, 0o060000: fs.ModeDevice,
		0o010000: fs.ModeNamedPipe, 0o140000: fs.ModeSocket,
	}[m&0o170000]
}

// A file that no image should hold is found: what TestEveryFileOfTheImageIsKnown relies on.
func TestProblemsAreFound(t *testing.T) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	script, program := bytes.NewReader([]byte("#!/bin/sh\n")), bytes.NewReader(self)
	for _, f := range []file{
		{path: "bin/sh", mode: 0o755, owner: "0:0", content: program},
		{path: "usr/bin/python3", mode: 0o755, owner: "0:0", content: program},
		{path: "usr/lib/os-release", mode: 0o644, owner: "0:0", content: program},
		{path: "usr/lib/os-release", mode: 0o644, owner: "0:0", content: script},
		{path: "usr/lib/os-release", mode: 0o755, owner: "0:0", content: script},
		{path: "usr/lib/os-release", mode: 0o666, owner: "0:0", content: bytes.NewReader(nil)},
		{path: "usr/lib/os-release", mode: 0o644, owner: "0:900", content: bytes.NewReader(nil)},
		{path: "usr/bin/engine", mode: fs.ModeSetuid | 0o755, owner: "0:0", content: program},
		{path: "usr/bin/engine", mode: 0o755, owner: "0:0", content: bytes.NewReader([]byte("text"))},
		{path: "dev/sda", mode: fs.ModeDevice | 0o600, owner: "0:0"},
		{path: "tmp", mode: fs.ModeDir | 0o777, owner: "0:0"},
		{path: "usr/lib/modules/6/kernel/a.ko", mode: 0o644, owner: "0:0", content: script},
	} {
		if len(problems(f)) == 0 {
			t.Errorf("nothing is found wrong with %+v", f)
		}
	}
}

// What is downloaded, and what lies in a node's memory, stays small. The initramfs holds the root.
func TestTheImageIsSmall(t *testing.T) {
	for format, most := range map[string]int64{"qcow2": 40e6, "iso": 45e6, "initramfs": 45e6} {
		info, err := os.Stat(vmtest.Image(t, "base", format))
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() >= most {
			t.Errorf("the %s has %d bytes; want less than %d", format, info.Size(), most)
		}
	}
}

// Other people's programs are content with every output.
func TestJudgesAreContentWithTheOutputs(t *testing.T) {
	raw, qcow2, iso, uki := vmtest.Image(t, "base", "raw"), vmtest.Image(t, "base", "qcow2"), vmtest.Image(t, "base", "iso"), vmtest.Image(t, "base", "efi")
	dir := t.TempDir()
	offset, hash := rootArguments(t, ukiOf(t, raw, dir))
	slot := slotOf(t, raw, dir)
	for _, judge := range []struct {
		name      string
		argv      []string
		want      string // a regular expression
		unwelcome string
	}{
		{"sgdisk", []string{"sgdisk", "-v", raw}, `No problems found`, `(?i)warning|caution|problem:`},
		{"fsck.vfat", []string{"fsck.vfat", "-n", "-v", espOf(t, raw, dir)}, `\d+ files`, `(?i)differ|orphan|reclaim|is dirty|incorrect`},
		{"veritysetup", []string{"veritysetup", "verify", "--hash-offset=" + offset, slot, slot, hash}, ``, `.`},
		{"qemu-img", []string{"qemu-img", "check", "-f", "qcow2", qcow2}, `No errors were found`, `(?i)leak|corrupt`},
		{"qemu-img compare", []string{"qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, qcow2}, `Images are identical`, `(?i)differ`},
		{"xorriso", []string{"xorriso", "-indev", iso, "-report_el_torito", "plain"}, `El Torito boot img +: +1 +BIOS .*\nEl Torito boot img +: +2 +UEFI `, `(?i)FAILURE|SORRY|FATAL|MISHAP`},
		{"sgdisk of the stick", []string{"sgdisk", "-v", iso}, `No problems found`, `(?i)warning|caution|problem:`},
		{"sbverify", []string{"sbverify", "--list", uki}, ``, `(?i)gap|invalid|warning|error`},
	} {
		t.Run(judge.name, func(t *testing.T) {
			out := judged(t, judge.argv...)
			if !regexp.MustCompile(judge.want).MatchString(out) || regexp.MustCompile(judge.unwelcome).MatchString(out) {
				t.Errorf("%s:\n%s", strings.Join(judge.argv, " "), out)
			}
		})
	}
}

// judged runs a judge. One that is missing skips the test, except where CI is set: hack/setup has run there.
func judged(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(needed(t, argv[0]), argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// needed is the path of a program that a test takes.
func needed(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + program)
	}
	switch {
	case err != nil && os.Getenv("CI") != "":
		t.Fatal(err)
	case err != nil:
		t.Skip(err)
	}
	return path
}

// ukiOf copies the unified kernel image out of a raw image's EFI system partition.
func ukiOf(t *testing.T, raw, dir string) string {
	t.Helper()
	file := filepath.Join(dir, "disk.efi")
	judged(t, "mcopy", "-n", "-i", fmt.Sprintf("%s@@%d", raw, espStart), "::"+kernelOf(t, raw), file)
	return file
}

// kernelOf is the place of the unified kernel image on a raw image's EFI system partition, as the entry of the boot manager has it.
func kernelOf(t *testing.T, raw string) string {
	t.Helper()
	const name = "cosi-00000001.conf"
	e, err := bootentry.Parse(name, judged(t, "mtype", "-i", fmt.Sprintf("%s@@%d", raw, espStart), "::"+bootentry.Dir+"/"+name))
	if err != nil {
		t.Fatal(err)
	}
	return e.Kernel()
}

// rootOf is the hash of the root that a raw image runs.
func rootOf(t *testing.T, raw string) string {
	t.Helper()
	return strings.TrimSuffix(filepath.Base(kernelOf(t, raw)), ".efi")
}

// rootArguments returns where the hash tree begins and the hash of its root, as the kernel is told.
func rootArguments(t *testing.T, uki string) (offset, hash string) {
	t.Helper()
	image, err := pe.Open(uki)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	line, err := image.Section(".cmdline").Data()
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(` roothash=([0-9a-f]{64}) systemd\.verity_root_options=hash-offset=(\d+)(?:[ \x00]|$)`).FindSubmatch(line)
	if found == nil {
		t.Fatalf("the kernel is told no root: %s", line)
	}
	return string(found[2]), string(found[1])
}

// espStart and espSize are the EFI system partition's place in every disk of ours.
const (
	espStart = 2 << 20
	espSize  = 256 << 20
)

// espOf copies the EFI system partition out of a raw image.
func espOf(t *testing.T, raw, dir string) string {
	t.Helper()
	in, err := os.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(filepath.Join(dir, "esp.fat"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, io.NewSectionReader(in, espStart, espSize)); err != nil {
		t.Fatal(err)
	}
	return out.Name()
}
