package seccomp

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// assembler collects classic BPF with named targets of jumps. Jumps go forward only, as the kernel wants it.
type assembler struct {
	program []unix.SockFilter
	labels  map[string]int
	jumps   []jump
}

// jump is an instruction whose target is not known yet.
type jump struct {
	at     int
	target string
	onTrue bool
}

func (a *assembler) add(code uint16, k uint32) {
	a.program = append(a.program, unix.SockFilter{Code: code, K: k})
}

// load puts the word at an offset of seccomp_data into the accumulator.
func (a *assembler) load(offset uint32) { a.add(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset) }

// and masks the accumulator.
func (a *assembler) and(mask uint32) { a.add(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, mask) }

// answer ends the program.
func (a *assembler) answer(action uint32) { a.add(unix.BPF_RET|unix.BPF_K, action) }

// when jumps if the accumulator is k.
func (a *assembler) when(k uint32, target string) { a.jump(unix.BPF_JEQ, k, target, true) }

// unless jumps if the accumulator is not k.
func (a *assembler) unless(k uint32, target string) { a.jump(unix.BPF_JEQ, k, target, false) }

// atLeast jumps if the accumulator is k or more.
func (a *assembler) atLeast(k uint32, target string) { a.jump(unix.BPF_JGE, k, target, true) }

// anyBit jumps if the accumulator has a bit of mask.
func (a *assembler) anyBit(mask uint32, target string) { a.jump(unix.BPF_JSET, mask, target, true) }

func (a *assembler) jump(op uint16, k uint32, target string, onTrue bool) {
	a.jumps = append(a.jumps, jump{at: len(a.program), target: target, onTrue: onTrue})
	a.add(unix.BPF_JMP|op|unix.BPF_K, k)
}

// label names the next instruction.
func (a *assembler) label(name string) {
	if a.labels == nil {
		a.labels = map[string]int{}
	}
	a.labels[name] = len(a.program)
}

// assemble fills in the jumps. It fails if a label is missing or further away than a jump reaches.
func (a *assembler) assemble() ([]unix.SockFilter, error) {
	for _, j := range a.jumps {
		target, ok := a.labels[j.target]
		if !ok {
			return nil, fmt.Errorf("seccomp: jump to %q: no such label", j.target)
		}
		distance := target - j.at - 1
		if distance < 0 || distance > 255 {
			return nil, fmt.Errorf("seccomp: jump to %q: %d instructions away", j.target, distance)
		}
		if j.onTrue {
			a.program[j.at].Jt = uint8(distance)
		} else {
			a.program[j.at].Jf = uint8(distance)
		}
	}
	return a.program, nil
}
