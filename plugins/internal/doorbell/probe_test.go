package doorbell

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// says is a program that has the kernel print something, and then does the rest.
func says(name string, rest ...asm.Instruction) *ebpf.ProgramSpec {
	code := asm.Instructions{
		asm.Mov.Imm(asm.R1, 'x'), asm.StoreMem(asm.RFP, -8, asm.R1, asm.DWord), // "x"
		asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, -8), asm.Mov.Imm(asm.R2, 2), asm.FnTracePrintk.Call(),
	}
	code = append(code, rest...)
	return &ebpf.ProgramSpec{
		Name: name, Type: ebpf.RawTracepoint, License: "GPL", ByteOrder: binary.LittleEndian, Instructions: append(code, asm.Mov.Imm(asm.R0, 0), asm.Return()),
	}
}

// A program at the tracepoint of what programs print, that prints itself: the kernel runs it for what another one prints, and not for its own.
func TestARunThatTheKernelLeavesOutIsLost(t *testing.T) {
	var name unix.Utsname
	var major, minor int
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	if major < 6 || major == 6 && minor < 2 {
		t.Skip("the kernel lets programs at raw tracepoints interrupt themselves: it would wait for itself")
	}
	probe := Probe[byte]{
		Load: func() (*ebpf.CollectionSpec, error) {
			note := asm.Instructions{
				asm.LoadMapPtr(asm.R1, 0).WithReference("notes"), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -8), asm.Mov.Imm(asm.R3, 8),
				asm.Mov.Imm(asm.R4, 0), asm.FnRingbufOutput.Call(),
			}
			return &ebpf.CollectionSpec{
				Maps: map[string]*ebpf.MapSpec{
					"notes":   {Type: ebpf.RingBuf, MaxEntries: 4096},
					"dropped": {Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1, Flags: unix.BPF_F_MMAPABLE},
				},
				Programs: map[string]*ebpf.ProgramSpec{"echoes": says("echoes", note...)},
			}, nil
		},
		Attach: []Attachment{{Program: "echoes", Function: "bpf_trace_printk"}},
		Decode: func(note []byte) (byte, bool) { return note[0], true },
	}
	l, err := probe.Open()
	if errors.Is(err, os.ErrPermission) {
		t.Skipf("this user may load no programs: %v", err)
	}
	if err != nil {
		t.Fatalf("%+v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	speaker, err := ebpf.NewProgram(says("speaks"))
	if err != nil {
		t.Fatal(err)
	}
	defer speaker.Close()
	speak := func() {
		if _, err := speaker.Run(&ebpf.RunOptions{}); err != nil {
			t.Error(err)
		}
	}
	speak()
	heard, missed := 0, uint64(0)
	err = l.Listen(ctx, func(byte) { heard++ }, func(n uint64) {
		if missed += n; missed == 1 {
			speak() // it rings once more; what it misses is asked for when it has been silent
		} else {
			cancel()
		}
	})
	if heard != 2 || missed != 2 || err != nil {
		t.Errorf("%d heard and %d lost, %v; want two of each", heard, missed, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
