package processevents

import (
	"encoding/binary"
	"reflect"
	"strings"
	"testing"
	"time"
)

// written is a struct note as the probe writes it, with a control group below the root's.
func written(n note) []byte {
	b := binary.NativeEndian.AppendUint64(nil, uint64(n.at))
	why, has := reason(0), uint32(0)
	if n.reason != nil {
		why, has = *n.reason, 1
	}
	for _, word := range []uint32{uint32(n.what), n.pid, uint32(n.code), uint32(why), has, 0} {
		b = binary.NativeEndian.AppendUint32(b, word)
	}
	field := func(text string, size int) { b = append(b, append([]byte(text), make([]byte, size-len(text))...)...) }
	field(n.comm, 16)
	field(n.file, 128)
	names := strings.Split(n.cgroup[1:], "/")
	for i := range levels {
		name := ""
		if i < len(names) {
			name = names[len(names)-1-i]
		}
		field(name, nameSize)
	}
	return b
}

func because(r reason) *reason { return &r }

func TestDecode(t *testing.T) {
	for _, n := range []note{
		{at: time.Second, what: oomKilled, pid: 71, code: 9, comm: "plugins", cgroup: "/cosi/plugins/mount"},
		{at: 2, what: crashed, pid: 72, code: 0x8b, reason: because(-6), comm: "fifteen-letters", cgroup: "/"},
		{at: 3, what: unexpectedExec, pid: 73, comm: "x", file: "/proc/self/fd/5", cgroup: "/a/b/c/d/e"},
	} {
		if got, ok := decode(append(written(n), 0)); !ok || !reflect.DeepEqual(got, n) {
			t.Errorf("decode = %+v, %v; want %+v", got, ok, n)
		}
	}
	if got, ok := decode(written(note{what: crashed, cgroup: "/1/2/3/4/5/6/7"})); !ok || got.cgroup != "…/2/3/4/5/6/7" {
		t.Errorf("a group too deep: %q, %v; want it said that some is missing", got.cgroup, ok)
	}
	whole := written(note{what: crashed, cgroup: "/"})
	for what, b := range map[string][]byte{
		"nothing": nil, "one byte short": whole[:len(whole)-1], "nothing that we know": written(note{what: 4, cgroup: "/"}), "zero": written(note{cgroup: "/"}),
	} {
		if n, ok := decode(b); ok {
			t.Errorf("%s: decode = %+v", what, n)
		}
	}
}

// FuzzDecode: whatever is read can be written as an event.
func FuzzDecode(f *testing.F) {
	f.Add(written(note{what: crashed, pid: 5, code: 11, comm: "a\xff", cgroup: "/cosi/plugins/a"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, ok := decode(b)
		if !ok {
			return
		}
		e := n.event(func(time.Duration) time.Time { return time.Unix(0, 0) })
		for _, text := range []string{e.GetProcess(), e.GetExecutable(), e.GetCgroup(), e.GetPlugin()} {
			if strings.ToValidUTF8(text, "") != text || strings.Contains(text, "\x00") {
				t.Errorf("%q in %v", text, e)
			}
		}
	})
}

func TestEventsSayWhoAndWhy(t *testing.T) {
	for _, tc := range []struct {
		n                       note
		plugin, signal, message string
		dumped                  bool
	}{
		{note{what: oomKilled, code: 9, cgroup: "/cosi/plugins/mount"}, "mount", "SIGKILL", "", false},
		{note{what: crashed, code: 0x8b, reason: because(1), cgroup: "/cosi/plugins/mount/deeper"}, "mount", "SIGSEGV", "address not mapped", true},
		{note{what: crashed, code: 6, reason: because(-6), cgroup: "/cosi/runtime"}, "", "SIGABRT", "sent by a thread", false},
		{note{what: crashed, code: 4, reason: because(0x80)}, "", "SIGILL", "sent by the kernel", false},
		{note{what: crashed, code: 4, reason: because(77)}, "", "SIGILL", "code 77", false},
		{note{what: unexpectedExec, cgroup: "/cosi/plugins"}, "", "", "", false},
	} {
		e := tc.n.event(func(time.Duration) time.Time { return time.Unix(9, 0) })
		if e.GetAction() != actions[tc.n.what] || e.GetPlugin() != tc.plugin || e.GetSignal() != tc.signal || e.GetMessage() != tc.message || e.GetCoreDumped() != tc.dumped || e.GetTime().GetSeconds() != 9 {
			t.Errorf("event of %+v = %v; want %q, %q, %q, %v", tc.n, e, tc.plugin, tc.signal, tc.message, tc.dumped)
		}
	}
}
