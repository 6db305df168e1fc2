package kills

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cosi-os/cosi/api/layout/bootentry"
	"github.com/cosi-os/cosi/api/layout/fat"
	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/hack/blklog"
	"github.com/cosi-os/cosi/hack/bootable"
	"github.com/cosi-os/cosi/hack/bootable/bootabletest"
)

// recorded is a partition whose writes are recorded.
type recorded struct {
	*io.SectionReader
	t     *testing.T
	disk  *os.File
	log   *fakeLog
	start int64
}

func (r recorded) WriteAt(b []byte, at int64) (int, error) {
	r.log.append(r.t, 0, r.start+at, b)
	return r.disk.WriteAt(b, r.start+at)
}

func (r recorded) Sync() error {
	r.log.append(r.t, blklog.Flush, 0, nil)
	return nil
}

// replacing is a disk on which a version is replaced.
type replacing struct {
	t              *testing.T
	esp, slot      recorded
	older, to      bootable.Version
	after          recorded // what is behind the slots
	before         string
	size           int64
	file           *os.File
	forgotten, new bootentry.Entry
}

func newReplacing(t *testing.T) *replacing {
	t.Helper()
	r := &replacing{t: t, older: bootabletest.Version(t, "0"), to: bootabletest.Version(t, "2")}
	from := bootabletest.Version(t, "1")
	c := bootabletest.Contents{Files: map[string]string{}, Slots: [2]string{string(from.Slot)}}
	c.Add(from, bootentry.Entry{Number: 1, State: bootentry.Good})
	disk, size := c.Disk(t)
	if err := r.older.Add(disk, size); err != nil {
		t.Fatal(err)
	}
	r.before = filepath.Join(t.TempDir(), "before")
	if err := copyDisk(disk.Name(), r.before); err != nil {
		t.Fatal(err)
	}
	table, err := gpt.Read(disk, size)
	if err != nil {
		t.Fatal(err)
	}
	r.size = size + 1<<20 // for the state
	log := newFakeLog(t)
	r.file = log.file
	part := func(start, end int64) recorded {
		return recorded{io.NewSectionReader(disk, start, end-start), t, disk, &log, start}
	}
	r.after = part(size, r.size)
	for _, p := range table.Partitions {
		switch p.Name {
		case "esp":
			r.esp = part(p.Start, p.End)
		case "root-b":
			r.slot = part(p.Start, p.End)
		}
	}
	r.forgotten = bootentry.Entry{Number: 0, State: bootentry.Good, Root: r.older.Root}
	r.new = bootentry.Entry{Number: 2, State: bootentry.Trying, Left: bootentry.Tries, Version: r.to.Name, Root: r.to.Root}
	return r
}

// do does a step of an upgrade.
func (r *replacing) do(step string) {
	r.t.Helper()
	system, err := fat.Open(r.esp)
	if err != nil {
		r.t.Fatal(err)
	}
	write := func(path string, content []byte) error {
		return system.Write(path, int64(len(content)), bytes.NewReader(content), time.Now())
	}
	switch step {
	case "forget":
		for _, path := range []string{r.forgotten.Path(), r.forgotten.Kernel()} {
			if err == nil {
				err = system.Remove(path)
			}
		}
	case "slot":
		if _, err = r.slot.WriteAt(append(bytes.Clone(r.to.Slot), make([]byte, 512-len(r.to.Slot)%512)...), 0); err == nil {
			err = r.slot.Sync()
		}
	case "kernel":
		err = write(r.new.Kernel(), r.to.Kernel)
	case "record":
		if _, err = r.after.WriteAt(make([]byte, 4096), 0); err == nil {
			err = r.after.Sync()
		}
	case "entry":
		err = write(r.new.Path(), []byte(r.new.Text()))
	case "bless":
		err = system.Rename(r.new.Path(), bootentry.Entry{Number: 2, State: bootentry.Good}.Name())
	}
	if err != nil {
		r.t.Fatalf("%s: %v", step, err)
	}
}

// lose loses the power at many moments, and returns what is booted then, with the first thing that is wrong.
func (r *replacing) lose() (booted []string, err error) {
	r.t.Helper()
	u, err := ReadUpgrading(r.before, r.size, r.file, 0, bootable.UEFI, r.to, r.older)
	if err != nil {
		r.t.Fatal(err)
	}
	for round := range 40 {
		moment := u.Moment(1, round)
		next, err := u.Judge(r.t.Context(), moment, filepath.Join(r.t.TempDir(), "cut"))
		if err != nil {
			return booted, err
		}
		if is := next.Version.Name + " " + string(next.State); !slices.Contains(booted, is) {
			booted = append(booted, is)
		}
	}
	slices.Sort(booted)
	return booted, nil
}

func TestAnUpgradeInTheWrongOrderIsFound(t *testing.T) {
	for _, test := range []struct{ order, wrong string }{
		{"forget slot kernel record entry record bless", ""},
		{"slot forget kernel record entry bless", "version 0: no slot holds its root"},
		{"forget slot record entry kernel bless", "version 2: FAT: EFI/cosi/"},
		{"forget kernel record entry slot bless", "version 2: no slot holds its root"},
	} {
		r := newReplacing(t)
		for step := range strings.FieldsSeq(test.order) {
			r.do(step)
		}
		booted, err := r.lose()
		switch want := []string{"1 Good", "2 Good", "2 Trying"}; {
		case test.wrong == "" && (err != nil || !slices.Equal(booted, want)):
			t.Errorf("%s: %q, %v; want %q", test.order, booted, err, want)
		case test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong)):
			t.Errorf("%s: %v; want %q", test.order, err, test.wrong)
		}
	}
}
