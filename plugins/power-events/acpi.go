package powerevents

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/plugins/internal/fromkernel"
)

// From drivers/acpi/event.c: the family, its group, and the attribute that holds a struct acpi_genl_event.
const (
	acpiFamily    = "acpi_event"
	acpiGroup     = "acpi_mc_group"
	acpiAttribute = 1
	// Sizes of the names in the struct: the device's class and its own; a type and data, of 32 bits each, follow.
	acpiClassSize = 20
	acpiBusSize   = 15
	acpiEventSize = 44 // with a byte of padding behind the names
)

// From drivers/acpi/thermal.c.
const (
	acpiThermalClass = "thermal_zone"
	acpiCritical     = 0xf0
	acpiHot          = 0xf1
)

// watchACPI hears of heat by the messages of the ACPI drivers, until ctx is done. A kernel without ACPI has nothing to say.
func watchACPI(ctx context.Context, hear func(note), lost func(uint64)) error {
	group, err := acpiMulticast()
	if errors.Is(err, fs.ErrNotExist) {
		<-ctx.Done()
		return nil
	}
	if err != nil {
		return fmt.Errorf("netlink family %s: %w", acpiFamily, err)
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	if err != nil {
		return fmt.Errorf("acpi socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("acpi socket bind: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(group)); err != nil {
		return fmt.Errorf("acpi socket group %d: %w", group, err)
	}
	err = fromkernel.Receive(ctx, fd, 8<<10, func(message []byte) {
		if note, ok := fromACPI(message, doorbell.Now()); ok {
			hear(note)
		}
	}, func() { lost(1) }) // at least
	if err != nil {
		return fmt.Errorf("acpi %w", err)
	}
	return nil
}

// acpiMulticast finds the number of the group.
func acpiMulticast() (uint32, error) {
	family, err := netlink.GenlFamilyGet(acpiFamily)
	if err != nil {
		return 0, err
	}
	for _, group := range family.Groups {
		if group.Name == acpiGroup {
			return group.ID, nil
		}
	}
	return 0, fs.ErrNotExist
}

// fromACPI reads a message: a netlink and a generic netlink header, then the attribute. ok is false for what is not of heat: keys, lids and
// supplies are heard elsewhere.
func fromACPI(message []byte, at time.Duration) (n note, ok bool) {
	const headers = unix.NLMSG_HDRLEN + unix.GENL_HDRLEN
	if len(message) < headers {
		return note{}, false
	}
	attributes, err := nl.ParseRouteAttr(message[headers:])
	if err != nil {
		return note{}, false
	}
	for _, a := range attributes {
		if a.Attr.Type&nl.NLA_TYPE_MASK != acpiAttribute || len(a.Value) < acpiEventSize {
			continue
		}
		class, _, _ := bytes.Cut(a.Value[:acpiClassSize], []byte{0})
		bus, _, _ := bytes.Cut(a.Value[acpiClassSize:acpiClassSize+acpiBusSize], []byte{0})
		n = note{at: at, name: string(bytes.ToValidUTF8(bus, []byte("\uFFFD")))}
		switch binary.NativeEndian.Uint32(a.Value[acpiEventSize-8:]) {
		case acpiHot:
			n.what = hot
		case acpiCritical:
			n.what = tooHot
		}
		return n, string(class) == acpiThermalClass && n.what != 0
	}
	return note{}, false
}
