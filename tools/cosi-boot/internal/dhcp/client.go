package dhcp

import (
	"net"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/cosi-os/cosi/tools/cosi-boot/internal/book"
)

// Firmware is what asks for something to boot.
type Firmware string

// Firmwares. What is none of them gets an address, perhaps, and nothing to boot.
const (
	BIOS     Firmware = "BIOS"
	UEFI     Firmware = "UEFI"      // 64 bits, by TFTP
	UEFIHTTP Firmware = "UEFI HTTP" // the same by HTTP, without TFTP
	IPXE     Firmware = "iPXE"      // loaded by one of the others, or from the ROM of a network card
	Unknown  Firmware = ""          // another processor, or no firmware
)

// architectures are those of option 93 (RFC 4578, and IANA's list). Much firmware of x86 with 64 bits says EFI_BC, which was meant for byte code.
var architectures = map[iana.Arch]struct {
	firmware Firmware
	arch     string
}{
	iana.INTEL_X86PC: {BIOS, "amd64"}, iana.EFI_X86_64: {UEFI, "amd64"}, iana.EFI_BC: {UEFI, "amd64"}, iana.EFI_X86_64_HTTP: {UEFIHTTP, "amd64"},
	iana.EFI_ARM64: {UEFI, "arm64"}, iana.EFI_ARM64_HTTP: {UEFIHTTP, "arm64"},
}

// classes are how option 60 of what firmware asks begins.
const (
	classPXE  = "PXEClient"
	classHTTP = "HTTPClient"
)

// optionIPXE is where iPXE puts settings of its own (https://ipxe.org/howto/dhcpd).
const optionIPXE = dhcpv4.GenericOptionCode(175)

// Client is who asks, by what it says of itself.
type Client struct {
	MAC      net.HardwareAddr
	UUIDs    []string // the two ways to read option 97: firmware does not agree on the order of its bytes
	Firmware Firmware
	Arch     string // of the images that it can boot: amd64, arm64
	BIOS     bool   // of iPXE: a BIOS has started it
	Begins   bool   // it looks for a server; later it asks the one that it has found
}

// clientOf reads what a message says of its sender.
func clientOf(m *dhcpv4.DHCPv4) Client {
	c := Client{MAC: m.ClientHWAddr, Begins: m.MessageType() == dhcpv4.MessageTypeDiscover, UUIDs: machineIDs(m.Options.Get(dhcpv4.OptionClientMachineIdentifier))}
	class := m.ClassIdentifier()
	archs := m.ClientArch()
	if !strings.HasPrefix(class, classPXE) && !strings.HasPrefix(class, classHTTP) {
		return c
	}
	if len(archs) == 0 { // RFC 4578 has it in every request; before that there were only BIOSes
		archs = []iana.Arch{iana.INTEL_X86PC}
	}
	for _, arch := range archs {
		if known, ok := architectures[arch]; ok {
			c.Firmware, c.Arch = known.firmware, known.arch
			break
		}
	}
	if strings.HasPrefix(class, classHTTP) != (c.Firmware == UEFIHTTP) {
		c.Firmware = Unknown
	}
	if c.Firmware != Unknown && isIPXE(m) {
		c.BIOS, c.Firmware = c.Firmware == BIOS, IPXE
	}
	return c
}

// isIPXE tells iPXE from the firmware that has loaded it: both come from one machine, and iPXE must not be given itself again. It says its name as user
// class, as RFC 3004 has it or as everybody did before.
func isIPXE(m *dhcpv4.DHCPv4) bool {
	return m.Options.Has(optionIPXE) || slices.Contains(m.UserClass(), "iPXE")
}

// machineIDs reads option 97: a byte 0 and a UUID, in the order of RFC 4122, or with its first three numbers as an x86 processor stores them.
func machineIDs(option []byte) []string {
	if len(option) != 17 || option[0] != 0 {
		return nil
	}
	id, err := uuid.FromBytes(option[1:])
	if err != nil || book.NoUUID(id) {
		return nil
	}
	swapped := id
	slices.Reverse(swapped[0:4])
	slices.Reverse(swapped[4:6])
	slices.Reverse(swapped[6:8])
	return []string{id.String(), swapped.String()}
}
