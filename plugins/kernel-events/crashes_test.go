package kernelevents

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/plugins/internal/doorbell/doorbelltest"
	"github.com/cosi-os/cosi/sdk"
)

// pstore is a directory as the kernel makes it.
type pstore struct{ dir string }

// put writes a part, as of so many seconds after the epoch.
func (p pstore) put(t *testing.T, name string, second int64, content string) {
	t.Helper()
	file := filepath.Join(p.dir, name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(file, time.Unix(second, 0), time.Unix(second, 0)); err != nil {
		t.Fatal(err)
	}
}

func (p pstore) files(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestPartsBecomeCrashes(t *testing.T) {
	p := pstore{t.TempDir()}
	const panicked = "<0>[   12.3] Kernel panic - not syncing: sysrq triggered crash\n"
	p.put(t, "dmesg-efi_pstore-1001", 100, "Panic#2 Part1\n"+panicked+"<4>[   12.4] CPU: 0\n")
	p.put(t, "dmesg-efi_pstore-1002", 101, "Panic#2 Part2\n<6>[   12.2] before\n")
	p.put(t, "dmesg-efi_pstore-0901", 99, "Oops#1 Part1\n<1>[   12.1] BUG: kernel NULL pointer dereference\n<4>[   12.1] Oops: 0000 [#1]\n")
	p.put(t, "dmesg-efi_pstore-0902", 100, "Oops#1 Part2\n<6>[   12.0] long before\n")
	p.put(t, "dmesg-efi_pstore-9001", 9000, "Panic#2 Part1\nanother boot\n")
	p.put(t, "dmesg-efi_pstore-9031", 9031, "Panic#2 Part1\nhalf a minute later\n")
	p.put(t, "dmesg-efi_pstore-9502", 9502, "Panic#2 Part2\nthe rest is lost\n")
	p.put(t, "dmesg-ramoops-0", 200, "Panic#2 Part1\nof a second driver\n")
	p.put(t, "dmesg-erst-7.enc.z", 9001, "\x78\x9c\x00\xff")
	p.put(t, "console-ramoops-0", 100, "Panic#2 Part1\n")
	all, err := readCrashes(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range all {
		r := c.report()
		got = append(got, fmt.Sprintf("%s %s %d %s: %s: %d bytes", c.id(), r.GetSource(), r.GetTime().GetSeconds(), r.GetReason(), r.GetMessage(), len(r.GetText())))
	}
	want := []string{
		"19700101T000139Z-oops-1 efi_pstore 99 Oops: BUG: kernel NULL pointer dereference: 104 bytes",
		"19700101T000140Z-panic-2 efi_pstore 100 Panic: Kernel panic - not syncing: sysrq triggered crash: 103 bytes",
		"19700101T000320Z-panic-2 ramoops 200 Panic: : 19 bytes",
		"19700101T023000Z-panic-2 efi_pstore 9000 Panic: : 13 bytes",
		"19700101T023001Z-unknown erst 9001 Unknown: : 0 bytes",
		"19700101T023031Z-panic-2 efi_pstore 9031 Panic: : 20 bytes",
		"19700101T023822Z-panic-2 efi_pstore 9502 Panic: : 17 bytes",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("crashes\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if text := all[1].report().GetText(); !strings.HasPrefix(text, "<6>[   12.2] before\n"+panicked) {
		t.Errorf("text %q; want it in the order of the log", text)
	}
	if all, err := readCrashes(filepath.Join(p.dir, "none")); len(all) > 0 || err != nil {
		t.Errorf("no directory: %v, %v", all, err)
	}
}

func TestTheEndOfALongLogIsReported(t *testing.T) {
	c := crash{{reason: "Panic#1", number: 1, text: strings.Repeat("<4>[    1.0] line\n", 1000) + "<4>[    2.0] last\n"}}
	text := c.report().GetText()
	if len(text) > most || len(text) < most-100 || !strings.HasPrefix(text, "<4>[    1.0] line\n") || !strings.HasSuffix(text, "last\n") {
		t.Errorf("%d bytes, %.20q … %q; want whole lines, %d bytes at most", len(text), text, text[len(text)-20:], most)
	}
}

// FuzzCrash: whatever the firmware gives back becomes a report.
func FuzzCrash(f *testing.F) {
	f.Add("Panic#1 Part1\n<0>[    1.0] Kernel panic - not syncing: x\n")
	f.Add("Part9\n\x00\xff")
	f.Fuzz(func(t *testing.T, data string) {
		p := part{at: time.Unix(1, 0)}
		p.read(data)
		c := crash{p}
		r := c.report()
		for _, text := range []string{r.GetReason(), r.GetMessage(), r.GetText(), c.id()} {
			if !utf8.ValidString(text) {
				t.Errorf("%q", text)
			}
		}
		if len(r.GetText()) > most || r.GetReason() == "" && p.reason != "" && !strings.HasPrefix(p.reason, "#") {
			t.Errorf("report %v", r)
		}
	})
}

// What pstore has is erased when the report is on a disk, and not before.
func TestCrashReports(t *testing.T) {
	r := plugintest.Start(t, declared)
	t.Setenv(sdk.EnvEndpoint, r.Endpoint)
	p := pstore{t.TempDir()}
	for n := range int64(kept + 2) {
		p.put(t, fmt.Sprintf("dmesg-efi_pstore-%02d", n), 100+n, "Panic#1 Part1\nfirst\n")
	}
	r.Apply("state", &machinepb.StateStatus{Reason: "NoBootDisk"})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = sdk.Run(ctx, plugin(doorbelltest.NewLine[record]().Bell(doorbell.Kmsg), crashes{p.dir}))
	}()
	t.Cleanup(func() { cancel(); <-done })
	r.WaitReady()
	report := &eventspb.CrashReport{}
	id := func(n int) string { return time.Unix(int64(100+n), 0).UTC().Format("20060102T150405Z") + "-panic-1" }
	r.Wait("the newest is reported", func() bool { return r.Get(id(kept+1), report) != nil })
	if report.GetText() != "first\n" || report.GetSource() != "efi_pstore" {
		t.Errorf("report %v", report)
	}
	if files := p.files(t); len(files) != kept || files[0] != "dmesg-efi_pstore-02" || r.Get(id(1), report) != nil {
		t.Errorf("%d files, the first %s; want the last %d, and reports of these only", len(files), files[0], kept)
	}

	p.put(t, "dmesg-efi_pstore-99", 100+kept+1, "Panic#1 Part2\nof a crash that has a report\n")
	p.put(t, "dmesg-efi_pstore-98", 9000, "Panic#1 Part1\nanother\n")
	r.Apply("state", &machinepb.StateStatus{Durable: true})
	r.Wait("all is erased", func() bool { return len(p.files(t)) == 0 })
	r.Wait("the oldest report has made room", func() bool { return r.Get(id(2), report) == nil })
	if r.Get(id(3), report) == nil || r.Get("19700101T023000Z-panic-1", report) == nil {
		t.Error("a report is missing")
	}
	if r.Get(id(kept+1), report); report.GetText() != "first\n" {
		t.Errorf("report %v; want it as it was written first", report)
	}
}
