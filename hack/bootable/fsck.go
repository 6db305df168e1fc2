package bootable

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

// harmless is what a loss of power may leave for fsck.vfat to say of a file system in which every file is whole: clusters that no file has, a copy
// of the table that was not written yet, a count of what is free that nobody keeps. The other lines say which program it is, and how much there is.
var harmless = regexp.MustCompile(`^(fsck\.fat .*|\S+: \d+ files, \d+/\d+ clusters|Reclaimed \d+ unused clusters? \(\d+ bytes\)\.|FATs differ but appear to be intact\.` +
	`|\s*Using first FAT\.|Free cluster summary (uninitialized|wrong) \(.*|\s*Auto-(setting|correcting)\.|Leaving filesystem unchanged\.|)$`)

// Check fails when fsck.vfat finds something in the EFI system partition that a loss of power does not explain.
func (d *Disk) Check(ctx context.Context) error {
	f, err := os.CreateTemp("", "esp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := sparse(f, d.r); err != nil {
		return err
	}
	program, err := exec.LookPath("fsck.vfat")
	if err != nil { // Debian keeps it where a user's PATH does not lead
		program = "/usr/sbin/fsck.vfat"
	}
	out, err := exec.CommandContext(ctx, program, "-n", f.Name()).CombinedOutput()
	if exit := (&exec.ExitError{}); err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) { // 1: there is something to mend
		return fmt.Errorf("fsck.vfat: %w\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if !harmless.MatchString(strings.TrimRight(line, "\n")) {
			return fmt.Errorf("fsck.vfat of the EFI system partition: %s", out)
		}
	}
	return nil
}

// sparse copies what is not zero.
func sparse(w *os.File, r *io.SectionReader) error {
	b, zeros := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); at < r.Size(); at += int64(len(b)) {
		n, err := r.ReadAt(b, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if bytes.Equal(b[:n], zeros[:n]) {
			continue
		}
		if _, err := w.WriteAt(b[:n], at); err != nil {
			return err
		}
	}
	return w.Truncate(r.Size())
}
