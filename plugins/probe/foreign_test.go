package probe

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

const envForeignTest = "COSI_TEST_FOREIGN"

// sayWhereFrom becomes foreign, and says where it runs from.
func sayWhereFrom() {
	if err := BecomeForeign(); err != nil {
		os.Stdout.WriteString(err.Error())
		os.Exit(1)
	}
	from, _ := os.Readlink("/proc/self/exe")
	os.Stdout.WriteString(from)
}

func TestItGoesOnAsAProgramOfNoFileSystem(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envForeignTest+"=yes")
	out, err := cmd.Output()
	if err != nil || !strings.HasPrefix(string(out), "/memfd:foreign") {
		t.Errorf("it runs from %q, %v; want a memfd", out, err)
	}
}
