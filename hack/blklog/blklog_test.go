package blklog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// recorded is a disk of a MiB that QEMU wrote to, and its log.
func recorded(t *testing.T, commands ...string) (disk []byte, log *Log) {
	t.Helper()
	program, err := exec.LookPath("qemu-io")
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("%v (hack/setup test installs it)", err)
	}
	dir := t.TempDir()
	file, logFile := filepath.Join(dir, "disk"), filepath.Join(dir, "log")
	for path, size := range map[string]int{file: 1 << 20, logFile: 0} {
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"--image-opts", "driver=blklogwrites,file.driver=file,file.filename=" + file + ",log.driver=file,log.filename=" + logFile}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil || bytes.Contains(out, []byte("rror")) {
		t.Fatalf("qemu-io: %v\n%s", err, out)
	}
	if disk, err = os.ReadFile(file); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(logFile)
	if err != nil {
		t.Fatal(err)
	}
	if log, err = Read(bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
	return disk, log
}

// memory is a disk.
type memory []byte

func (m memory) WriteAt(b []byte, at int64) (int, error) { return copy(m[at:], b), nil }

func (m memory) whole() Window { return Window{To: m, Size: int64(len(m))} }

func TestADiskIsMadeAgainFromItsLog(t *testing.T) {
	want, log := recorded(t,
		"write -P 1 0 64k", "write -P 2 4k 8k", "flush", "write -z 6k 1k", "discard 0 4k", "write -P 3 512k 512", "write -P 4 900k 4k", "discard 901k 1k", "write -P 5 1000k 1k", "flush")
	got := make(memory, len(want))
	if err := log.Write(got.whole(), log.Pieces(0, len(log.Entries))); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the disk is not what QEMU left")
	}
	if got[6<<10] != 0 || got[5<<10] != 2 || got[12<<10] != 1 {
		t.Error("QEMU has not written what this test is about")
	}
	part := make(memory, 16<<10)
	if err := log.Write(Window{part, 8 << 10, int64(len(part))}, log.Pieces(0, len(log.Entries))); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(part, want[8<<10:24<<10]) {
		t.Error("the window is not what QEMU left there")
	}
}

// written is a log of these entries. What a write wrote is its number, counted from 1.
func written(entries ...[3]uint64) *Log {
	data := logOf(len(entries), 512, entries...)
	log, err := Read(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		panic(err)
	}
	for i, e := range log.Entries {
		if e.at != 0 {
			copy(data[e.at:], bytes.Repeat([]byte{byte(i + 1)}, int(e.Length)))
		}
	}
	return log
}

func TestALossOfPowerTakesWhatWasNotFlushed(t *testing.T) {
	const flush, fua, discard = uint64(Flush), uint64(FUA), uint64(Discard)
	log := written([3]uint64{0, 32, 0}, [3]uint64{0, 0, flush}, [3]uint64{0, 32, 0}, [3]uint64{32, 8, fua}, [3]uint64{0, 16, 0}, [3]uint64{40, 8, 0},
		[3]uint64{24, 8, discard}, [3]uint64{0, 0, flush}, [3]uint64{0, 1, 0})
	if got := log.Flushes(0); !slices.Equal(got, []int{2, 8}) {
		t.Errorf("flushes: %v; want after 2 and 8", got)
	}
	if got := log.Flushes(2); !slices.Equal(got, []int{8}) {
		t.Errorf("flushes after the first: %v; want one after 8", got)
	}
	// cut is the disk after n entries, a byte a page.
	cut := func(n int, random *rand.Rand) (bytes string) {
		disk := make(memory, 6*page)
		if err := log.Write(disk.whole(), slices.Concat(log.Pieces(0, log.Flushed(n)), log.Survivors(n, random))); err != nil {
			t.Fatal(err)
		}
		for at := range disk {
			if disk[at] != disk[at/page*page] {
				t.Fatalf("the page of byte %d is torn", at)
			}
		}
		for at := 0; at < len(disk); at += page {
			bytes += string('0' + disk[at])
		}
		return bytes
	}
	for n, want := range []string{"000000", "000000", "111100", "111100", "111140", "111140", "111140", "111140", "553046"} {
		if got := cut(n, nil); got != want {
			t.Errorf("when nothing survives that was not flushed, %s is left of %d entries; want %s", got, n, want)
		}
	}
	random, seen := rand.New(rand.NewPCG(1, 2)), map[string]bool{}
	for range 3000 {
		got := cut(7, random)
		seen[got] = true
		for i, may := range []string{"135", "135", "13", "130", "4", "06"} {
			if !strings.Contains(may, got[i:i+1]) {
				t.Fatalf("%s survives", got)
			}
		}
	}
	for _, want := range []string{"111140", "553046", "333340", "551140", "131346", "511140", "111046"} {
		if !seen[want] {
			t.Errorf("%s never survives, of %d", want, len(seen))
		}
	}
}

func TestCountGrowsWithFlushes(t *testing.T) {
	if n, err := Count(bytes.NewReader(nil)); n != 0 || err != nil {
		t.Errorf("Count of an empty log = %d, %v", n, err)
	}
	if n, err := Count(bytes.NewReader(make([]byte, 2048))); n != 0 || err != nil {
		t.Errorf("Count before the first flush = %d, %v", n, err)
	}
	_, log := recorded(t, "write -P 1 0 16k", "flush", "write -P 2 0 16k", "flush")
	if n, err := Count(log.data); n != uint64(len(log.Entries)) || n < 4 || err != nil {
		t.Errorf("Count = %d, %v; want %d", n, err, len(log.Entries))
	}
}

// logOf is a log of entries with nothing in what they write.
func logOf(count, sector int, entries ...[3]uint64) []byte {
	b := make([]byte, sector)
	binary.LittleEndian.PutUint64(b, magic)
	binary.LittleEndian.PutUint64(b[8:], version)
	binary.LittleEndian.PutUint64(b[16:], uint64(count))
	binary.LittleEndian.PutUint32(b[24:], uint32(sector))
	for _, e := range entries {
		head := make([]byte, sector)
		for i, field := range e {
			binary.LittleEndian.PutUint64(head[8*i:], field)
		}
		b = append(b, head...)
		if e[1] <= 64 && Flags(e[2])&Discard == 0 {
			b = append(b, make([]byte, int(e[1])*sector)...)
		}
	}
	return b
}

func TestWhatIsNoLogIsAnError(t *testing.T) {
	good := logOf(2, 512, [3]uint64{1, 2, 0}, [3]uint64{0, 0, 1})
	for name, tc := range map[string]struct {
		data []byte
		want error
	}{
		"a whole one":          {good, nil},
		"something else":       {[]byte("This is the text of something else, and longer than a header."), ErrNoLog},
		"a half header":        {good[:20], io.EOF},
		"an entry less":        {good[:512*4], io.EOF},
		"half of what it says": {logOf(1, 512, [3]uint64{1, 1000, 0}), io.ErrUnexpectedEOF},
		"small sectors":        {logOf(0, 64)[:28], nil},
		"odd sectors":          {logOf(0, 96), ErrNoLog},
		"unknown flags":        {logOf(1, 512, [3]uint64{1, 2, 16}), ErrNoLog},
		"a flush that writes":  {logOf(1, 512, [3]uint64{1, 2, 1}), ErrNoLog},
		"a disk without end":   {logOf(1, 512, [3]uint64{1 << 60, 2, 0}), ErrNoLog},
	} {
		if _, err := Read(bytes.NewReader(tc.data), int64(len(tc.data))); !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
			t.Errorf("Read of %s = %v; want %v", name, err, tc.want)
		}
	}
}

// Whatever a log says, it is read or refused, and where it is cut the disk can be made again.
func FuzzRead(f *testing.F) {
	f.Add(logOf(3, 512, [3]uint64{1, 2, 0}, [3]uint64{0, 1, 2}, [3]uint64{0, 0, 1}), uint64(1))
	f.Add(logOf(3, 64, [3]uint64{1, 2, 4}, [3]uint64{0, 0, 8}, [3]uint64{7, 9, 0}), uint64(2))
	f.Add(logOf(2, 32, [3]uint64{1 << 57, 1 << 57, 0}, [3]uint64{0, 0, 1}), uint64(3))
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		log, err := Read(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		random := rand.New(rand.NewPCG(seed, 0))
		n := random.IntN(len(log.Entries) + 1)
		disk := make(memory, 64<<10)
		if err := log.Write(disk.whole(), slices.Concat(log.Pieces(0, log.Flushed(n)), log.Survivors(n, random))); err != nil {
			t.Fatalf("cut after %d of %d: %v", n, len(log.Entries), err)
		}
	})
}

func TestPartsThatAreWrittenBySectorsTearThere(t *testing.T) {
	log := written([3]uint64{0, 24, 0}, [3]uint64{0, 0, uint64(Flush)}, [3]uint64{0, 24, 0})
	log.Sectored = 2 * page
	random, torn := rand.New(rand.NewPCG(1, 2)), [3]int{}
	for range 200 {
		disk := make(memory, 3*page)
		if err := log.Write(disk.whole(), slices.Concat(log.Pieces(0, 2), log.Survivors(3, random))); err != nil {
			t.Fatal(err)
		}
		for at := range disk {
			if disk[at] != disk[at/sector*sector] {
				t.Fatalf("the sector of byte %d is torn", at)
			}
			if disk[at] != disk[at/page*page] {
				torn[at/page]++
			}
		}
	}
	if torn[0] == 0 || torn[1] == 0 || torn[2] > 0 {
		t.Errorf("bytes torn off in each page: %v; want some in the first two", torn)
	}
}
