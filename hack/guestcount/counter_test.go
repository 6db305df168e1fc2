package guestcount

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/tools/qemu"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// firmware returns a ROM whose program goes round a loop of two instructions n times, writes X to the
// serial port and halts.
func firmware(t *testing.T, n uint32) string {
	t.Helper()
	rom := make([]byte, 64<<10)
	at := copy(rom, []byte{0x66, 0xb9})
	binary.LittleEndian.PutUint32(rom[at:], n) // mov ecx, n
	copy(rom[at+4:], []byte{
		0x66, 0x49, 0x75, 0xfc, // dec ecx; jnz back to it
		0xba, 0xf8, 0x03, 0xb0, 'X', 0xee, // mov dx, 0x3f8; mov al, 'X'; out dx, al
		0xfa, 0xf4, // cli; hlt
	})
	copy(rom[0xfff0:], []byte{0xe9, 0x0d, 0x00}) // the first instruction: jmp to the ROM's begin
	path := filepath.Join(t.TempDir(), "rom")
	if err := os.WriteFile(path, rom, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// count runs firmware and returns what it took.
func count(t *testing.T, h qemu.Host, plugin string, n uint32) uint64 {
	t.Helper()
	c, err := newCounter()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	h.Code = firmware(t, n)
	h.Vars = firmware(t, 0) // flash that nothing runs from
	vm, err := qemu.Start(t.Context(), &h, qemu.Machine{Memory: 16, Plugin: plugin + ",socket=" + c.socket()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Kill()
	if err := c.accept(); err != nil {
		t.Fatal(err)
	}
	if _, err := vm.Console.Wait(t.Context(), 0, regexp.MustCompile("X")); err != nil {
		t.Fatal(err)
	}
	got, err := c.read()
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// A program of known length is counted to the instruction.
func TestCounterCountsEachInstruction(t *testing.T) {
	h, err := qemu.Find(t.Context(), qemu.AMD64)
	if errors.Is(err, qemu.ErrNoQEMU) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	plugin, err := build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []uint32{1, 1000, 3_000_000} {
		// jmp, mov, the loop, mov, mov, out, and maybe already cli, hlt.
		least := 2 + 2*uint64(n) + 3
		if got := count(t, *h, plugin, n); got < least || got > least+2 {
			t.Errorf("%d rounds count as %d instructions; want %d to %d", n, got, least, least+2)
		}
	}
}

func TestPluginIsBuiltOnce(t *testing.T) {
	dir := t.TempDir()
	first, err := build(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(first, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	second, err := build(t.Context(), dir)
	if err != nil || second != first {
		t.Fatalf("build = %q, %v; want %q", second, err, first)
	}
	if data, _ := os.ReadFile(first); string(data) != "kept" {
		t.Error("the plugin was built again")
	}
}

func TestMarksAreFoundOnAConsole(t *testing.T) {
	console := "BdsDxe: starting Boot0001\r\nEFI stub: Loaded initrd from device path\r\nengine: COSI 0.1.0, PID 1 after 900 ms\r\n" +
		"userdata: fw_cfg: 1 of 1 documents applied\r\nengine: stage api after 1200 ms\r\n"
	for _, m := range Marks(node.UEFI) {
		if !m.Pattern.MatchString(console) {
			t.Errorf("%s: %q is not found", m.Name, m.Pattern)
		}
	}
}

// Without its mark a part of the boot would be counted as the next one's.
func TestMarkThatDoesNotAppearIsNamed(t *testing.T) {
	marks := Marks(node.UEFI)
	var events []Event
	for _, m := range marks {
		events = append(events, Event{Name: m.Name})
	}
	if err := unseen(marks, events); err != nil {
		t.Errorf("with every mark: %v", err)
	}
	err := unseen(marks, events[:2])
	if err == nil || !strings.Contains(err.Error(), "user data: ") || !strings.Contains(err.Error(), "stage api after") || strings.Contains(err.Error(), "EFI stub") {
		t.Errorf("with the first two: %v; want that the last two were not shown", err)
	}
	if slices.ContainsFunc(Marks(node.Kernel), func(m Mark) bool { return m.Name == "firmware" }) {
		t.Error("without the firmware its mark is waited for")
	}
}
