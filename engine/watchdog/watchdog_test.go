package watchdog

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAMachineWithoutOneHasNone(t *testing.T) {
	if w, err := Open(t.TempDir()); w != nil || err != nil {
		t.Errorf("Open = %v, %v", w, err)
	}
}

func TestWhatIsNoWatchdogIsDisarmedAndRefused(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "watchdog0")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if w, err := Open(dir); w != nil || err == nil {
		t.Errorf("Open = %v, %v; want an error", w, err)
	}
	if got, _ := os.ReadFile(file); string(got) != "V" {
		t.Errorf("written %q; want the magic close", got)
	}
}
