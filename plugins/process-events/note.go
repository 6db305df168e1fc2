package processevents

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
)

// what happened: enum what of process.bpf.c.
type what uint32

const (
	oomKilled      what = 1
	crashed        what = 2
	unexpectedExec what = 3
)

var actions = map[what]string{oomKilled: "OOMKilled", crashed: "Crashed", unexpectedExec: "UnexpectedExec"}

// note is what the kernel said of a process.
type note struct {
	at     time.Duration // of CLOCK_BOOTTIME
	what   what
	pid    uint32
	code   exitCode
	reason *reason // nil if it is not known
	comm   string
	file   string
	cgroup string
}

// exitCode is how a process ended, as wait(2) tells it.
type exitCode uint32

func (c exitCode) signal() unix.Signal { return unix.Signal(c & 0x7f) }
func (c exitCode) dumped() bool        { return c&0x80 != 0 }

// reason is why a signal was sent: si_code of sigaction(2).
type reason int32

// Sizes of struct note in process.bpf.c: eight bytes of time and six words of 32 bits, then texts.
const (
	commAt   = 8 + 6*4
	fileAt   = commAt + 16
	groupAt  = fileAt + 128
	levels   = 6
	nameSize = 64
	noteSize = groupAt + levels*nameSize
)

// decode reads a struct note.
func decode(b []byte) (note, bool) {
	if len(b) < noteSize {
		return note{}, false
	}
	word := func(at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	n := note{
		at: time.Duration(binary.NativeEndian.Uint64(b)), what: what(word(8)), pid: word(12), code: exitCode(word(16)),
		comm: text(b[commAt:fileAt]), file: text(b[fileAt:groupAt]), cgroup: group(b[groupAt:noteSize]),
	}
	if word(24) != 0 {
		why := reason(word(20))
		n.reason = &why
	}
	return n, actions[n.what] != ""
}

// text ends at the first zero. A program may call itself what it likes; in an event it is text.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return strings.ToValidUTF8(string(b), "\uFFFD")
}

// group reads the names of control groups, the innermost first. The root's is empty; without it some are missing.
func group(b []byte) string {
	whole := ""
	for ; len(b) >= nameSize; b = b[nameSize:] {
		name := text(b[:nameSize])
		if name == "" {
			return "/" + whole
		}
		whole = path.Join(name, whole)
	}
	return "…/" + whole
}

// plugins is where the control groups of plugins are.
const plugins = "/cosi/plugins/"

func (n note) event(when func(time.Duration) time.Time) *eventspb.ProcessEvent {
	e := &eventspb.ProcessEvent{
		Action: actions[n.what], Process: n.comm, Pid: n.pid, Cgroup: n.cgroup, BoottimeNs: uint64(n.at), Time: timestamppb.New(when(n.at)),
		CoreDumped: n.code.dumped(), Executable: n.file, Message: n.message(),
	}
	if below, ok := strings.CutPrefix(n.cgroup, plugins); ok {
		e.Plugin, _, _ = strings.Cut(below, "/")
	}
	if s := n.code.signal(); s != 0 {
		e.Signal = unix.SignalName(s)
	}
	return e
}

// sent are reasons of any signal (include/uapi/asm-generic/siginfo.h).
var sent = map[reason]string{
	0: "sent by a process", -1: "sent by a process", -6: "sent by a thread", 0x80: "sent by the kernel",
}

// faults are reasons of signals that the kernel sends for what a program did.
var faults = map[unix.Signal]map[reason]string{
	unix.SIGILL:  {1: "illegal opcode", 2: "illegal operand", 5: "privileged opcode"},
	unix.SIGFPE:  {1: "integer divided by zero", 2: "integer overflow", 3: "divided by zero"},
	unix.SIGSEGV: {1: "address not mapped", 2: "access not permitted at the address", 4: "protection key"},
	unix.SIGBUS:  {1: "address not aligned", 2: "no memory behind the address", 3: "object-specific hardware error", 4: "memory error, action required"},
	unix.SIGTRAP: {1: "breakpoint", 2: "trace trap"},
	unix.SIGSYS:  {1: "system call refused by seccomp"},
}

func (n note) message() string {
	if n.reason == nil {
		return ""
	}
	if words, ok := sent[*n.reason]; ok {
		return words
	}
	if words, ok := faults[n.code.signal()][*n.reason]; ok {
		return words
	}
	return fmt.Sprintf("code %d", *n.reason)
}
