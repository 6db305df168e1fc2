package gauge

import (
	"slices"
	"testing"

	"github.com/cosi-os/cosi/api/declaration"
)

func TestAPluginIsDeprivedOfWhatItHas(t *testing.T) {
	all, err := declaration.Parse(declared)
	if err != nil {
		t.Fatal(err)
	}
	data, err := without(declared, []string{"CAP_KILL", "CAP_SYS_ADMIN"})
	if err != nil {
		t.Fatal(err)
	}
	left, err := declaration.Parse(data)
	if err != nil || !slices.Equal(left.Capabilities, []string{"CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"}) || left.Name != all.Name || len(left.Devices) != len(all.Devices) {
		t.Errorf("without two capabilities it is %+v, %v", left, err)
	}
	if _, err := without(declared, []string{"CAP_BPF"}); err == nil {
		t.Error("it was deprived of what it does not have")
	}
}
