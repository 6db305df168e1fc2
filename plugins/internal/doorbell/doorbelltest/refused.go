package doorbelltest

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
)

// Refused are sources that open as in a process that the kernel lets use neither eBPF nor netlink.
func Refused[N any](sources []doorbell.Source[N]) []doorbell.Source[N] {
	refused := make([]doorbell.Source[N], len(sources))
	for i, s := range sources {
		refused[i] = s
		refused[i].Open = func() (listener doorbell.Listener[N], err error) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				runtime.LockOSThread() // and ends with the goroutine
				if err = refuse(); err == nil {
					listener, err = s.Open()
				}
			}()
			<-done
			return listener, err
		}
	}
	return refused
}

// Runtime is what a generator writes to (plugintest.Runtime).
type Runtime interface {
	Wait(what string, is func() bool)
	Get(id string, spec proto.Message) *resourcepb.Metadata
}

// Fallen waits until a generator hears in a mode, and checks that it says what it does not hear, and why not in the modes before.
func Fallen(t *testing.T, r Runtime, name string, mode doorbell.Mode, unavailable ...string) {
	t.Helper()
	status := &eventspb.GeneratorStatus{}
	r.Wait("it hears in the mode "+string(mode), func() bool { return r.Get(name, status) != nil && status.GetMode() == string(mode) })
	var modes []string
	for _, u := range status.GetUnavailable() {
		modes = append(modes, u.GetMode())
		if !strings.Contains(u.GetWhy(), "not permitted") && (u.GetMode() != string(doorbell.Fentry) || u.GetWhy() != doorbell.ErrPreempts.Error()) {
			t.Errorf("%s is unavailable because of %q; want that it is not permitted, or the kernel's way", u.GetMode(), u.GetWhy())
		}
	}
	if !slices.Equal(modes, unavailable) || status.GetMessage() == "" {
		t.Errorf("generator %v; want %q unavailable, and said what is not heard", status, unavailable)
	}
}

// refuse has the kernel answer EPERM to the calling thread when it wants eBPF or a netlink socket.
func refuse() error {
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret   = unix.BPF_RET | unix.BPF_K
		// Offsets in struct seccomp_data; amd64 and arm64 are little-endian.
		number, argument0 = 0, 16
	)
	filter := []unix.SockFilter{
		{Code: load, K: number},
		{Code: equal, K: unix.SYS_BPF, Jt: 5},
		{Code: equal, K: unix.SYS_PERF_EVENT_OPEN, Jt: 4},
		{Code: equal, K: unix.SYS_SOCKET, Jf: 2},
		{Code: load, K: argument0},
		{Code: equal, K: unix.AF_NETLINK, Jt: 1},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program))); errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}
