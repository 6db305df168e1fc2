package gpt

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	diskfsgpt "github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/cosi-os/cosi/images/internal/judge"
)

const testSize = 64 << 20

func testTable() Table {
	return Table{DiskGUID: "01234567-89AB-CDEF-0123-456789ABCDEF", Partitions: []Partition{
		{Type: TypeBIOSBoot, GUID: "11111111-2222-3333-4444-555555555501", Name: "bios-boot", Start: 1 << 20, End: 2 << 20},
		{Type: TypeESP, GUID: "11111111-2222-3333-4444-555555555502", Name: "esp", Start: 2 << 20, End: 63 << 20},
	}}
}

func write(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(testSize); err != nil {
		t.Fatal(err)
	}
	if err := testTable().Write(f, testSize); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestSgdiskFindsNoProblems(t *testing.T) {
	out := judge.Run(t, "sgdisk", "-v", "-p", write(t).Name())
	for _, want := range []string{"No problems found", "01234567-89AB-CDEF-0123-456789ABCDEF", "EF02  bios-boot", "EF00  esp"} {
		if !strings.Contains(out, want) {
			t.Errorf("sgdisk -v -p does not say %q:\n%s", want, out)
		}
	}
}

// The two copies are read on their own: after the first is broken, the second must do.
func TestEitherCopyIsEnough(t *testing.T) {
	f := write(t)
	for _, broken := range []string{"neither", "first"} {
		if broken == "first" {
			if _, err := f.WriteAt(make([]byte, Sector), Sector); err != nil {
				t.Fatal(err)
			}
		}
		got, err := diskfsgpt.Read(f, Sector, Sector)
		if err != nil {
			t.Fatalf("%s broken: %v", broken, err)
		}
		if got.RecoveredFromBackup != (broken == "first") {
			t.Errorf("%s broken: the copy at the end was used: %v", broken, got.RecoveredFromBackup)
		}
		for i, want := range testTable().Partitions {
			p := got.Partitions[i]
			if p.Name != want.Name || p.Type != want.Type || p.GUID != want.GUID || int64(p.Start)*Sector != want.Start || int64(p.End+1)*Sector != want.End {
				t.Errorf("%s broken: partition %d reads %+v; want %+v", broken, i+1, p, want)
			}
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	for _, tc := range []struct {
		want   string
		size   int64
		change func(*Table)
	}{
		{"partition 2 (esp): bytes", testSize, func(t *Table) { t.Partitions[1].Start -= Sector }},
		{"partition 1 (bios-boot): bytes", testSize, func(t *Table) { t.Partitions[0].Start = 512 }},
		{"partition 1 (bios-boot): bytes", testSize, func(t *Table) { t.Partitions[0].Start++ }},
		{"partition 2 (esp): bytes", 63 << 20, func(t *Table) {}},
		{`partition 2 (esp): GUID "x"`, testSize, func(t *Table) { t.Partitions[1].GUID = "x" }},
		{`disk GUID ""`, testSize, func(t *Table) { t.DiskGUID = "" }},
		{"maximum size is 36", testSize, func(t *Table) { t.Partitions[0].Name = strings.Repeat("n", 37) }},
		{"disk of 1000 bytes", 1000, func(t *Table) {}},
	} {
		table := testTable()
		tc.change(&table)
		f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := table.Write(f, tc.size); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("Write = %v; want an error with %q", err, tc.want)
		}
	}
}
