package boot

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// lockupPanics say, in /proc/sys/kernel, that the kernel panics over a processor that does nothing but its own, a task that has waited for too
// long, a processor that takes no interrupts. A kernel without one of these detectors lacks the file.
var lockupPanics = []string{"softlockup_panic", "hung_task_panic", "hardlockup_panic"}

// SurviveLockups has the kernel report what hangs in it and go on, as it does by default. dir is /proc/sys/kernel. Until then the arguments of our
// images have it panic, and so reboot: nobody else watches a kernel that does not get as far as PID 1, and no watchdog can be armed before. On a
// node that runs it would be one slow disk that ends it all.
func SurviveLockups(dir string) []error {
	var problems []error
	for _, name := range lockupPanics {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			_, err = f.WriteString("0")
			f.Close()
		}
		if err != nil {
			problems = append(problems, err)
		}
	}
	return problems
}
