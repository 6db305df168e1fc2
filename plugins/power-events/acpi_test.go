package powerevents

import (
	"context"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// said is a message of the kernel as drivers/acpi/event.c writes it: the names end in padding to a word of 32 bits.
func said(class, bus string, kind uint32) []byte {
	b := binary.NativeEndian.AppendUint32(nil, unix.NLMSG_HDRLEN+unix.GENL_HDRLEN+4+acpiEventSize)
	b = append(b, make([]byte, unix.NLMSG_HDRLEN-4)...)
	b = append(b, 1, 1, 0, 0) // ACPI_GENL_CMD_EVENT, version
	b = binary.NativeEndian.AppendUint16(b, 4+acpiEventSize)
	b = binary.NativeEndian.AppendUint16(b, acpiAttribute)
	names := make([]byte, acpiClassSize+acpiBusSize+1)
	copy(names, class)
	copy(names[acpiClassSize:], bus)
	b = binary.NativeEndian.AppendUint32(append(b, names...), kind)
	return binary.NativeEndian.AppendUint32(b, 1)
}

func TestFromACPI(t *testing.T) {
	for name, tc := range map[string]struct {
		message []byte
		want    note
	}{
		"hot":          {said("thermal_zone", "LNXTHERM:00", 0xf1), note{at: 7, what: hot, name: "LNXTHERM:00"}},
		"critical":     {said("thermal_zone", "LNXTHERM:00", 0xf0), note{at: 7, what: tooHot, name: "LNXTHERM:00"}},
		"longest name": {said("thermal_zone", "LNXTHERM:000001", 0xf1), note{at: 7, what: hot, name: "LNXTHERM:000001"}},
	} {
		if n, ok := fromACPI(tc.message, 7); !ok || n != tc.want {
			t.Errorf("%s: fromACPI = %+v, %v; want %+v", name, n, ok, tc.want)
		}
	}
	whole := said("thermal_zone", "LNXTHERM:00", 0xf1)
	for name, message := range map[string][]byte{
		"nothing": nil, "headers": whole[:20], "cut short": whole[:len(whole)-1], "button": said("button/power", "LNXPWRBN:00", 0x80),
		"button of that number": said("button/power", "LNXPWRBN:00", 0xf1), "temperature changed": said("thermal_zone", "LNXTHERM:00", 0x80),
	} {
		if n, ok := fromACPI(message, 7); ok {
			t.Errorf("%s: fromACPI = %+v; want nothing", name, n)
		}
	}
}

func FuzzFromACPI(f *testing.F) {
	f.Add(said("thermal_zone", "LNXTHERM:00", 0xf1))
	f.Fuzz(func(t *testing.T, message []byte) {
		if n, ok := fromACPI(message, 0); ok && n.what != hot && n.what != tooHot {
			t.Errorf("fromACPI = %+v", n)
		}
	})
}

// TestACPIIsHeardUntilTheEnd: with the kernel of this machine, with or without ACPI.
func TestACPIIsHeardUntilTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- watchACPI(ctx, func(note) {}, func(uint64) {}) }()
	select {
	case err := <-done:
		t.Fatalf("watchACPI = %v before the end", err)
	default:
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("watchACPI = %v", err)
	}
}
