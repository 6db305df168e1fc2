package doorbell

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// ErrPreempts is why programs at functions are not used on a kernel that preempts itself. When it takes the processor from a task that is in such
// a program, it does not run that for the task which has the processor then (kernel/bpf/trampoline.c, __bpf_prog_enter_recur): rings are lost in the
// middle of a storm. kprobes are run with preemption switched off.
var ErrPreempts = errors.New("the kernel preempts itself, and then leaves out programs at functions")

// ftrace is the kernel's switch for programs at functions. While it is off they are attached without an error, and nothing runs them.
const ftrace = "/proc/sys/kernel/ftrace_enabled"

// unheard fails if the kernel attaches the programs of spec, and then does not run them, or not always. Raw tracepoints have no switch, and there is
// nothing better for what they tell.
func unheard(spec *ebpf.CollectionSpec) error {
	types := map[ebpf.ProgramType]bool{}
	for _, program := range spec.Programs {
		types[program.Type] = true
	}
	if !types[ebpf.Tracing] && !types[ebpf.Kprobe] {
		return nil
	}
	// A kernel without the switch has nothing to switch off.
	if text, err := os.ReadFile(ftrace); err == nil && strings.TrimSpace(string(text)) == "0" {
		return errors.New("sysctl kernel.ftrace_enabled is 0")
	}
	var kernel unix.Utsname
	if err := unix.Uname(&kernel); err != nil {
		return fmt.Errorf("uname: %w", err)
	}
	if types[ebpf.Tracing] && preempts(unix.ByteSliceToString(kernel.Release[:]), unix.ByteSliceToString(kernel.Version[:])) {
		return ErrPreempts
	}
	return nil
}

// preempts reports whether a kernel preempts itself, by what uname(2) says of it: one that was built so, or any since Linux 7.0, which knows no
// other way on our machines (7dadeaa6e851). Before, one that can do either (PREEMPT_DYNAMIC) does not unless asked; then what it leaves out is
// counted as lost.
func preempts(release, version string) bool {
	words := strings.Fields(version)
	var major int
	_, err := fmt.Sscanf(release, "%d.", &major)
	return err == nil && major >= 7 || slices.Contains(words, "PREEMPT") || slices.Contains(words, "PREEMPT_RT")
}
