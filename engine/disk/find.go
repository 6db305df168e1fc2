package disk

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cosi-os/cosi/api/layout/gpt"
)

// found is a disk with our partition table. It is open, for writing too if it can be.
type found struct {
	device
	path     string
	size     int64
	readOnly bool
	table    *gpt.Table
}

// device is a whole disk.
type device interface {
	gpt.Disk
	io.ReaderAt
	io.Closer
}

// nodes are the device nodes of the partitions in the table.
func (f *found) nodes() (all []string) {
	for index := range f.table.Partitions {
		all = append(all, f.node(index))
	}
	return all
}

// node is the device node of the partition with an index in the table, "" without one.
func (f *found) node(index int) string {
	if index < 0 {
		return ""
	}
	return partitionNode(f.path, index+1)
}

// closeAll closes disks but one.
func closeAll(disks []*found, except *found) {
	for _, f := range disks {
		if f != except {
			f.Close()
		}
	}
}

// disks opens every disk that has a table.
func disks() (all []*found, err error) {
	entries, err := os.ReadDir(sysBlock)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if f := open(e.Name()); f != nil {
			all = append(all, f)
		}
	}
	return all, nil
}

// find returns the disk that a partition with the root is on.
func find(r Root, partition string) (*found, error) {
	all, err := disks()
	if err != nil {
		return nil, err
	}
	chosen, err := choose(all, r, partition)
	closeAll(all, chosen)
	return chosen, err
}

// choose fails when the root could as well have been taken from another disk, a copy of the image, and the state would be that one's.
func choose(all []*found, r Root, partition string) (*found, error) {
	at := slices.IndexFunc(all, func(f *found) bool { return slices.Contains(f.nodes(), partition) })
	if at < 0 {
		return nil, because(noBootDisk, "%s is on no disk that can be read: what the API writes is gone with the next boot", partition)
	}
	names, states, theirs := []string{all[at].path}, 0, 0
	if stateOf(all[at].table) >= 0 {
		states++
	}
	for i, f := range all {
		if _, err := r.on(f); i == at || err != nil {
			continue
		}
		names = append(names, f.path)
		if stateOf(f.table) >= 0 {
			states, theirs = states+1, theirs+1
		}
	}
	if len(names) == 1 || states == 1 && theirs == 0 {
		return all[at], nil
	}
	err := because(ambiguous, "%s are copies of one image, and %d of them have a state partition: remove all but one", strings.Join(names, " and "), states)
	if states > 0 {
		err = frozen(err)
	}
	return nil, err
}

const sysBlock = "/sys/class/block"

// open opens a whole disk, nil if it is none, or has no table that can be read.
func open(name string) *found {
	dir := filepath.Join(sysBlock, name)
	sectors, err := number(filepath.Join(dir, "size"))
	if err != nil || sectors == 0 {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		return nil
	}
	if strings.HasPrefix(name, "loop") || strings.HasPrefix(name, "dm-") || strings.HasPrefix(name, "ram") || strings.HasPrefix(name, "zram") {
		return nil
	}
	f := &found{path: filepath.Join("/dev", name), size: sectors * gpt.Sector}
	ro, _ := number(filepath.Join(dir, "ro"))
	f.readOnly = ro != 0
	mode := os.O_RDWR
	if f.readOnly {
		mode = os.O_RDONLY
	}
	file, err := os.OpenFile(f.path, mode, 0)
	if err != nil {
		return nil
	}
	f.device = file
	if f.table, err = gpt.Read(file, f.size); err != nil {
		file.Close()
		return nil
	}
	return f
}

func number(path string) (int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}
