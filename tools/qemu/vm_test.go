package qemu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func host(t *testing.T) *Host {
	t.Helper()
	h, err := Find(t.Context(), AMD64)
	if errors.Is(err, ErrNoQEMU) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// The machine stands still (-S), so that this costs nothing: QEMU takes the arguments, answers on
// the monitor, and takes a disk while it runs.
func TestStartAndPlug(t *testing.T) {
	dir := t.TempDir()
	disk, recorded, log, medium := filepath.Join(dir, "disk,with comma.raw"), filepath.Join(dir, "recorded,.raw"), filepath.Join(dir, "log,"), filepath.Join(dir, "medium")
	for file, size := range map[string]int{disk: 1 << 20, recorded: 1 << 20, log: 0, medium: 1 << 20} {
		if err := os.WriteFile(file, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	vm, err := Start(t.Context(), host(t), Machine{
		Memory: 64, Network: true, HotplugPorts: 1, USB: true, UserData: disk,
		Disks: []Disk{{ID: "system", File: disk, Format: "raw", Snapshot: true}, {ID: "recorded", File: recorded, Format: "raw", Log: log}},
		Extra: []string{
			"-S", "-device", "sdhci-pci", "-drive", "if=none,id=slot", "-device", "sd-card,id=sd,drive=slot", "-device", "usb-bot,id=bot,bus=usb.0",
			"-drive", "if=none,id=tray", "-device", "scsi-hd,id=reader,bus=bot.0,drive=tray,removable=on",
		},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Kill()
	if err := vm.Plug(t.Context(), Disk{ID: "more", File: disk, Format: "raw", ReadOnly: true}, "port0"); err != nil {
		t.Error(err)
	}
	for _, reader := range []string{"sd", "reader", "sd", "reader"} {
		if err := errors.Join(vm.Insert(t.Context(), Disk{ID: "medium", File: medium, Format: "raw"}, reader), vm.Eject(t.Context(), "medium", reader)); err != nil {
			t.Errorf("%s: %v", reader, err)
		}
	}
	if err := vm.Monitor.Execute(t.Context(), "quit", nil, nil); err != nil && !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := vm.Wait(); err != nil {
		t.Error(err)
	}
}

func TestStartReportsWhatQEMUSays(t *testing.T) {
	_, err := Start(t.Context(), host(t), Machine{Memory: 64, CDROM: "/nowhere.iso"}, nil)
	if err == nil || !strings.Contains(err.Error(), "/nowhere.iso") {
		t.Errorf("Start = %v; want QEMU's complaint about /nowhere.iso", err)
	}
}

// A guest that stands still does not react to the button.
func TestPowerDownKillsWhenItsTimeIsUp(t *testing.T) {
	vm, err := Start(t.Context(), host(t), Machine{Memory: 64, Extra: []string{"-S"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := vm.PowerDown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("PowerDown = %v; want %v", err, context.DeadlineExceeded)
	}
	select {
	case <-vm.Done():
	default:
		t.Error("the VM still runs")
	}
}
