package output

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cosi-os/cosi/engine/wire"
)

func TestRingKeepsTheLastLines(t *testing.T) {
	r := &ring{}
	for i := range ringLines + 10 {
		r.add(wire.Output{Line: fmt.Sprint(i)})
	}
	all := r.after(0, 1<<20)
	if len(all) != ringLines || all[0].Sequence != 11 || all[len(all)-1].Sequence != ringLines+10 {
		t.Fatalf("%d lines from %d to %d", len(all), all[0].Sequence, all[len(all)-1].Sequence)
	}
	if got := r.after(ringLines+8, 5); len(got) != 2 || got[0].Line != fmt.Sprint(ringLines+8) {
		t.Errorf("after all but two: %v", got)
	}
	if got := r.after(20, 3); len(got) != 3 || got[0].Sequence != 21 {
		t.Errorf("after 20, at most 3: %v", got)
	}
	if got := r.after(1<<40, 3); got != nil {
		t.Errorf("after a sequence of the future: %v", got)
	}
}

func TestRingIsBoundedInBytes(t *testing.T) {
	r := &ring{}
	for range 200 {
		r.add(wire.Output{Line: strings.Repeat("x", maxLine)})
	}
	if r.bytes > ringBytes || len(r.lines) != ringBytes/maxLine {
		t.Errorf("%d bytes in %d lines; want at most %d bytes", r.bytes, len(r.lines), ringBytes)
	}
}

func TestLinesSplitsWhatIsTooLong(t *testing.T) {
	for _, test := range []struct {
		in   string
		want []string
	}{
		{"one\ntwo\r\nlast", []string{"one", "two", "last"}},
		{"\n\n", []string{"", ""}},
		{"bad \xff byte\n", []string{"bad \uFFFD byte"}},
		{strings.Repeat("a", maxLine+3) + "\nb\n", []string{strings.Repeat("a", maxLine), "aaa", "b"}},
		{"", nil},
	} {
		var got []string
		lines(strings.NewReader(test.in), func(line string) { got = append(got, line) })
		if !slices.Equal(got, test.want) {
			t.Errorf("lines(%.20q) = %.60q; want %.60q", test.in, got, test.want)
		}
	}
}

func TestLogPrefixesAndReplays(t *testing.T) {
	var screen bytes.Buffer
	console := NewConsole(&screen)
	log := NewLog(console)
	log.Copy("mount", Stdout, strings.NewReader("hello\n\x1b[2Jcleared\n"))
	log.Printf("up after %d ms", 7)
	if !console.Close(time.Second) {
		t.Fatal("the console did not finish")
	}
	if got, want := screen.String(), "mount: hello\nmount: \uFFFD[2Jcleared\nengine: up after 7 ms\n"; got != want {
		t.Errorf("console shows %q; want %q", got, want)
	}
	cursors := map[string]uint64{}
	var all []string
	for some := log.Next(cursors); len(some) > 0; some = log.Next(cursors) {
		for _, o := range some {
			all = append(all, fmt.Sprint(o.Name, " ", o.Stream, " ", o.Sequence, " ", o.Line))
		}
	}
	want := []string{"mount stdout 1 hello", "mount stdout 2 \x1b[2Jcleared", "engine stderr 1 up after 7 ms"}
	if !slices.Equal(all, want) {
		t.Errorf("replay %q; want %q", all, want)
	}
	select {
	case <-log.Changed():
	default:
		t.Error("no token after new lines")
	}
}

func TestStatusIsShownOnceAndIsTenLinesAtMost(t *testing.T) {
	var screen bytes.Buffer
	console := NewConsole(&screen)
	log := NewLog(console)
	status := strings.Split("1 2 3 4 5 6 7 8 9 10 11", " ")
	log.Status(status)
	log.Status(status)
	log.Status([]string{"ready"})
	console.Close(time.Second)
	if got, want := screen.String(), "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\nready\n"; got != want {
		t.Errorf("console shows %q; want %q", got, want)
	}
}

// stuck blocks in Write until it is released.
type stuck struct {
	bytes.Buffer
	release chan struct{}
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.release
	return s.Buffer.Write(p)
}

func TestAStuckConsoleStopsNobodyAndCountsWhatItLost(t *testing.T) {
	screen := &stuck{release: make(chan struct{})}
	console := NewConsole(screen)
	log := NewLog(console)
	for i := range 3 * consoleLines {
		log.Line("loud", Stdout, fmt.Sprint(i)) // must not block
	}
	if console.Close(10 * time.Millisecond) {
		t.Error("a stuck console was closed in time")
	}
	close(screen.release)
	if !console.Close(5 * time.Second) {
		t.Fatal("the released console did not finish")
	}
	shown := strings.Count(screen.String(), "loud: ")
	lost := 0
	for line := range strings.Lines(screen.String()) {
		var some int
		if n, _ := fmt.Sscanf(line, "engine: %d lines", &some); n == 1 {
			lost += some
		}
	}
	if lost == 0 || shown+lost != 3*consoleLines {
		t.Errorf("%d lines shown, %d lost; want %d together", shown, lost, 3*consoleLines)
	}
}

func TestParseRecord(t *testing.T) {
	since, text, ok := parseRecord("6,339,5140900,-;NET: Registered PF_INET\n SUBSYSTEM=acpi\n DEVICE=+acpi:x\n")
	if !ok || since != 5140900*time.Microsecond || text != "NET: Registered PF_INET" {
		t.Errorf("parseRecord = %v, %q, %v", since, text, ok)
	}
	for _, bad := range []string{"", "6,339;text", "6,339,x,-;text", "no semicolon"} {
		if _, _, ok := parseRecord(bad); ok {
			t.Errorf("parseRecord(%q) found a message", bad)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add("6,339,5140900,-;NET: Registered PF_INET\n SUBSYSTEM=acpi\n")
	f.Add("4,1,99999999999999999999,c;x")
	f.Add(";")
	f.Fuzz(func(t *testing.T, record string) {
		since, text, ok := parseRecord(record)
		if since < 0 || strings.Contains(text, "\n") || !ok && text != "" {
			t.Errorf("parseRecord(%q) = %v, %q, %v", record, since, text, ok)
		}
	})
}

func FuzzLines(f *testing.F) {
	f.Add("one\ntwo")
	f.Add("\xff\n\r\n")
	f.Fuzz(func(t *testing.T, in string) {
		lines(strings.NewReader(in), func(line string) {
			if strings.ContainsAny(line, "\n") || len(line) > 3*maxLine {
				t.Errorf("line %q of %q", line, in)
			}
			if strings.ContainsAny(printable(line), "\x1b\x00\r") {
				t.Errorf("printable(%q) holds a control character", line)
			}
		})
	})
}
