package kernelevents

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
)

// part is a file of pstore (Documentation/ABI/testing/pstore): a piece of the kernel's log from when it crashed. Of one crash, part 1 is
// the end of the log, and the higher parts are what was before.
type part struct {
	file   string
	source string
	at     time.Time
	reason string // with the number of the crash in its boot: "Panic#1"
	number int
	text   string
}

// crash is all parts of one, part 1 first.
type crash []part

// readCrashes reads what is kept in dir, the oldest crash first. No directory is no crash.
func readCrashes(dir string) ([]crash, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var parts []part
	for _, entry := range entries {
		rest, is := strings.CutPrefix(entry.Name(), "dmesg-")
		if !is {
			continue // of a console, or of user space
		}
		p := part{file: filepath.Join(dir, entry.Name())}
		p.source, _, _ = strings.Cut(rest, "-")
		info, err := entry.Info()
		if err != nil {
			return nil, err
		}
		data, err := os.ReadFile(p.file)
		if err != nil {
			return nil, err
		}
		p.at = info.ModTime()
		p.read(string(data))
		parts = append(parts, p)
	}
	return group(parts), nil
}

// read takes in a file's content: "Panic#1 Part1", and the log. What the kernel could not decompress is nothing that can be read.
func (p *part) read(data string) {
	p.reason, p.number = "Unknown", 1
	head, text, _ := strings.Cut(data, "\n")
	reason, number, is := strings.Cut(head, " Part")
	n, err := strconv.ParseUint(number, 10, 16)
	if !is || err != nil {
		return
	}
	p.reason, p.number = strings.ToValidUTF8(reason, "\uFFFD"), int(n)
	p.text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "")
}

// dumping is how long the kernel may take from one part to the next: firmware is slow.
const dumping = time.Minute

// group puts parts together. The parts of a crash are written one after the other, from 1 on.
func group(parts []part) (all []crash) {
	slices.SortFunc(parts, func(a, b part) int {
		return cmp.Or(cmp.Compare(a.source, b.source), a.at.Compare(b.at), cmp.Compare(a.reason, b.reason), cmp.Compare(a.number, b.number))
	})
next:
	for _, p := range parts {
		for i, c := range slices.Backward(all) { // the latest that it fits
			if c.continues(p) {
				all[i] = append(c, p)
				continue next
			}
		}
		all = append(all, crash{p})
	}
	slices.SortStableFunc(all, func(a, b crash) int { return strings.Compare(a.id(), b.id()) })
	return all
}

func (c crash) continues(p part) bool {
	last := c[len(c)-1]
	return last.source == p.source && last.reason == p.reason && last.number < p.number && p.at.Sub(last.at) <= dumping
}

// id is the time, and what tells two crashes of one boot apart: an oops may end in a panic at once.
func (c crash) id() string {
	return c[0].at.UTC().Format("20060102T150405Z") + "-" + strings.ToLower(strings.ReplaceAll(c[0].reason, "#", "-"))
}

// most is how much of the log is reported.
const most = 16 << 10

func (c crash) report() *eventspb.CrashReport {
	var log strings.Builder
	for _, p := range slices.Backward(c) {
		log.WriteString(p.text)
	}
	text := log.String()
	reason, _, _ := strings.Cut(c[0].reason, "#")
	r := &eventspb.CrashReport{Time: timestamppb.New(c[0].at), Reason: reason, Source: c[0].source, Message: cause(text)}
	if len(text) > most {
		text = text[len(text)-most:]
		_, text, _ = strings.Cut(text, "\n") // from the beginning of a line
	}
	r.Text = text
	return r
}

// cause finds the line that says why: the panic's, or else the first one of an oops.
func cause(text string) (found string) {
	for line := range strings.Lines(text) {
		// "<0>[   12.345678] Kernel panic …"
		_, said, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "] ")
		switch {
		case !ok:
		case strings.Contains(said, "Kernel panic - not syncing"):
			return said
		case found == "" && (record{text: said}).action() == "Oops":
			found = said
		}
	}
	return found
}

// erase has the firmware forget the crash, part 1 last: what is left when that is interrupted has the id of the whole.
func (c crash) erase() error {
	for _, p := range slices.Backward(c) {
		if err := os.Remove(p.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
