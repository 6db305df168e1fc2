package device

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// filter says which devices the processes of a control group may open, whatever their capabilities and the modes of the nodes: those in
// its map. Nobody makes a device node. It is a BPF program, BPF_PROG_TYPE_CGROUP_DEVICE (Linux 4.15), which the kernel also asks when
// mount(2) opens a block device.
type filter struct {
	devices, program int
	told             map[key]uint32 // what may be done with a device, if anything
}

// key is that of the map, as the program makes it on its stack. The value is the access that is allowed, BPF_DEVCG_ACC_*.
type key struct{ kind, major, minor uint32 }

// maxDevices is how many a plugin may open: nobody's machine has more.
const maxDevices = 4096

const (
	mayRead  = uint32(unix.BPF_DEVCG_ACC_READ)
	mayWrite = uint32(unix.BPF_DEVCG_ACC_WRITE)
)

// everybodys devices: null, zero, full, random, urandom, tty.
var everybodys = []key{
	{unix.BPF_DEVCG_DEV_CHAR, 1, 3}, {unix.BPF_DEVCG_DEV_CHAR, 1, 5}, {unix.BPF_DEVCG_DEV_CHAR, 1, 7},
	{unix.BPF_DEVCG_DEV_CHAR, 1, 8}, {unix.BPF_DEVCG_DEV_CHAR, 1, 9}, {unix.BPF_DEVCG_DEV_CHAR, 5, 0},
}

// newFilter returns one that lets everybody's devices through. It fails where the kernel has no such programs.
func newFilter() (*filter, error) {
	devices, err := bpf(unix.BPF_MAP_CREATE, unsafe.Pointer(&struct{ kind, keySize, valueSize, entries, flags uint32 }{
		unix.BPF_MAP_TYPE_HASH, uint32(unsafe.Sizeof(key{})), 4, maxDevices, unix.BPF_F_NO_PREALLOC,
	}), 20)
	if err != nil {
		return nil, fmt.Errorf("device filter: map: %w", err)
	}
	f := &filter{devices: devices, told: map[key]uint32{}}
	for _, k := range everybodys {
		if err := f.allow(k, mayRead|mayWrite); err != nil {
			return nil, err
		}
	}
	code, license := filterCode(devices), []byte("Apache-2.0\x00")
	attributes := struct {
		kind, count   uint32
		code, license unsafe.Pointer
		rest          [4]uint64 // log and kernel version: none
	}{kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(code)), code: unsafe.Pointer(&code[0]), license: unsafe.Pointer(&license[0])}
	f.program, err = bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attributes), unsafe.Sizeof(attributes))
	if err != nil {
		return nil, fmt.Errorf("device filter: program: %w", err)
	}
	return f, nil
}

// instruction of BPF: https://docs.kernel.org/bpf/standardization/instruction-set.html
type instruction struct {
	code      uint8
	registers uint8 // the source's number stands in the high half
	offset    int16
	immediate int32
}

// filterCode looks the device up and compares: it returns 1 if the map has it and allows all that is asked for.
func filterCode(devices int) []instruction {
	const (
		load    = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
		store   = unix.BPF_STX | unix.BPF_MEM | unix.BPF_W
		move    = unix.BPF_ALU64 | unix.BPF_MOV
		lookup  = 1 // bpf_map_lookup_elem
		pointer = 1 // BPF_PSEUDO_MAP_FD
	)
	return []instruction{
		{load, 0x16, 0, 0}, // r6 = access << 16 | kind; r1 is struct bpf_cgroup_dev_ctx
		{move | unix.BPF_X, 0x62, 0, 0},
		{unix.BPF_ALU64 | unix.BPF_AND | unix.BPF_K, 0x02, 0, 0xffff},
		{store, 0x2a, -12, 0}, // key.kind; r10 is the end of the stack
		{load, 0x12, 4, 0},
		{store, 0x2a, -8, 0}, // key.major
		{load, 0x12, 8, 0},
		{store, 0x2a, -4, 0}, // key.minor
		{move | unix.BPF_X, 0xa2, 0, 0},
		{unix.BPF_ALU64 | unix.BPF_ADD | unix.BPF_K, 0x02, 0, -12},
		{unix.BPF_LD | unix.BPF_IMM | unix.BPF_DW, pointer<<4 | 1, 0, int32(devices)},
		{},
		{unix.BPF_JMP | unix.BPF_CALL, 0, 0, lookup},
		{unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, 0x00, 7, 0}, // not there: refuse
		{load, 0x01, 0, 0}, // r1 = what is allowed
		{unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K, 0x06, 0, 16},
		{unix.BPF_ALU | unix.BPF_XOR | unix.BPF_K, 0x01, 0, -1},
		{unix.BPF_ALU | unix.BPF_AND | unix.BPF_X, 0x16, 0, 0},
		{unix.BPF_JMP | unix.BPF_JNE | unix.BPF_K, 0x06, 2, 0}, // more is asked for: refuse
		{move | unix.BPF_K, 0x00, 0, 1},
		{unix.BPF_JMP | unix.BPF_EXIT, 0, 0, 0},
		{move | unix.BPF_K, 0x00, 0, 0},
		{unix.BPF_JMP | unix.BPF_EXIT, 0, 0, 0},
	}
}

// allow sets what may be done with a device; 0 is nothing. As long as a system call is at a map, the kernel runs no kprobe on its processor
// (bpf_disable_instrumentation), and a generator misses what happens to devices there: so what is so already takes none, and else nobody else runs.
func (f *filter) allow(k key, access uint32) error {
	if f.told[k] == access {
		return nil
	}
	attributes := struct {
		devices    uint32
		_          uint32
		key, value unsafe.Pointer
		flags      uint64
	}{devices: uint32(f.devices), key: unsafe.Pointer(&k), value: unsafe.Pointer(&access)}
	var err error
	undisturbed(func() { _, err = bpf(unix.BPF_MAP_UPDATE_ELEM, unsafe.Pointer(&attributes), unsafe.Sizeof(attributes)) })
	if err != nil {
		return fmt.Errorf("device filter: device %d:%d: %w", k.major, k.minor, err)
	}
	f.told[k] = access
	return nil
}

// undisturbed runs f while no task of usual priority may get the processor from it, as it may in the middle of a system call where the kernel
// preempts itself. Where this is not permitted it runs it as it is.
func undisturbed(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if usual, err := unix.SchedGetAttr(0, 0); err == nil {
		first := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1, Flags: unix.SCHED_FLAG_RESET_ON_FORK}
		if unix.SchedSetAttr(0, &first, 0) == nil {
			defer unix.SchedSetAttr(0, usual, 0)
		}
	}
	f()
}

// attach puts the filter on a control group, and on all below it. It stays there until the group is removed.
func (f *filter) attach(group *os.File) error {
	attributes := struct{ group, program, kind, flags uint32 }{uint32(group.Fd()), uint32(f.program), unix.BPF_CGROUP_DEVICE, 0}
	_, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attributes), unsafe.Sizeof(attributes))
	if err != nil {
		return fmt.Errorf("device filter: %s: %w", group.Name(), err)
	}
	return nil
}

// Filtered reports whether the kernel asks a filter about the devices that processes of a control group, a directory, open.
func Filtered(group string) bool {
	f, err := os.Open(group)
	if err != nil {
		return false
	}
	defer f.Close()
	attributes := struct {
		group, kind, query, flags uint32
		ids                       uint64
		count, _                  uint32
	}{group: uint32(f.Fd()), kind: unix.BPF_CGROUP_DEVICE}
	_, err = bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attributes), unsafe.Sizeof(attributes))
	return err == nil && attributes.count > 0
}

// bpf is the system call. What the attributes point to is theirs: pointers and not numbers, so that it stays where it is.
func bpf(command uintptr, attributes unsafe.Pointer, size uintptr) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(attributes), size)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
