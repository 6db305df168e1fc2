// Package gpt writes GUID partition tables (UEFI Specification 2.10, chapter 5) with their
// protective MBR, by go-diskfs. The disk and ISO writers call it; the same Table and size give
// the same bytes. It adds what an image builder needs to the library: it refuses overlaps and missing
// GUIDs (the library draws random ones), and does not wait for the disk five times a table.
package gpt

import (
	"fmt"
	"os"

	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/google/uuid"
)

// Sector is the logical block size of every table written here.
const Sector = 512

// Type says what a partition is for.
type Type = gpt.Type

// Partition types.
const (
	TypeBIOSBoot        = gpt.BIOSBoot
	TypeESP             = gpt.EFISystemPartition
	TypeLinuxFilesystem = gpt.LinuxFilesystem
)

// Table is a partition table. Partitions are numbered as they stand.
type Table struct {
	DiskGUID   string
	Partitions []Partition
}

// Partition is the run of bytes from Start up to End, both multiples of Sector.
type Partition struct {
	Type       Type
	GUID       string
	Name       string // at most 36 characters
	Start, End int64
}

// overhead is what the table takes at each end of the disk: one header and 128 entries of 128
// bytes, and at the start the protective MBR before them.
const overhead = Sector + 128*128

// Write writes both copies of the table and the protective MBR of a disk of size bytes.
func (t Table) Write(f *os.File, size int64) error {
	if err := t.check(size); err != nil {
		return fmt.Errorf("partition table: %w", err)
	}
	table := &gpt.Table{GUID: t.DiskGUID, ProtectiveMBR: true, LogicalSectorSize: Sector, PhysicalSectorSize: Sector}
	for i, p := range t.Partitions {
		table.Partitions = append(table.Partitions, &gpt.Partition{
			Index: i + 1, Type: p.Type, GUID: p.GUID, Name: p.Name,
			Start: uint64(p.Start / Sector), End: uint64(p.End/Sector) - 1,
		})
	}
	if err := table.Write(unsynced{f}, size); err != nil {
		return fmt.Errorf("partition table: %w", err)
	}
	return nil
}

// unsynced is a file that is not waited for: an image that a crash cuts short is built again.
type unsynced struct{ *os.File }

func (unsynced) Sync() error { return nil }

// check fails if a GUID is missing, or partitions overlap, leave the disk or stand out of order.
func (t Table) check(size int64) error {
	if size%Sector != 0 || size < 2*overhead+Sector {
		return fmt.Errorf("disk of %d bytes", size)
	}
	if err := uuid.Validate(t.DiskGUID); err != nil {
		return fmt.Errorf("disk GUID %q: %w", t.DiskGUID, err)
	}
	end := int64(Sector + overhead)
	for i, p := range t.Partitions {
		if p.Start%Sector != 0 || p.End%Sector != 0 || p.Start < end || p.End <= p.Start || p.End > size-overhead {
			return fmt.Errorf("partition %d (%s): bytes %d to %d: want whole sectors from %d to at most %d", i+1, p.Name, p.Start, p.End, end, size-overhead)
		}
		if err := uuid.Validate(p.GUID); err != nil {
			return fmt.Errorf("partition %d (%s): GUID %q: %w", i+1, p.Name, p.GUID, err)
		}
		end = p.End
	}
	return nil
}
