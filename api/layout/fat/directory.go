package fat

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io/fs"
	"strings"
	"time"
	"unicode/utf16"
)

// Attributes of a directory entry.
const (
	attrLabel     = 0x08
	attrDirectory = 0x10
	attrArchive   = 0x20
	attrLong      = 0x0f
)

const (
	deleted = 0xe5
	lastBit = 0x40 // of a long entry's number: the first of its kind in the directory
	perLong = 13   // UTF-16 units
)

// slot is 32 bytes of a directory.
type slot [entrySize]byte

// entry is a file or a directory in one.
type entry struct {
	name  string
	short slot
	first uint32
	size  uint32
	at    []int64 // where its slots are, the short one last
}

func (e entry) directory() bool { return e.short[11]&attrDirectory != 0 }

// directory is one that was read.
type directory struct {
	fs      *FS
	entries []entry
	taken   map[string]bool // short names
	last    uint32          // cluster
	places  []int64         // of all slots
	free    []bool          // of each
	end     int             // the first slot that was never used
}

// directory returns the one with a path, "" for the root. It fails with fs.ErrNotExist.
func (f *FS) directory(path string) (*directory, error) {
	d, err := f.read(f.root)
	for name := range strings.SplitSeq(path, "/") {
		if err != nil {
			return nil, err
		}
		if name == "" {
			continue
		}
		e := d.find(name)
		if e == nil || !e.directory() {
			return nil, fs.ErrNotExist
		}
		d, err = f.read(e.first)
	}
	return d, err
}

// find returns a file and the directory that it is in. It fails with fs.ErrNotExist.
func (f *FS) find(path string) (*directory, *entry, error) {
	parent, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		parent, name = path[:i], path[i+1:]
	}
	d, err := f.directory(parent)
	if err != nil {
		return nil, nil, err
	}
	e := d.find(name)
	if e == nil || e.directory() {
		return nil, nil, fs.ErrNotExist
	}
	return d, e, nil
}

func (d *directory) find(name string) *entry {
	for i := range d.entries {
		if strings.EqualFold(d.entries[i].name, name) {
			return &d.entries[i]
		}
	}
	return nil
}

// read reads the directory that begins with a cluster.
func (f *FS) read(first uint32) (*directory, error) {
	clusters, err := f.chain(first)
	if err != nil {
		return nil, err
	}
	d := &directory{fs: f, taken: map[string]bool{}, end: -1}
	var long longName
	b := make([]byte, f.cluster)
	for _, c := range clusters {
		d.last = c
		if _, err := f.disk.ReadAt(b, f.offset(c)); err != nil {
			return nil, err
		}
		for at := int64(0); at < f.cluster; at += entrySize {
			d.take(slot(b[at:]), f.offset(c)+at, &long)
		}
	}
	if d.end < 0 {
		d.end = len(d.places)
	}
	return d, nil
}

// take takes in the next slot.
func (d *directory) take(s slot, at int64, long *longName) {
	if s[0] == 0 && d.end < 0 {
		d.end = len(d.places)
	}
	d.places = append(d.places, at)
	d.free = append(d.free, s[0] == deleted || d.end >= 0)
	switch {
	case d.end >= 0:
	case s[0] == deleted:
		*long = longName{}
	case s[11]&0x3f == attrLong:
		long.take(s, at)
	case s[11]&attrLabel != 0 || s[0] == '.':
		*long = longName{}
	default:
		le := binary.LittleEndian
		e := entry{name: shortName(s), short: s, first: uint32(le.Uint16(s[20:]))<<16 | uint32(le.Uint16(s[26:])), size: le.Uint32(s[28:])}
		if name, ok := long.name(s); ok {
			e.name, e.at = name, long.at
		}
		e.at = append(e.at, at)
		d.entries, d.taken[string(s[:11])] = append(d.entries, e), true
		*long = longName{}
	}
}

// longName collects the slots before a short one.
type longName struct {
	units []uint16
	at    []int64
	sum   byte
	next  byte // the number of the slot that comes next; 0 when all are there
}

func (l *longName) take(s slot, at int64) {
	number := s[0] &^ lastBit
	switch {
	case s[0]&lastBit != 0:
		*l = longName{sum: s[13], next: number}
	case number != l.next || s[13] != l.sum || len(l.at) == 0:
		*l = longName{}
		return
	}
	var units []uint16
	for _, i := range longPlaces {
		units = append(units, binary.LittleEndian.Uint16(s[i:]))
	}
	l.units, l.at, l.next = append(units, l.units...), append(l.at, at), number-1
}

// name returns the name if it is that of the short slot.
func (l *longName) name(s slot) (string, bool) {
	if len(l.at) == 0 || l.next != 0 || l.sum != checksum(s) {
		return "", false
	}
	for i, u := range l.units {
		if u == 0 {
			return string(utf16.Decode(l.units[:i])), true
		}
	}
	return string(utf16.Decode(l.units)), true
}

// longPlaces are where the units of a name are in a long slot.
var longPlaces = [perLong]int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30}

func checksum(s slot) (sum byte) {
	for _, c := range s[:11] {
		sum = sum>>1 | sum<<7
		sum += c
	}
	return sum
}

// shortName is the name of an entry without a long one. Case is in two bits that Windows NT brought.
func shortName(s slot) string {
	base, extension := strings.TrimRight(string(s[:8]), " "), strings.TrimRight(string(s[8:11]), " ")
	if s[12]&0x08 != 0 {
		base = strings.ToLower(base)
	}
	if s[12]&0x10 != 0 {
		extension = strings.ToLower(extension)
	}
	if extension != "" {
		extension = "." + extension
	}
	return base + extension
}

// slots makes an entry of a file: a long name and a short one that nothing else in the directory has. It fails for a name that FAT has no
// characters for, or that is too long for a sector.
func (d *directory) slots(name string, first, size uint32, at time.Time) ([]slot, error) {
	units := utf16.Encode([]rune(name))
	if name == "" || strings.ContainsAny(name, "\"*/:<>?\\|\x7f") || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' }) {
		return nil, fmt.Errorf("%q is no name", name)
	}
	count := (len(units) + perLong - 1) / perLong
	if count+1 > sector/entrySize {
		return nil, fmt.Errorf("%q is too long a name", name)
	}
	short := d.short(name)
	le := binary.LittleEndian
	short[11] = attrArchive
	date, clock := stamp(at)
	for _, i := range []int{14, 22} {
		le.PutUint16(short[i:], clock)
		le.PutUint16(short[i+2:], date)
	}
	le.PutUint16(short[18:], date)
	short.begin(first)
	le.PutUint32(short[28:], size)
	if len(units)%perLong != 0 {
		units = append(units, 0)
	}
	for len(units)%perLong != 0 {
		units = append(units, 0xffff)
	}
	var all []slot
	for n := count; n > 0; n-- {
		s := slot{0: byte(n), 11: attrLong, 13: checksum(short)}
		if n == count {
			s[0] |= lastBit
		}
		for i, place := range longPlaces {
			le.PutUint16(s[place:], units[(n-1)*perLong+i])
		}
		all = append(all, s)
	}
	return append(all, short), nil
}

// begin has a short slot say which cluster is the first.
func (s *slot) begin(first uint32) {
	binary.LittleEndian.PutUint16(s[20:], uint16(first>>16))
	binary.LittleEndian.PutUint16(s[26:], uint16(first))
}

// short returns a short name that is not taken. Nobody sees it: it is made of a checksum.
func (d *directory) short(name string) (s slot) {
	extension := "   "
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		extension = (strings.ToUpper(name[i+1:]) + extension)[:3]
	}
	for n := 1; ; n++ {
		base := fmt.Sprintf("%05X~%d       ", crc32.ChecksumIEEE([]byte(name))&0xfffff, n)
		copy(s[:], base[:8]+extension)
		if !d.taken[string(s[:11])] {
			return s
		}
	}
}

// stamp is a time in FAT's two words, which count in two seconds from 1980 on.
func stamp(t time.Time) (date, clock uint16) {
	t = t.UTC()
	if t.Year() < 1980 || t.Year() > 2107 {
		return 1<<5 | 1, 0
	}
	return uint16((t.Year()-1980)<<9 | int(t.Month())<<5 | t.Day()), uint16(t.Hour()<<11 | t.Minute()<<5 | t.Second()/2)
}

// room returns places for so many slots in one sector. A directory that is full gets another cluster.
func (d *directory) room(count int) ([]int64, error) {
	for i := range d.places {
		if i+count > len(d.places) {
			break
		}
		run := d.places[i : i+count]
		fits := sameSector(run)
		for _, free := range d.free[i : i+count] {
			fits = fits && free
		}
		if fits {
			return run, nil
		}
	}
	if err := d.grow(); err != nil {
		return nil, err
	}
	return d.places[len(d.places)-int(d.fs.cluster)/entrySize:][:count], nil
}

// grow puts an empty cluster behind the directory.
func (d *directory) grow() error {
	f := d.fs
	free, err := f.allocate(f.cluster)
	if err != nil {
		return err
	}
	if _, err := f.disk.WriteAt(make([]byte, f.cluster), f.offset(free[0])); err != nil {
		return err
	}
	f.set(free[0], valueMask)
	if err := f.writeTable(); err != nil { // which waits for the zeros, too
		return err
	}
	f.set(d.last, free[0])
	if err := f.writeTable(); err != nil {
		return err
	}
	d.last = free[0]
	for at := int64(0); at < f.cluster; at += entrySize {
		d.places, d.free = append(d.places, f.offset(free[0])+at), append(d.free, true)
	}
	return nil
}

func sameSector(places []int64) bool {
	return places[0]/sector == places[len(places)-1]/sector
}

// put writes slots at places in one sector, and waits for it. What lies between the directory's end and them is made free first, and what
// lies behind them is its end from then on.
func (d *directory) put(places []int64, slots []slot) error {
	first, last := d.index(places[0]), d.index(places[len(places)-1])
	at := places[0] / sector * sector
	if last >= d.end {
		for i := d.end; i < first && d.places[i]/sector*sector != at; i++ {
			if err := d.write(d.places[i], slot{deleted}); err != nil {
				return err
			}
		}
		if next := last + 1; next < len(d.places) && d.places[next]/sector*sector != at {
			if err := d.write(d.places[next], slot{}); err != nil {
				return err
			}
		}
		if err := d.fs.disk.Sync(); err != nil {
			return err
		}
	}
	b := make([]byte, sector)
	if _, err := d.fs.disk.ReadAt(b, at); err != nil {
		return err
	}
	for i := d.end; i < len(d.places) && last >= d.end; i++ {
		if d.places[i]/sector*sector != at {
			continue
		}
		free := slot{}
		if i < first {
			free[0] = deleted
		}
		copy(b[d.places[i]-at:], free[:])
	}
	for i, s := range slots {
		copy(b[places[i]-at:], s[:])
	}
	if _, err := d.fs.disk.WriteAt(b, at); err != nil {
		return err
	}
	return d.fs.disk.Sync()
}

// index is the number of the slot at a place.
func (d *directory) index(place int64) int {
	for i, p := range d.places {
		if p == place {
			return i
		}
	}
	panic("fat: no place of the directory")
}

// write writes one slot, with what else is in its sector.
func (d *directory) write(place int64, s slot) error {
	at := place / sector * sector
	b := make([]byte, sector)
	if _, err := d.fs.disk.ReadAt(b, at); err != nil {
		return err
	}
	copy(b[place-at:], s[:])
	_, err := d.fs.disk.WriteAt(b, at)
	return err
}

// drop removes an entry: first what makes it a file, and then the rest, if that is in another sector.
func (d *directory) drop(e *entry) error {
	places := e.at
	for len(places) > 0 {
		n := len(places) - 1
		for n > 0 && sameSector(places[n-1:]) {
			n--
		}
		at := places[n] / sector * sector
		b := make([]byte, sector)
		if _, err := d.fs.disk.ReadAt(b, at); err != nil {
			return err
		}
		for _, place := range places[n:] {
			b[place-at] = deleted
		}
		if _, err := d.fs.disk.WriteAt(b, at); err != nil {
			return err
		}
		if err := d.fs.disk.Sync(); err != nil {
			return err
		}
		places = places[:n]
	}
	return nil
}
