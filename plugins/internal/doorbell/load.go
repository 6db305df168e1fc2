package doorbell

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// Load loads the programs of spec and their maps, as ebpf.NewCollection does. That would read all of the kernel's types, and load those of each
// program.
func Load(spec *ebpf.CollectionSpec) (*ebpf.Collection, error) {
	t, err := readTypes(kernelTypes, spec)
	if err != nil {
		return nil, err
	}
	maps := *spec
	maps.Programs = nil
	c, err := ebpf.NewCollection(&maps)
	if err != nil {
		return nil, err
	}
	for name, program := range spec.Programs {
		if c.Programs[name], err = t.load(program, c.Maps); err != nil {
			c.Close()
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return c, nil
}

// load loads a program.
func (t *types) load(spec *ebpf.ProgramSpec, maps map[string]*ebpf.Map) (*ebpf.Program, error) {
	var function btf.TypeID
	if spec.Type == ebpf.Tracing {
		all := t.functions[spec.AttachTo]
		if len(all) != 1 {
			return nil, fmt.Errorf("the kernel has %d functions %s", len(all), spec.AttachTo)
		}
		function = all[0]
	}
	code := spec.Copy().Instructions
	for i := range code {
		if m := maps[code[i].Reference()]; m != nil && code[i].IsLoadFromMap() {
			if err := code[i].AssociateMap(m); err != nil {
				return nil, err
			}
		}
	}
	if err := t.relocate(code, spec.ByteOrder); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := code.Marshal(&b, spec.ByteOrder); err != nil {
		return nil, err
	}
	fd, err := loadCode(spec, b.Bytes(), function)
	if err != nil {
		return nil, err
	}
	return ebpf.NewProgramFromFD(fd)
}

// relocate makes the fields that code reads those of the running kernel.
func (t *types) relocate(code asm.Instructions, order binary.ByteOrder) error {
	var places []*asm.Instruction
	var relocations []*btf.CORERelocation
	for i := range code {
		if r := btf.CORERelocationMetadata(&code[i]); r != nil {
			places, relocations = append(places, &code[i]), append(relocations, r)
		}
	}
	if len(relocations) == 0 {
		return nil
	}
	noID := func(btf.Type) (btf.TypeID, error) { return 0, errors.New("programs have no types of their own") }
	fixes, err := btf.CORERelocate(relocations, []*btf.Spec{t.spec}, order, noID)
	if err != nil {
		return err
	}
	for i := range fixes {
		if err := fixes[i].Apply(places[i]); err != nil {
			return err
		}
	}
	return nil
}

// loadAttributes are those of BPF_PROG_LOAD in union bpf_attr of include/uapi/linux/bpf.h.
type loadAttributes struct {
	kind, count       uint32
	code, license     unsafe.Pointer
	logLevel, logSize uint32
	log               unsafe.Pointer
	kernelVersion     uint32
	flags             uint32
	name              [unix.BPF_OBJ_NAME_LEN]byte
	_                 uint32 // network device
	attachType        uint32
	_, _              uint32 // types, and functions
	_                 uint64
	_, _              uint32 // lines
	_                 uint64
	_, attachTo       uint32
	_                 uint32 // another program
	_                 uint32
}

// loadCode has the kernel verify and take a program. If it does not, the error ends with why.
func loadCode(spec *ebpf.ProgramSpec, code []byte, function btf.TypeID) (fd int, err error) {
	license := append([]byte(spec.License), 0)
	a := loadAttributes{
		kind: uint32(spec.Type), count: uint32(len(code) / asm.InstructionSize), code: unsafe.Pointer(&code[0]), license: unsafe.Pointer(&license[0]),
		attachType: uint32(spec.AttachType), attachTo: uint32(function),
	}
	copy(a.name[:len(a.name)-1], spec.Name)
	load := func() error {
		n, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&a)), unsafe.Sizeof(a))
		if errno != 0 {
			return errno
		}
		fd = int(n)
		return nil
	}
	if err = load(); err == nil || errors.Is(err, unix.EPERM) {
		return fd, err
	}
	log := make([]byte, 64<<10) // of the last, Linux 6.4; before, a longer one is an error of its own
	a.logLevel, a.logSize, a.log = 1, uint32(len(log)), unsafe.Pointer(&log[0])
	if again := load(); again == nil {
		return fd, nil
	}
	return 0, fmt.Errorf("%w: %s", err, bytes.TrimSpace(log[:max(0, bytes.IndexByte(log, 0))]))
}
