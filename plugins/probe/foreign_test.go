package probe

import "testing"

func TestAForeignProgramRuns(t *testing.T) {
	if err := ExecuteForeign(); err != nil {
		t.Error(err)
	}
}
