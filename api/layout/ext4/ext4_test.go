package ext4_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cosi-os/cosi/api/layout/ext4"
	"github.com/cosi-os/cosi/api/layout/layouttest"
)

var options = ext4.Options{UUID: [16]byte{0xa1, 0xb2, 3, 4, 5, 6, 0x47, 8, 0x89, 10, 11, 12, 13, 14, 15, 16}, Label: "STATE", Time: time.Unix(1_700_000_000, 0)}

func made(t *testing.T, o ext4.Options) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fs")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(ext4.Size); err != nil {
		t.Fatal(err)
	}
	if err := ext4.Write(file, o); err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs a program of e2fsprogs, which hack/setup installs.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command("/sbin/"+name, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// complaints are the lines of e2fsck beside the five passes and the summary.
func complaints(out string) (all []string) {
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "Pass ") && !strings.HasPrefix(line, "e2fsck ") && !strings.Contains(line, " files (") {
			all = append(all, line)
		}
	}
	return all
}

func TestE2fsckHasNothingToSay(t *testing.T) {
	path := made(t, options)
	if out := run(t, "e2fsck", "-fn", path); len(complaints(out)) > 0 || !strings.Contains(out, "11/8192 files") {
		t.Errorf("e2fsck -fn:\n%s", out)
	}
	about := run(t, "dumpe2fs", path)
	for _, want := range []string{
		"has_journal ext_attr dir_index filetype meta_bg extent 64bit sparse_super large_file huge_file dir_nlink extra_isize metadata_csum",
		"Filesystem volume name:   STATE", "Errors behavior:          Remount read-only", "Total journal size:       8M", "a1b20304-0506-4708-890a-0b0c0d0e0f10",
	} {
		if !strings.Contains(strings.Join(strings.Fields(about), " "), strings.Join(strings.Fields(want), " ")) {
			t.Errorf("dumpe2fs lacks %q:\n%s", want, about)
		}
	}
}

func TestFilesCanBeWritten(t *testing.T) {
	path := made(t, options)
	source := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(source, bytes.Repeat([]byte("content "), 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "debugfs", "-w", "-R", "write "+source+" file", path)
	run(t, "debugfs", "-w", "-R", "mkdir /log", path)
	if out := run(t, "e2fsck", "-fn", path); len(complaints(out)) > 0 || !strings.Contains(out, "13/8192 files") {
		t.Errorf("e2fsck -fn:\n%s", out)
	}
}

func TestSameOptionsGiveTheSameBytes(t *testing.T) {
	first, err := os.ReadFile(made(t, options))
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(made(t, options))
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("two file systems differ (%v)", err)
	}
}

func TestALongLabelIsRefused(t *testing.T) {
	recorder := &layouttest.Recorder{}
	if err := ext4.Write(recorder, ext4.Options{Label: "12345678901234567"}); err == nil || recorder.Writes() > 0 {
		t.Errorf("Write = %v, %d writes; want an error and nothing written", err, recorder.Writes())
	}
}

// TestACutLeavesNothingToMount: until everything is there, there is no superblock, though an older one was.
func TestACutLeavesNothingToMount(t *testing.T) {
	older, err := os.ReadFile(made(t, ext4.Options{UUID: [16]byte{1}}))
	if err != nil {
		t.Fatal(err)
	}
	recorder := &layouttest.Recorder{}
	if err := ext4.Write(recorder, options); err != nil {
		t.Fatal(err)
	}
	fresh, err := os.ReadFile(made(t, options))
	if err != nil {
		t.Fatal(err)
	}
	var last []byte
	for disk := range recorder.Cuts(older, rand.New(rand.NewPCG(rand.Uint64(), 0)), 3) {
		if last = disk; whole(disk[1024:2048]) && !bytes.Equal(disk, fresh) && !bytes.Equal(disk, older) {
			t.Error("a whole superblock stands before something that is not whole")
		}
	}
	if !bytes.Equal(last, fresh) {
		t.Error("over an older file system, the new one is another")
	}
}

// whole reports whether the checksum of a superblock is right: the kernel mounts no other.
func whole(superblock []byte) bool {
	sum := ^crc32.Checksum(superblock[:0x3fc], crc32.MakeTable(crc32.Castagnoli))
	return binary.LittleEndian.Uint32(superblock[0x3fc:]) == sum && superblock[0x38] == 0x53
}
