package gpt_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	diskfs "github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/api/layout/layouttest"
)

const mib = 1 << 20

// image returns a disk of 8 MiB as the image builder's library writes it, and the same on a disk of 32 MiB.
func image(t testing.TB) (small, large []byte) {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	table := &diskfs.Table{GUID: "5B193300-FC78-40CD-8002-E86C45580B47", ProtectiveMBR: true, LogicalSectorSize: 512, PhysicalSectorSize: 512,
		Partitions: []*diskfs.Partition{
			{Index: 1, Type: diskfs.BIOSBoot, GUID: "11111111-2222-4333-8444-555555555551", Name: "bios-boot", Start: 2048, End: 4095},
			{Index: 2, Type: diskfs.EFISystemPartition, GUID: "11111111-2222-4333-8444-555555555552", Name: "esp", Start: 4096, End: 8191},
		}}
	if err := file.Truncate(8 * mib); err != nil {
		t.Fatal(err)
	}
	if err := table.Write(file, 8*mib); err != nil {
		t.Fatal(err)
	}
	if small, err = os.ReadFile(file.Name()); err != nil {
		t.Fatal(err)
	}
	return small, append(bytes.Clone(small), make([]byte, 24*mib)...)
}

func read(t testing.TB, disk []byte) *gpt.Table {
	t.Helper()
	table, err := gpt.Read(bytes.NewReader(disk), int64(len(disk)))
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// withState is the table with a state partition in the rest of a disk.
func withState(table *gpt.Table, size int64) *gpt.Table {
	wanted := *table
	wanted.Partitions = append(append([]gpt.Partition{}, table.Partitions...), gpt.Partition{
		Type: gpt.State, GUID: gpt.GUID{1, 2, 3}, Name: "state-new", Start: 4 * mib, End: gpt.Usable(size) / mib * mib,
	})
	return &wanted
}

func TestReadsWhatTheImageBuilderWrites(t *testing.T) {
	small, large := image(t)
	table := read(t, small)
	if table.DiskGUID.String() != "5B193300-FC78-40CD-8002-E86C45580B47" || table.Moved || table.Backup || len(table.Partitions) != 2 {
		t.Errorf("table = %+v", table)
	}
	esp := table.Partitions[1]
	if esp.Name != "esp" || esp.Start != 2*mib || esp.End != 4*mib || esp.Type.String() != string(diskfs.EFISystemPartition) {
		t.Errorf("partition 2 = %+v", esp)
	}
	if !read(t, large).Moved {
		t.Error("the copy of a disk that has grown is not said to be elsewhere")
	}
}

func TestJudgesAreContent(t *testing.T) {
	_, disk := image(t)
	size := int64(len(disk))
	wanted := withState(read(t, disk), size)
	if err := wanted.Write(&layouttest.Memory{Data: disk}, size); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("/sbin/sgdisk", "-v", "-p", path).CombinedOutput() // hack/setup installs it
	if err != nil || !strings.Contains(string(out), "No problems found") || !strings.Contains(string(out), "state-new") {
		t.Errorf("sgdisk: %v\n%s", err, out)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	other, err := diskfs.Read(file, 512, 512)
	if err != nil {
		t.Fatal(err)
	}
	if p := other.Partitions[2]; p.Name != "state-new" || p.GetStart() != 4*mib || string(p.Type) != gpt.State.String() {
		t.Errorf("go-diskfs reads %+v", p)
	}
}

// What a BIOS boots stands before the table in the same sector.
func TestTheBootCodeStays(t *testing.T) {
	_, disk := image(t)
	size, code := int64(len(disk)), bytes.Repeat([]byte("code"), 110)
	copy(disk, code)
	if err := withState(read(t, disk), size).Write(&layouttest.Memory{Data: disk}, size); err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(disk, code) || disk[510] != 0x55 || disk[511] != 0xaa {
		t.Errorf("the first sector is\n%q", disk[:512])
	}
}

// What no firmware reads a table on stays so.
func TestTheCopiesAlone(t *testing.T) {
	_, disk := image(t)
	size := int64(len(disk))
	first := bytes.Repeat([]byte("says"), gpt.Sector/4)
	copy(disk, first)
	wanted := withState(read(t, disk), size)
	if err := wanted.WriteCopies(&layouttest.Memory{Data: disk}, size); err != nil {
		t.Fatal(err)
	}
	if table := read(t, disk); !reflect.DeepEqual(table.Partitions, wanted.Partitions) || table.Moved || !bytes.Equal(disk[:gpt.Sector], first) {
		t.Errorf("the table is %+v, and the first sector\n%q", table, disk[:gpt.Sector])
	}
}

// Other boot code comes by the write that makes the disk one to boot from. What stood there goes.
func TestOtherBootCode(t *testing.T) {
	_, disk := image(t)
	size, code := int64(len(disk)), bytes.Repeat([]byte("code"), 120)
	copy(disk[:512], bytes.Repeat([]byte("other"), 110)) // and no signature
	wanted := withState(read(t, disk), size)
	wanted.Code = code
	recorder := &layouttest.Recorder{}
	if err := wanted.Write(recorder, size); err != nil {
		t.Fatal(err)
	}
	var last []byte
	for cut := range recorder.Cuts(disk, rand.New(rand.NewPCG(1, 1)), 20) {
		switch is := cut[510] == 0x55; {
		case !is && !bytes.Equal(cut[:512], disk[:512]):
			t.Fatalf("half of the first sector is written:\n%q", cut[:512])
		case is && !bytes.Equal(cut[:446], append(code[:440:440], make([]byte, 6)...)):
			t.Fatalf("a BIOS starts\n%q", cut[:446])
		}
		last = cut
	}
	if last[510] != 0x55 {
		t.Error("nothing was written")
	}
}

func TestTheCopyIsReadWhenTheFirstIsDamaged(t *testing.T) {
	for name, at := range map[string]int{"header": 512 + 60, "entries": 2*512 + 5, "signature": 512} {
		disk, _ := image(t)
		disk[at] ^= 1
		table := read(t, disk)
		if !table.Backup || len(table.Partitions) != 2 {
			t.Errorf("%s: table = %+v; want the copy", name, table)
		}
		if err := table.Write(&layouttest.Memory{Data: disk}, int64(len(disk))); err != nil || read(t, disk).Backup {
			t.Errorf("%s: written again, the first copy is still damaged: %v", name, err)
		}
	}
	disk, _ := image(t)
	disk[512]++
	disk[len(disk)-512]++
	if _, err := gpt.Read(bytes.NewReader(disk), int64(len(disk))); !errors.Is(err, gpt.ErrNone) {
		t.Errorf("without a whole copy: %v; want ErrNone", err)
	}
}

// TestAnyCutLeavesATable cuts the power at every point, and leaves any part of what was not waited for undone.
func TestAnyCutLeavesATable(t *testing.T) {
	_, before := image(t)
	size := int64(len(before))
	old := read(t, before)
	wanted := withState(old, size)
	recorder := &layouttest.Recorder{}
	table := *wanted
	if err := table.Write(recorder, size); err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	cuts := 0
	for disk := range recorder.Cuts(before, random, 40) {
		cuts++
		found, err := gpt.Read(bytes.NewReader(disk), size)
		if err != nil {
			t.Fatalf("seed %d, cut %d: %v", seed, cuts, err)
		}
		if got := found.Partitions; !reflect.DeepEqual(got, old.Partitions) && !reflect.DeepEqual(got, wanted.Partitions) {
			t.Fatalf("seed %d, cut %d: partitions %+v", seed, cuts, got)
		}
		found.Partitions = wanted.Partitions
		if err := found.Write(&layouttest.Memory{Data: disk}, size); err != nil {
			t.Fatal(err)
		}
		if again := read(t, disk); again.Backup || again.Moved || !reflect.DeepEqual(again.Partitions, wanted.Partitions) {
			t.Fatalf("seed %d, cut %d: finished, the table is %+v", seed, cuts, again)
		}
	}
	if cuts < 100 {
		t.Errorf("%d cuts only", cuts)
	}
}

func TestTablesThatAreRefused(t *testing.T) {
	disk, _ := image(t)
	size := int64(len(disk))
	for name, change := range map[string]func(*gpt.Table){
		"overlap":     func(t *gpt.Table) { t.Partitions[1].Start = 1 * mib },
		"beyond":      func(t *gpt.Table) { t.Partitions[1].End = size },
		"in front":    func(t *gpt.Table) { t.Partitions[0].Start = 512 },
		"no sector":   func(t *gpt.Table) { t.Partitions[0].End-- },
		"long name":   func(t *gpt.Table) { t.Partitions[0].Name = strings.Repeat("x", 37) },
		"upside down": func(t *gpt.Table) { t.Partitions[0].End = t.Partitions[0].Start },
	} {
		table := read(t, disk)
		change(table)
		recorder := &layouttest.Recorder{}
		if err := table.Write(recorder, size); err == nil || recorder.Writes() > 0 {
			t.Errorf("%s: %v, %d writes; want an error and nothing written", name, err, recorder.Writes())
		}
	}
}

func TestParseGUID(t *testing.T) {
	const text = "C05B310C-5771-4AA5-9B1E-636F73690501"
	if g, err := gpt.ParseGUID(text); err != nil || g != gpt.State || g.String() != text {
		t.Errorf("ParseGUID(%q) = %v, %v; want the type of a state partition", text, g, err)
	}
	for _, bad := range []string{"", text[1:], text + "0", strings.Replace(text, "-", "0", 1), strings.Replace(text, "C", "G", 1)} {
		if _, err := gpt.ParseGUID(bad); err == nil {
			t.Errorf("ParseGUID(%q) is no error", bad)
		}
	}
}

func FuzzRead(f *testing.F) {
	small, _ := image(f)
	f.Add(small[:34*512], small[len(small)-33*512:])
	f.Fuzz(func(t *testing.T, first, last []byte) {
		disk := make([]byte, 8*mib)
		copy(disk, first)
		copy(disk[max(0, len(disk)-len(last)):], last)
		table, err := gpt.Read(bytes.NewReader(disk), int64(len(disk)))
		if err != nil {
			return
		}
		if err := table.Write(&layouttest.Memory{Data: disk}, int64(len(disk))); err != nil {
			t.Fatalf("a table that was read cannot be written: %v", err)
		}
		if again, err := gpt.Read(bytes.NewReader(disk), int64(len(disk))); err != nil || fmt.Sprint(again.Partitions) != fmt.Sprint(table.Partitions) {
			t.Fatalf("written, the table is %+v, %v; want %+v", again, err, table)
		}
	})
}
