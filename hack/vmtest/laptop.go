package vmtest

import (
	_ "embed"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

//go:embed laptop.asl
var laptopSource []byte

// Laptop is what QEMU's machines lack: an AC adapter, a battery, a lid, a sleep button and a thermal zone. laptop.asl describes them in the
// words of firmware, so that the kernel's own drivers find them, hear of changes, and ask how things are.
type Laptop struct {
	Extra []string // for Options

	listener *net.UnixListener
	conn     net.Conn // once the VM runs
}

// Part of a Laptop.
type Part byte

// The parts, by their numbers in laptop.asl.
const (
	Adapter       Part = 0x80 // 0 or 1: plugged in. The battery is charged then, else it is discharged.
	Battery       Part = 0x81 // in percent; low from 10 on, critical from 3 on
	SilentBattery Part = 0x82 // the same, without a word to the kernel
	Lid           Part = 0x83 // 0 or 1: open
	SleepButton   Part = 0x84 // is pressed, whatever is set
	Temperature   Part = 0x85 // in degrees Celsius; the trips are at 70 (passive), 90 (hot) and 105 (critical)
)

// NewLaptop describes a laptop that is plugged in, open and cool, with a battery half full. It serves one VM. Without iasl the test is skipped,
// except where CI is set.
func NewLaptop(t testing.TB) *Laptop {
	t.Helper()
	source, table := filepath.Join(t.TempDir(), "laptop.asl"), filepath.Join(t.TempDir(), "laptop.aml")
	if err := os.WriteFile(source, laptopSource, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "iasl", "-we", "-p", table, source)
	dir, err := os.MkdirTemp("", "cosi") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "laptop")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l := &Laptop{
		listener: listener,
		Extra:    []string{"-acpitable", "file=" + table, "-chardev", "socket,id=laptop,path=" + socket, "-serial", "chardev:laptop"},
	}
	t.Cleanup(func() {
		listener.Close()
		if l.conn != nil {
			l.conn.Close()
		}
		os.RemoveAll(dir)
	})
	return l
}

// Set sets a part, and has it notify the kernel.
func (l *Laptop) Set(t testing.TB, part Part, state byte) {
	t.Helper()
	if l.conn == nil {
		if err := l.listener.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		var err error
		if l.conn, err = l.listener.Accept(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.conn.Write([]byte{byte(part), state}); err != nil {
		t.Fatal(err)
	}
}
