package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

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
	io.Closer
}

// node is the device node of the partition with an index in the table, "" without one.
func (f *found) node(index int) string {
	if index < 0 {
		return ""
	}
	return partitionNode(f.path, index+1)
}

// ErrNoDisk says that no disk has the GUID.
var ErrNoDisk = errors.New("no disk has the identifier that the image was booted with")

// pause is how long to wait between two looks.
const pause = 20 * time.Millisecond

// wait finds the disk. When it is not there it has the drivers of disks loaded and waits for it: the firmware has just read from it.
func (p *Preparer) wait(guid gpt.GUID) (*found, error) {
	f, err := p.kernel.find(guid)
	if !errors.Is(err, ErrNoDisk) {
		return f, err
	}
	for end := time.Now().Add(p.Patience); ; time.Sleep(pause) {
		p.Search()
		if f, err = p.kernel.find(guid); !errors.Is(err, ErrNoDisk) || time.Now().After(end) {
			break
		}
	}
	if errors.Is(err, ErrNoDisk) {
		return nil, because(noBootDisk, "%w: what the API writes is gone with the next boot", err)
	}
	return f, err
}

// find looks at every disk. Of several with the GUID, copies of one image, the one that has a state partition is meant.
func find(guid gpt.GUID) (*found, error) {
	all, err := withGUID(guid)
	if err != nil {
		return nil, err
	}
	chosen, err := choose(all)
	for _, f := range all {
		if f != chosen {
			f.Close()
		}
	}
	return chosen, err
}

// withGUID opens every disk that has the GUID.
func withGUID(guid gpt.GUID) (all []*found, err error) {
	entries, err := os.ReadDir(sysBlock)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if f := open(e.Name()); f != nil && f.table.DiskGUID == guid {
			all = append(all, f)
		} else if f != nil {
			f.Close()
		}
	}
	return all, nil
}

func choose(all []*found) (*found, error) {
	if len(all) == 0 {
		return nil, ErrNoDisk
	}
	if len(all) == 1 {
		return all[0], nil
	}
	var names []string
	var withState []*found
	for _, f := range all {
		names = append(names, f.path)
		if stateOf(f.table) >= 0 {
			withState = append(withState, f)
		}
	}
	if len(withState) == 1 {
		return withState[0], nil
	}
	err := because(ambiguous, "%s are copies of one image, and %d of them have a state partition: remove all but one",
		strings.Join(names, " and "), len(withState))
	if len(withState) > 0 {
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
