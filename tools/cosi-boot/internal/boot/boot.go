// Package boot decides what a machine boots, and gives it that: what DHCP tells it, the loaders by TFTP, scripts, kernels and unified kernel images by
// HTTP, user data by HTTPS.
//
//	BIOS, UEFI:  DHCP ─► iPXE by TFTP ─► DHCP ─► start.ipxe ─► machine.ipxe ─► the image's script ─► its kernel ─► user data
//	iPXE in ROM: DHCP ─────────────────────────► start.ipxe ─► …
//	UEFI HTTP:   DHCP ─► uefi.efi, the unified kernel image with the machine's arguments ─► user data
//
// A machine is the MAC address in the path of what it asks for. Where the neighbour table says that whoever asks is another, it gets nothing; where
// that cannot say, it gets no user data, unless the server was told to believe it. What it says of its UUID and its serial number is believed.
package boot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/plan"
	"github.com/cosi-os/cosi/images/uki"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/book"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/dhcp"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/image"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/seen"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/tftp"
)

// Config is what a server is made of.
type Config struct {
	// HTTP and HTTPS are the URLs, without a path, under which the handlers are reached; Firmware is the one of them for firmware that boots by HTTP.
	HTTP, HTTPS, Firmware string

	Book   *book.Book
	Images *image.Store
	Seen   *seen.List
	// Neighbour returns the MAC address behind an address of the link, and false if that is not known.
	Neighbour func(netip.Addr) (net.HardwareAddr, bool)
	// Routed has a machine believed whose MAC address cannot be seen.
	Routed bool
	// Probe fails if no node's API answers at an address.
	Probe ProbeFunc
	Log   func(format string, args ...any)
}

// Server serves machines. Its parts are for those who listen.
type Server struct {
	Config
	tickets tickets

	mu      sync.Mutex // guards the fields below
	waiting map[string]netip.Addr
	wake    chan struct{}
}

// New returns a server.
func New(c Config) *Server {
	return &Server{Config: c, tickets: tickets{now: time.Now}, waiting: map[string]netip.Addr{}, wake: make(chan struct{}, 1)}
}

// Names of what is not a file of an image, and short ones for what is.
const (
	startScript   = "start.ipxe"
	machineScript = "machine.ipxe"
	extendedUKI   = "uefi.efi"
	autoexec      = "autoexec.ipxe" // iPXE asks for it, and goes on without
)

// loaders are iPXE for firmware that boots by TFTP, by the architecture. There is no BIOS but on amd64.
var loaders = map[string]map[dhcp.Firmware]string{
	"amd64": {dhcp.BIOS: plan.BIOSNetwork[1:], dhcp.UEFI: plan.UEFINetwork[1:]},
	"arm64": {dhcp.UEFI: plan.ARMNetwork[1:]},
}

// isLoader says whether a file is iPXE, for whatever firmware.
func isLoader(name string) bool {
	for _, suffixes := range plan.NetworkLoaders {
		if slices.Contains(suffixes, "."+name) {
			return true
		}
	}
	return false
}

// Answer says what DHCP tells a client to boot.
func (s *Server) Answer(c dhcp.Client) (file string, ok bool) {
	mac := c.MAC.String()
	look := s.Book.Loader
	if c.Firmware == dhcp.UEFIHTTP {
		look = s.Book.Find
	}
	_, picture, err := s.find(look, book.Machine{MAC: mac, UUIDs: c.UUIDs})
	if err == nil && picture.Arch != c.Arch {
		err = fmt.Errorf("%s is for %s: the firmware says that this machine is %s", picture.Name, picture.Arch, c.Arch)
	}
	if c.Begins {
		s.Seen.Note(mac, func(m *seen.Machine) { note(m, c, picture, err) })
	}
	if err != nil {
		return "", false
	}
	path := strings.ReplaceAll(mac, ":", "-")
	switch c.Firmware {
	case dhcp.BIOS, dhcp.UEFI:
		return path + "/" + loaders[c.Arch][c.Firmware], true
	case dhcp.UEFIHTTP:
		return s.Firmware + "/boot/" + path + "/" + extendedUKI, true
	default:
		return s.HTTP + "/boot/" + path + "/" + startScript, true
	}
}

// note says of a machine that looks for a server what it told, and what it will boot. iPXE that was loaded before goes on with that boot.
func note(m *seen.Machine, c dhcp.Client, picture *image.Image, err error) {
	if c.Firmware != dhcp.IPXE || m.Stage != seen.Loader {
		m.Begin()
		m.Firmware = string(c.Firmware)
		if c.Firmware == dhcp.IPXE {
			m.Firmware = map[bool]string{true: string(dhcp.BIOS), false: string(dhcp.UEFI)}[c.BIOS]
		}
	}
	m.UUIDs, m.Image = c.UUIDs, ""
	if err != nil {
		m.Refuse(err.Error())
		return
	}
	m.Image = picture.Name
}

// errNoImage says that a machine is not in the book, or has no image there.
var errNoImage = errors.New("no image is named for it")

// find returns what a machine boots.
func (s *Server) find(look func(book.Machine) (book.Entry, bool), m book.Machine) (book.Entry, *image.Image, error) {
	entry, ok := look(m)
	if !ok {
		return entry, nil, errNoImage
	}
	picture, err := s.Images.Open(entry.Image)
	return entry, picture, err
}

// errOther says that a machine asks in the name of another.
var errOther = errors.New("the MAC address of whoever asks is another")

// asking is a machine that asks for something.
type asking struct {
	mac      string
	verified bool // the neighbour table says that it is the one
	entry    book.Entry
	image    *image.Image
}

// ask finds out who asks for something below a directory that is called like a MAC address. It fails with fs.ErrNotExist if that is none, and with
// errOther if somebody else asks.
func (s *Server) ask(client netip.Addr, directory string) (*asking, error) {
	hardware, err := net.ParseMAC(directory)
	if err != nil || len(hardware) != 6 || strings.ReplaceAll(hardware.String(), ":", "-") != directory {
		return nil, fmt.Errorf("%q: %w", directory, fs.ErrNotExist)
	}
	a := &asking{mac: hardware.String()}
	neighbour, known := s.Neighbour(client)
	if known && neighbour.String() != a.mac {
		s.Log("%s (%s) asks in the name of %s and gets nothing", client, neighbour, a.mac)
		return nil, errOther
	}
	a.verified = known
	return a, nil
}

// resolve finds what the machine boots, by what it has said of itself before. It fails with fs.ErrNotExist if that is nothing.
func (s *Server) resolve(a *asking, look func(book.Machine) (book.Entry, bool)) error {
	was, _ := s.Seen.Get(a.mac)
	var err error
	if a.entry, a.image, err = s.find(look, book.Machine{MAC: a.mac, UUIDs: was.UUIDs, Serial: was.Serial}); err != nil {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return nil
}

// refuse notes why a machine gets nothing.
func (s *Server) refuse(mac string, err error) {
	s.Log("%s: %v", mac, err)
	s.Seen.Note(mac, func(m *seen.Machine) { m.Refuse(err.Error()) })
}

// file is something that machines read.
type file interface {
	content.Content
	io.Closer
}

// open returns a file of what a machine boots, and the stage that it has reached when it has read it, "" if none.
func (s *Server) open(a *asking, name string) (file, seen.Stage, error) {
	look := s.Book.Find
	if isLoader(name) {
		look = s.Book.Loader
	}
	if err := s.resolve(a, look); err != nil {
		return nil, "", err
	}
	switch {
	case isLoader(name):
		f, err := a.image.Open(a.image.Name + "." + name)
		return f, seen.Loader, err
	case name == extendedUKI:
		f, err := s.extend(a)
		return f, seen.Kernel, err
	}
	f, err := a.image.Open(name)
	switch strings.TrimPrefix(name, a.image.Name) {
	case image.UKI, image.Kernel:
		return f, seen.Kernel, err
	}
	return f, "", err
}

// extended is a unified kernel image with more arguments, which reads the one without.
type extended struct {
	content.Content
	io.Closer
}

// extend returns the image's unified kernel image with the machine's arguments. One that is signed stays as it is.
func (s *Server) extend(a *asking) (file, error) {
	arguments, err := s.arguments(a)
	if err != nil {
		return nil, err
	}
	f, err := a.image.Open(a.image.Name + image.UKI)
	if err != nil || arguments == "" {
		return f, err
	}
	longer, err := uki.Extend(f, arguments)
	if errors.Is(err, uki.ErrSigned) {
		s.refuse(a.mac, fmt.Errorf("%s%s is signed: it starts without the arguments of this machine, its user data among them", a.image.Name, image.UKI))
		return f, nil
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return extended{longer, f}, nil
}

// OpenTFTP returns what firmware loads by TFTP.
func (s *Server) OpenTFTP(client netip.Addr, name string) (tftp.File, error) {
	directory, base, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	a, err := s.ask(client, directory)
	if err != nil {
		return nil, err
	}
	f, _, err := s.open(a, base)
	return f, err
}

// EndedTFTP notes that firmware has a file.
func (s *Server) EndedTFTP(client netip.Addr, name string, err error) {
	if err != nil {
		if name != autoexec && !errors.Is(err, tftp.ErrUnwanted) {
			s.Log("tftp: %s: %q: %v", client, name, err)
		}
		return
	}
	directory, base, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	mac := strings.ReplaceAll(directory, "-", ":")
	stage := seen.Kernel // the unified kernel image, of firmware that was told to load it
	if isLoader(base) {
		stage = seen.Loader
	}
	s.reached(mac, client, stage)
}

// reached notes how far a machine has come.
func (s *Server) reached(mac string, client netip.Addr, stage seen.Stage) {
	s.Seen.Note(mac, func(m *seen.Machine) { m.Reach(stage); m.Address = client })
}

// Leased notes the address that a machine was given.
func (s *Server) Leased(mac net.HardwareAddr, address netip.Addr) {
	if _, ok := s.Seen.Get(mac.String()); ok {
		s.Seen.Note(mac.String(), func(m *seen.Machine) { m.Address = address })
	}
}
