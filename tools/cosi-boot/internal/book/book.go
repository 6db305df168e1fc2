// Package book reads the file that says which machine boots what: the image, more arguments of its kernel, and its user data.
//
//	default: {image: build/cosi-base-amd64}
//	machines:
//	  - {mac: "52:54:00:12:34:56", user_data: a.yaml}
//	  - {serial: XYZ123, image: "sha256:…", user_data: b.yaml, arguments: [console=ttyS1]}
//
// The boot server looks a machine up when it asks for something, so that a change of the file counts from the next boot on. Of a file that is
// wrong, each mistake is named with its line, and the one before is kept.
package book

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/cosi-os/cosi/images/strict"
)

// Entry is what machines boot.
type Entry struct {
	// MAC, UUID and Serial say which machine it is; those that are given all have to be the machine's.
	MAC    string `yaml:"mac"`
	UUID   string `yaml:"uuid"`
	Serial string `yaml:"serial"`
	// Image is the path of an image's PXE set without its suffixes, or sha256: and the id of one that was built on request.
	Image string `yaml:"image"`
	// Arguments are the kernel's, behind those of the image.
	Arguments []string `yaml:"arguments"`
	// UserData is a file.
	UserData string `yaml:"user_data"`
}

// Machine is what is known of one that asks.
type Machine struct {
	MAC    string   // as net.HardwareAddr prints it
	UUIDs  []string // the two ways to read what firmware sends, or the one that iPXE says
	Serial string
}

// MaxUserData is how many bytes of user data a node takes.
const MaxUserData = 4 << 20

// maxFile is how large the file may be.
const maxFile = 4 << 20

// Book is the file. It is safe for concurrent use.
type Book struct {
	file string
	log  func(format string, args ...any)

	mu      sync.Mutex // guards the fields below
	content *content
	time    time.Time // of the file when it was read
	size    int64
}

// content is what the file says.
type content struct {
	Default  Entry   `yaml:"default"`
	Machines []Entry `yaml:"machines"`
}

// Open reads a file.
func Open(file string, log func(format string, args ...any)) (*Book, error) {
	b := &Book{file: file, log: log}
	return b, b.read()
}

// Find returns the first entry that is the machine's, the default if none is, and false if there is no image for it.
func (b *Book) Find(m Machine) (Entry, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.read(); err != nil {
		b.log("%v; what it said before counts", err)
	}
	for _, e := range b.content.Machines {
		if e.is(m) {
			if e.Image == "" {
				e.Image = b.content.Default.Image
			}
			return e, e.Image != ""
		}
	}
	return b.content.Default, b.content.Default.Image != ""
}

// Loader returns the entry that Find does or, if there is none, one that may turn out to be the machine's when it tells its serial number, which only iPXE
// does: that entry's image has iPXE.
func (b *Book) Loader(m Machine) (Entry, bool) {
	if e, ok := b.Find(m); ok {
		return e, ok
	}
	b.mu.Lock()
	serials := slices.Clone(b.content.Machines)
	b.mu.Unlock()
	for _, e := range serials {
		if m.Serial = e.Serial; e.Serial != "" && e.is(m) {
			return b.Find(m)
		}
	}
	return Entry{}, false
}

// Images are all that the file names.
func (b *Book) Images() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := []string{b.content.Default.Image}
	for _, e := range b.content.Machines {
		all = append(all, e.Image)
	}
	return all
}

func (e *Entry) is(m Machine) bool {
	if e.MAC != "" && e.MAC != m.MAC || e.Serial != "" && e.Serial != m.Serial {
		return false
	}
	if e.UUID == "" {
		return true
	}
	for _, id := range m.UUIDs {
		if e.UUID == id {
			return true
		}
	}
	return false
}

// NoUUID tells what firmware says where a machine has no UUID: bits that are all zero or, where one could be set, all one (SMBIOS, 7.2.1). Machines
// that have it in common are not one machine.
func NoUUID(id uuid.UUID) bool { return id == uuid.Nil || id == uuid.Max }

// read reads the file if it is another than the last time. One that is wrong is read again when it has changed.
func (b *Book) read() error {
	info, err := os.Stat(b.file)
	if err != nil {
		return err
	}
	if info.ModTime().Equal(b.time) && info.Size() == b.size {
		return nil
	}
	if info.Size() > maxFile {
		return fmt.Errorf("%s: more than %d bytes", b.file, maxFile)
	}
	data, err := os.ReadFile(b.file)
	if err != nil {
		return err
	}
	b.time, b.size = info.ModTime(), info.Size()
	c, err := parse(b.file, data)
	if err != nil {
		return err
	}
	b.content = c
	return nil
}

// parse reads the text of a file. Paths in it are relative to the file's directory. The error is a strict.Problems.
func parse(file string, data []byte) (*content, error) {
	c := &content{}
	if strict.Empty(data) {
		return c, nil
	}
	read, ok := strict.Parse(file, data, c)
	if !ok {
		return nil, read.Problems
	}
	problem := func(where, format string, args ...any) { read.Problem(read.Lines[where], where, format, args...) }
	if d := c.Default; d.MAC != "" || d.UUID != "" || d.Serial != "" {
		problem("default", "is what all others boot: it has no mac, uuid or serial")
	}
	c.Default.check("default", filepath.Dir(file), problem)
	for i := range c.Machines {
		e, where := &c.Machines[i], fmt.Sprintf("machines[%d]", i)
		if e.MAC == "" && e.UUID == "" && e.Serial == "" {
			problem(where, "wants a mac, a uuid or a serial")
		}
		e.check(where, filepath.Dir(file), problem)
		for k := range c.Machines[:i] {
			if c.Machines[k].covers(e) {
				problem(where, "is a machine of machines[%d], which comes first", k)
				break
			}
		}
		if e.Image == "" && c.Default.Image == "" {
			problem(where, "has no image, and there is none in default")
		}
	}
	if len(read.Problems) > 0 {
		return nil, read.Problems
	}
	return c, nil
}

// covers reports whether every machine of other is one of e.
func (e *Entry) covers(other *Entry) bool {
	return (e.MAC != "" || e.UUID != "" || e.Serial != "") && (e.MAC == "" || e.MAC == other.MAC) && (e.UUID == "" || e.UUID == other.UUID) && (e.Serial == "" || e.Serial == other.Serial)
}

// check writes what is in e as it is compared, and finds what makes no sense.
func (e *Entry) check(where, dir string, problem func(where, format string, args ...any)) {
	if e.MAC != "" {
		mac, err := net.ParseMAC(e.MAC)
		if err != nil || len(mac) != 6 {
			problem(where+".mac", "%q is not an address of Ethernet (52:54:00:12:34:56)", e.MAC)
		}
		e.MAC = mac.String()
	}
	if e.UUID != "" {
		id, err := uuid.Parse(e.UUID)
		switch {
		case err != nil:
			problem(where+".uuid", "%q is not a UUID", e.UUID)
		case NoUUID(id):
			problem(where+".uuid", "%q is what machines say that have none", e.UUID)
		}
		e.UUID = id.String()
	}
	for i, a := range e.Arguments {
		if a == "" || strings.ContainsFunc(a, func(r rune) bool { return r <= ' ' || r > '~' }) || strings.Contains(a, "${") {
			problem(fmt.Sprintf("%s.arguments[%d]", where, i), "%q: want one argument in ASCII without white space, and without ${, which iPXE would replace", a)
		}
	}
	if e.Image != "" && !strings.HasPrefix(e.Image, "sha256:") && !filepath.IsAbs(e.Image) {
		e.Image = filepath.Join(dir, e.Image)
	}
	if e.UserData == "" {
		return
	}
	if !filepath.IsAbs(e.UserData) {
		e.UserData = filepath.Join(dir, e.UserData)
	}
	switch info, err := os.Stat(e.UserData); {
	case err != nil:
		problem(where+".user_data", "%v", err)
	case !info.Mode().IsRegular() || info.Size() > MaxUserData:
		problem(where+".user_data", "%s is not a file of at most %d bytes", e.UserData, MaxUserData)
	}
}
