package boot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSurviveLockups(t *testing.T) {
	dir := t.TempDir()
	soft, task := filepath.Join(dir, "softlockup_panic"), filepath.Join(dir, "hung_task_panic")
	for _, file := range []string{soft, task} {
		if err := os.WriteFile(file, []byte("1"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if problems := SurviveLockups(dir); len(problems) != 0 {
		t.Errorf("SurviveLockups = %v; a kernel without a detector is none", problems)
	}
	for _, file := range []string{soft, task} {
		if got, err := os.ReadFile(file); string(got) != "0" || err != nil {
			t.Errorf("%s: %q, %v; want 0", file, got, err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "hardlockup_panic"), 0o700); err != nil {
		t.Fatal(err)
	}
	if problems := SurviveLockups(dir); len(problems) != 1 || !strings.Contains(problems[0].Error(), "hardlockup_panic") {
		t.Errorf("SurviveLockups = %v; want one about what cannot be written", problems)
	}
}
