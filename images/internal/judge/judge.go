// Package judge runs other people's programs over what our writers wrote: fsck.vfat, sgdisk,
// qemu-img and the like say whether a format is right. Disk is a disk to write. Only tests call it.
package judge

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Run runs a program and returns what it printed on both outputs. A program that fails, fails the
// test. One that is not installed skips it, except where CI is set: there hack/setup has run.
func Run(t testing.TB, program string, args ...string) string {
	t.Helper()
	out, err := run(t, program, args)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return out
}

// Fails runs a program that must fail.
func Fails(t testing.TB, program string, args ...string) string {
	t.Helper()
	out, err := run(t, program, args)
	if err == nil {
		t.Fatalf("%s %s: succeeded\n%s", program, strings.Join(args, " "), out)
	}
	return out
}

func run(t testing.TB, program string, args []string) (string, error) {
	t.Helper()
	path := find(program)
	if path == "" {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is not installed (hack/setup installs it)", program)
		}
		t.Skipf("%s is not installed (hack/setup installs it)", program)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	return string(out), err
}

// find also looks where Debian keeps sgdisk and fsck.vfat, which a user's PATH leaves out.
func find(program string) string {
	for _, p := range []string{program, "/usr/sbin/" + program, "/sbin/" + program} {
		if path, err := exec.LookPath(p); err == nil {
			return path
		}
	}
	return ""
}
