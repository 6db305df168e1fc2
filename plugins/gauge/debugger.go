package gauge

import (
	"debug/elf"
	"debug/gosym"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// freeze stops every thread of a process for as long as the plugin lives. If one cannot be stopped, all go on.
func freeze(pid int) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // what a thread traces is stopped until that thread ends
		err := stopThreads(pid)
		result <- err
		if err == nil {
			select {}
		}
	}()
	return <-result
}

// stopThreads looks again until it finds no new one: a thread that still runs may make another.
func stopThreads(pid int) error {
	stopped := map[int]bool{}
	for before := -1; len(stopped) > before; {
		before = len(stopped)
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil {
			return err
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(filepath.Base(task))
			if err != nil {
				return err
			}
			if stopped[tid] {
				continue
			}
			if err := stop(tid); err != nil && !errors.Is(err, unix.ESRCH) { // it has ended meanwhile
				return fmt.Errorf("%s: %w", task, err)
			}
			stopped[tid] = true
		}
	}
	return nil
}

// stop returns when the thread has stopped.
func stop(tid int) error {
	if err := unix.PtraceSeize(tid); err != nil {
		return err
	}
	if err := unix.PtraceInterrupt(tid); err != nil {
		return err
	}
	_, err := unix.Wait4(tid, nil, unix.WALL, nil)
	return err
}

// nilDereference reads the byte at address 0.
var nilDereference = map[string][]byte{
	"amd64": {0x31, 0xc0, 0x8a, 0x00},                         // xor eax, eax; mov al, [rax]
	"arm64": {0x00, 0x00, 0x80, 0xd2, 0x00, 0x00, 0x40, 0x39}, // mov x0, 0; ldrb w0, [x0]
}

// fault writes a dereference of nil over the beginning of a function of a Go program that runs.
func fault(pid int, function string) error {
	proc := fmt.Sprintf("/proc/%d", pid)
	at, err := address(proc+"/exe", function)
	if err != nil {
		return err
	}
	memory, err := os.OpenFile(proc+"/mem", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer memory.Close()
	_, err = memory.WriteAt(nilDereference[runtime.GOARCH], int64(at))
	return err
}

// address returns where a function of a Go program begins. Its table of functions is there even when symbols are not.
func address(program, function string) (uint64, error) {
	f, err := elf.Open(program)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	functions, text := f.Section(".gopclntab"), f.Section(".text")
	if functions == nil || text == nil {
		return 0, fmt.Errorf("%s: is no Go program", program)
	}
	data, err := functions.Data()
	if err != nil {
		return 0, err
	}
	table, err := gosym.NewTable(nil, gosym.NewLineTable(data, text.Addr))
	if err != nil {
		return 0, err
	}
	found := table.LookupFunc(function)
	if found == nil {
		return 0, fmt.Errorf("%s: has no function %s", program, function)
	}
	return found.Entry, nil
}
