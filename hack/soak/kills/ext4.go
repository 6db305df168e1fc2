package kills

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// readState reads the runtime's log out of a state partition that was not unmounted, into a directory that is not there yet. It does to the
// partition what the kernel does when it mounts it, replays the journal, and fails when e2fsck then has anything to say about it.
func readState(ctx context.Context, partition, data string) error {
	if err := e2fsck(ctx, mended, "-E", "journal_only", "-y", partition); err != nil {
		return err
	}
	const log = "/runtime/log"
	parent := filepath.Dir(data)
	out, err := e2fsprogs(ctx, "debugfs", "-R", fmt.Sprintf("rdump %s %s", log, parent), partition)
	if err == nil {
		err = os.Rename(filepath.Join(parent, filepath.Base(log)), data)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w: %s", log, err, out)
	}
	// Files that were open when they were removed, or cut, are finished off: the kernel does that too.
	if err := e2fsck(ctx, mended, "-p", partition); err != nil {
		return err
	}
	return e2fsck(ctx, clean, "-f", "-n", partition)
}

// What e2fsck may end with: there was nothing to do, or it has done it.
const (
	clean  = 0
	mended = 1
)

// e2fsck fails when it ends with more than most.
func e2fsck(ctx context.Context, most int, args ...string) error {
	out, err := e2fsprogs(ctx, "e2fsck", args...)
	if exit := (&exec.ExitError{}); errors.As(err, &exit) && exit.ExitCode() > 0 && exit.ExitCode() <= most {
		return nil
	}
	if err != nil {
		return fmt.Errorf("e2fsck %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// e2fsprogs runs a program of that name's, which Debian keeps where a user's PATH does not lead.
func e2fsprogs(ctx context.Context, program string, args ...string) (out string, err error) {
	path, err := exec.LookPath(program)
	if err != nil {
		path = "/usr/sbin/" + program
	}
	b, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	return string(b), err
}
