package powerevents

import (
	"bytes"
	"encoding/binary"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
)

// what happened: enum what of power.bpf.c.
type what uint32

const (
	powerButton what = 1
	sleepButton what = 2
	lidClosed   what = 3
	lidOpened   what = 4
	supply      what = 5
	hot         what = 6
	tooHot      what = 7
)

var actions = map[what]string{
	powerButton: "PowerButton", sleepButton: "SleepButton", lidClosed: "LidClosed", lidOpened: "LidOpened", hot: "Hot", tooHot: "TooHot",
}

// note is what the kernel said of a device.
type note struct {
	at   time.Duration // of CLOCK_BOOTTIME
	what what
	name string // empty for a supply
}

func (n note) isHeat() bool { return n.what == hot || n.what == tooHot }

// noteSize is that of struct note in power.bpf.c.
const noteSize = 8 + 4 + 4 + 48

// decode reads a struct note.
func decode(b []byte) (note, bool) {
	if len(b) < noteSize {
		return note{}, false
	}
	name, _, _ := bytes.Cut(b[16:noteSize], []byte{0})
	n := note{
		at: time.Duration(binary.NativeEndian.Uint64(b)), what: what(binary.NativeEndian.Uint32(b[8:])), name: string(bytes.ToValidUTF8(name, []byte("\uFFFD"))),
	}
	return n, actions[n.what] != "" || n.what == supply
}

// moment is the same on two clocks.
type moment struct {
	boottime time.Duration
	clock    time.Time
}

// event is what happened at a time before the moment.
func (m moment) event(at time.Duration, action, device, message string) *powerpb.PowerEvent {
	return &powerpb.PowerEvent{
		Action: action, Device: device, BoottimeNs: uint64(at), Time: timestamppb.New(doorbell.Boottime(at, m.boottime, m.clock)), Message: message,
	}
}
