package vmtest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/qemu"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// One machine with a screen, a watchdog and a clock that has lost the time: what a person sees who stands in front of it, and what
// becomes of it when PID 1 hangs, panics, or waits for a disk. Its kernel runs no programs at functions, for the generators.
func TestMachine(t *testing.T) {
	vmtest.Parallel(t, 230)
	vmtest.Host(t)
	data := vmtest.Ext4(t, "data")
	n := vmtest.Start(t, vmtest.Options{Definition: "test", Boot: node.Kernel, CommandLine: "sysctl.kernel.ftrace_enabled=0 " + withoutTCO, Disks: []qemu.Disk{data}, Extra: []string{
		"-device", "VGA", "-device", "i6300esb", "-rtc", "base=1970-01-01T00:00:00,clock=vm",
	}})
	n.Ready(t)
	t.Run("Clock", func(t *testing.T) { checkClockFloor(t, n) })
	t.Run("Summary", func(t *testing.T) { checkSummary(t, n) })
	t.Run("KernelMessages", func(t *testing.T) { checkKernelMessages(t, n) })
	t.Run("SwitchedOff", func(t *testing.T) { checkSwitchedOff(t, n) })
	t.Run("FrozenPID1", func(t *testing.T) { checkHardwareWatchdog(t, n) })
	n.Ready(t)
	t.Run("PanicOfPID1", func(t *testing.T) { checkPanic(t, n) })
	n.Ready(t)
	t.Run("SlowDisk", func(t *testing.T) { checkSlowDisk(t, n) })
	vmtest.CheckExt4(t, data)
}

// checkClockFloor: a clock at 1970 was set to the image's build time, early enough for the node's certificates, and the node serves.
func checkClockFloor(t *testing.T, n *vmtest.Node) {
	status := &machinepb.MachineStatus{}
	n.Get(t, "machine", "machine", status)
	built := status.GetBuilt().AsTime()
	if booted := status.GetBooted().AsTime(); booted.Before(built.Add(-time.Minute)) || booted.After(built.Add(time.Hour)) || built.Year() < 2026 {
		t.Errorf("booted at %s; want the build time, %s: the machine's clock says 1970", booted, built)
	}
}

// summary returns the lines that the console showed last: from the name on, until ready or why not.
func summary(console string) []string {
	lines := strings.Split(console, "\n")
	for first := len(lines) - 1; first >= 0; first-- {
		if !strings.HasPrefix(lines[first], "COSI ") {
			continue
		}
		for last := first; last < len(lines); last++ {
			if strings.HasPrefix(lines[last], "ready") || strings.HasPrefix(lines[last], "not ready") {
				return lines[first : last+1]
			}
		}
	}
	return nil
}

// checkSummary: serial line and screen show at most ten lines with all that one needs to find the node.
func checkSummary(t *testing.T, n *vmtest.Node) {
	n.Expect(t, 0, `\nready\r?\n`)
	status := &machinepb.MachineStatus{}
	n.Get(t, "machine", "machine", status)
	lines := summary(n.Console.Tail(1 << 20))
	for _, want := range []string{
		`COSI ` + regexp.QuoteMeta(status.GetVersion()) + `  node cosi  kernel ` + regexp.QuoteMeta(status.GetKernel()),
		`link eth0  52:54:00:12:34:56  carrier  10\.0\.2\.15/24 \(dhcp\)(  fec0::\S+ \(kernel\))?`,
		`user data fw_cfg: Applied, [1-9]\d* of \d+ documents`,
		`fingerprint SHA-256 ` + status.GetFingerprint(),
		`API on port 50000`,
		`ready`,
	} {
		if !regexp.MustCompile(`(?m)^` + want + `$`).MatchString(strings.Join(lines, "\n")) {
			t.Errorf("no line of the summary is %q", want)
		}
	}
	if len(lines) == 0 || len(lines) > 10 || lines[len(lines)-1] != "ready" {
		t.Errorf("%d lines; want at most ten, the last one %q", len(lines), "ready")
	}
	var rows string
	for _, line := range lines {
		rows += line + strings.Repeat(" ", (columns-len(line)%columns)%columns)
	}
	onScreen(t, n, rows)
	if t.Failed() {
		t.Logf("the summary on the serial line:\n%s", strings.Join(lines, "\n"))
	}
}

// columns of a VGA text screen; each character is followed by its colours.
const columns = 80

// screen returns the text memory of the VGA card, row after row without a break. It holds the screen, and some of what was on it before.
func screen(t *testing.T, n *vmtest.Node) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "vga")
	err := n.Monitor.Execute(n.Patience(t, moment), "pmemsave", map[string]any{"val": 0xb8000, "size": 32 << 10, "filename": file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	memory, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for i := 0; i < len(memory); i += 2 {
		text.WriteByte(memory[i])
	}
	return text.String()
}

// onScreen waits until the screen shows a text, which may go on in the next row.
func onScreen(t *testing.T, n *vmtest.Node, want string) {
	t.Helper()
	for patience := n.Patience(t, moment); ; time.Sleep(200 * time.Millisecond) {
		now := screen(t, n)
		if strings.Contains(now, want) {
			return
		}
		if patience.Err() != nil {
			var rows []string
			for ; len(now) >= columns; now = now[columns:] {
				rows = append(rows, strings.TrimRight(now[:columns], " \x00"))
			}
			t.Fatalf("the screen does not show\n%s\nbut\n%s", want, strings.Join(rows, "\n"))
		}
	}
}

// checkKernelMessages: a warning is shown on every console, what is less is kept only.
func checkKernelMessages(t *testing.T, n *vmtest.Node) {
	const notice, warning = "vmtest: the kernel notes something", "vmtest: the kernel warns"
	from := n.Console.Position()
	n.Converged(t, n.Apply(t, gaugeRequest("notice", `kernel_message: "<5>`+notice+`"`))...)
	n.Converged(t, n.Apply(t, gaugeRequest("warning", `kernel_message: "<4>`+warning+`"`))...)
	n.Expect(t, from, warning)
	err := n.Client.Watch(n.Patience(t, moment), n.Kind(t, "logs"), "kernel", &resourcepb.WatchOptions{TailEvents: 500}, func(e *resourcepb.Event) error {
		var line servicepb.LogLine
		if err := proto.Unmarshal(e.GetResource().GetSpec().GetProtoSpec(), &line); err != nil {
			return err
		}
		if strings.Contains(line.GetLine(), notice) {
			return client.ErrStop
		}
		return nil
	})
	if err != nil {
		t.Errorf("the notice is not in the kernel's log: %v", err)
	}
	onScreen(t, n, warning)
	if strings.Contains(screen(t, n), notice) || strings.Contains(n.Console.Tail(1<<20), notice) {
		t.Error("a console shows the notice")
	}
}

func gaugeRequest(id, spec string) string {
	return fmt.Sprintf("metadata: {type: GaugeRequests.test.cosi.dev, id: %s}\nspec: {%s}\n", id, spec)
}

// watchdogIs waits until PID 1 feeds a watchdog, and checks which.
func watchdogIs(t *testing.T, n *vmtest.Node, identity string) {
	t.Helper()
	status := &machinepb.MachineStatus{}
	n.Until(t, "machine", "machine", status, func(*resourcepb.Metadata) bool { return status.GetWatchdog() != "" })
	if status.GetWatchdog() != identity {
		t.Errorf("the watchdog is %q; want %q", status.GetWatchdog(), identity)
	}
}

// freezePID1 has PID 1 hang while the kernel and all other processes go on.
func freezePID1(t *testing.T, n *vmtest.Node) {
	t.Helper()
	n.Converged(t, n.Apply(t, gaugeRequest("freeze", "freeze: engine"))...)
}

// alarms accepts the nth event that the machine's watchdog was not fed in time.
func alarms(nth int) func(qemu.Event) bool {
	seen := 0
	return func(e qemu.Event) bool {
		if e.Name == "WATCHDOG" {
			seen++
		}
		return seen == nth
	}
}

// checkHardwareWatchdog: it is preferred to the kernel's own. It is fed until PID 1 hangs, and resets the machine then.
func checkHardwareWatchdog(t *testing.T, n *vmtest.Node) {
	watchdogIs(t, n, "i6300ESB timer")
	n.Expect(t, 0, `feeding the watchdog "i6300ESB timer", which waits 30s`)
	quiet, cancel := context.WithTimeout(t.Context(), 35*time.Second)
	defer cancel()
	if _, err := n.Monitor.WaitEvent(quiet, alarms(1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the watchdog is not fed: %v", err)
	}
	from := n.Console.Position()
	freezePID1(t, n)
	event, err := n.Monitor.WaitEvent(n.Patience(t, time.Minute), alarms(1))
	if err != nil {
		t.Fatal(err)
	}
	var data struct{ Action string }
	if err := json.Unmarshal(event.Data, &data); err != nil || data.Action != "reset" {
		t.Errorf("the watchdog's action is %q, %v; want reset", data.Action, err)
	}
	n.Expect(t, from, `COSI \S+, PID 1 after `)
}

// checkSoftwareWatchdog: a machine without a watchdog of its own has the kernel's, which resets it when PID 1 hangs.
func checkSoftwareWatchdog(t *testing.T, n *vmtest.Node) {
	watchdogIs(t, n, "Software Watchdog")
	from := n.Console.Position()
	freezePID1(t, n)
	// It waits a minute.
	if _, err := n.Console.Wait(n.Patience(t, 2*time.Minute), from, regexp.MustCompile(`softdog: Initiating system reboot`)); err != nil {
		t.Fatal(err)
	}
	n.Expect(t, from, `COSI \S+, PID 1 after `)
}

// checkPanic: a panic of PID 1 leaves its reason as the last line on every console for half a minute, then the machine reboots. What
// panics is a function that serves the runtime: the program is changed while it runs, as only a debugger can.
func checkPanic(t *testing.T, n *vmtest.Node) {
	n.Converged(t, n.Apply(t, gaugeRequest("fault", `fault: "github.com/cosi-os/cosi/engine/node.(*Node).obey"`))...)
	from := n.Console.Position()
	if err := n.SetLink(n.Patience(t, moment), false); err != nil { // the runtime has something new to show
		t.Fatal(err)
	}
	const reason = "cosi: PID 1 cannot go on: panic: runtime error: invalid memory address or nil pointer dereference; reboot in 30 s"
	n.Expect(t, from, regexp.QuoteMeta(reason))
	began := time.Now()
	onScreen(t, n, reason)
	n.Expect(t, from, `reboot: Restarting system`)
	if after := time.Since(began); after < 25*time.Second {
		t.Errorf("it reboots after %s; want 30 s", after)
	}
	before, _, _ := strings.Cut(n.Console.Tail(1<<20), "reboot: Restarting system")
	lines := strings.Split(before, "\n")
	if last := lines[len(lines)-2]; !strings.Contains(last, reason) {
		t.Errorf("the last line is %q; want the reason", last)
	}
	if err := n.SetLink(n.Patience(t, moment), true); err != nil {
		t.Fatal(err)
	}
}

// checkSlowDisk: a power-off that waits for a disk, for longer than the watchdog does, is no reason for a reset.
func checkSlowDisk(t *testing.T, n *vmtest.Node) {
	watchdogIs(t, n, "i6300ESB timer")
	from := n.Console.Position()
	n.Converged(t, n.Apply(t, mountPoint("slow", "/dev/vdb"))...)
	n.Expect(t, from, `marker: .*wrote `+target("slow"))
	limitWrites(t, n, "data", 1)
	if err := n.Monitor.Execute(n.Patience(t, moment), "system_powerdown", nil, nil); err != nil {
		t.Fatal(err)
	}
	n.Expect(t, from, `engine: powering off`)
	quiet, cancel := context.WithTimeout(t.Context(), 40*time.Second) // PID 1's own deadline is a minute
	defer cancel()
	if _, err := n.Monitor.WaitEvent(quiet, alarms(2)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the watchdog while the disk is slow: %v; want silence", err)
	}
	if strings.Contains(n.Console.Tail(100), "all file systems are written") {
		t.Error("nothing waited for the disk")
	}
	limitWrites(t, n, "data", 0)
	n.Expect(t, from, `all file systems are written`)
	select {
	case <-n.Done():
	case <-n.Patience(t, moment).Done():
		t.Error("the node does not power off")
	}
}

// limitWrites lets a disk write so many bytes a second; 0 is any number.
func limitWrites(t *testing.T, n *vmtest.Node, disk string, bytes int) {
	t.Helper()
	limits := map[string]any{"device": disk + "-drive", "bps": 0, "bps_rd": 0, "bps_wr": bytes, "iops": 0, "iops_rd": 0, "iops_wr": 0}
	if err := n.Monitor.Execute(n.Patience(t, moment), "block_set_io_throttle", limits, nil); err != nil {
		t.Fatal(err)
	}
}
