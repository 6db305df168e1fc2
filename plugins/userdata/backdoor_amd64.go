package userdata

import (
	"encoding/binary"
	"fmt"
	"runtime/debug"
)

// in is an IN from the port in dx, with all registers given and taken back.
//
//go:noescape
func in(r *registers)

// hypervisor returns what CPUID has in its leaf 0x40000000, zeros if it says that there is no hypervisor.
func hypervisor() (b, c, d uint32)

// onVMware reports whether the processor is one of VMware's virtual machines.
func onVMware() bool {
	var name []byte
	b, c, d := hypervisor()
	for _, part := range []uint32{b, c, d} {
		name = binary.LittleEndian.AppendUint32(name, part)
	}
	return string(name) == "VMwareVMware"
}

// backdoor calls the host. VMware lets every process do so, whatever its rights to ports are; any other processor answers with a general
// protection fault, which becomes an error.
func backdoor(r *registers) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("VMware's port: %v", fault)
		}
	}()
	in(r)
	return nil
}
