package storm

import (
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// lockUp has a processor execute a program for so long, in the kernel, where nothing else gets its turn until it has ended: two loops, one in the
// other, of which the outer one looks at the clock. It returns then. Loops need Linux 5.17.
func lockUp(d time.Duration) error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SocketFilter, License: "GPL", Instructions: looping(d)})
	if err != nil {
		return fmt.Errorf("lock up: %w", err)
	}
	defer program.Close()
	const header = 14 // the least that a packet has
	if _, err := program.Run(&ebpf.RunOptions{Data: make([]byte, header)}); err != nil {
		return fmt.Errorf("lock up: %w", err)
	}
	return nil
}

const (
	outerTurns = 1 << 23 // BPF_MAX_LOOPS, the most that there may be: more than take any time that is asked for
	innerTurns = 1 << 12
	end        = -8 // on the stack: when it is over
)

func looping(d time.Duration) asm.Instructions {
	number := &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	turn := &btf.FuncProto{Return: number, Params: []btf.FuncParam{{Name: "number", Type: number}, {Name: "end", Type: &btf.Pointer{Target: (*btf.Void)(nil)}}}}
	// The kernel calls a function only if it knows its type.
	begin := func(name string, linkage btf.FuncLinkage, proto *btf.FuncProto, first asm.Instruction) asm.Instruction {
		return btf.WithFuncMetadata(first.WithSymbol(name), &btf.Func{Name: name, Type: proto, Linkage: linkage})
	}
	loop := func(turns int32, function string) asm.Instructions {
		return asm.Instructions{
			asm.Mov.Imm(asm.R1, turns),
			asm.Instruction{OpCode: asm.LoadImmOp(asm.DWord), Dst: asm.R2, Src: asm.PseudoFunc, Constant: -1}.WithReference(function),
			asm.Mov.Imm(asm.R4, 0),
			asm.FnLoop.Call(),
		}
	}
	var all asm.Instructions
	all = append(all,
		begin("lock_up", btf.GlobalFunc, &btf.FuncProto{Return: number}, asm.FnKtimeGetBootNs.Call()),
		asm.LoadImm(asm.R1, d.Nanoseconds(), asm.DWord),
		asm.Add.Reg(asm.R0, asm.R1),
		asm.StoreMem(asm.RFP, end, asm.R0, asm.DWord),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, end),
	)
	all = append(all, loop(outerTurns, "outer")...)
	all = append(all, asm.Mov.Imm(asm.R0, 0), asm.Return())

	all = append(all, begin("outer", btf.StaticFunc, turn, asm.Mov.Reg(asm.R6, asm.R2)), asm.Mov.Reg(asm.R3, asm.R6))
	all = append(all, loop(innerTurns, "inner")...)
	all = append(all,
		asm.FnKtimeGetBootNs.Call(),
		asm.LoadMem(asm.R1, asm.R6, 0, asm.DWord),
		asm.JLT.Reg(asm.R0, asm.R1, "on"),
		asm.Mov.Imm(asm.R0, 1),
		asm.Return(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("on"),
		asm.Return(),
	)
	return append(all, begin("inner", btf.StaticFunc, turn, asm.Mov.Imm(asm.R0, 0)), asm.Return())
}
