// Package crash is what stands behind every goroutine of PID 1: a panic there would end in a kernel panic whose trace scrolls the
// reason away. Errors that Go cannot recover from (out of memory, concurrent map writes) still end so; kernel.panic reboots then.
package crash

import (
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// delay is how long the reason stays on the screen.
const delay = 30 * time.Second

// Guard is deferred first thing in a goroutine. Without a panic it does nothing; in another process than PID 1 the panic goes on;
// in PID 1 it does not return: see Fatal.
func Guard() {
	reason := recover()
	if reason == nil {
		return
	}
	if os.Getpid() != 1 {
		panic(reason)
	}
	os.Stderr.Write(debug.Stack())
	Fatal(fmt.Sprint("panic: ", reason))
}

// Fatal prints the reason as the last thing on every console, and reboots after 30 seconds. Only PID 1 calls it.
func Fatal(reason string) {
	tell(reason)
	time.Sleep(delay)
	tell(reason) // processes went on printing
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	os.Exit(1) // the kernel panics, and reboots
}

// tell writes by way of the kernel, which prints an emergency on all consoles.
func tell(reason string) {
	line := "cosi: PID 1 cannot go on: " + reason + "; reboot in 30 s"
	if err := os.WriteFile("/dev/kmsg", []byte("<0>"+line+"\n"), 0); err != nil {
		fmt.Fprintln(os.Stderr, line)
	}
}
