package log

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
)

// tape is a disk in memory that records what is done with it, so that the disk can be made again as a loss of power might leave it at any
// moment: what was synced is there, and of the rest anything.
type tape struct {
	mu    sync.Mutex // guards the fields below
	names map[string]*inode
	base  map[string]*inode // names at the beginning, durable
	done  []action
	// fault, if set, may fail an action before it is done, by its number. It returns how much of a write is done nevertheless.
	fault func(n int, a action) (part int, err error)
	// trusted is the first thing that was done with a file after a sync of it had failed.
	trusted string
}

// inode is a file whatever its name. durable is its content at the beginning of the tape.
type inode struct {
	data, durable []byte
	failed        bool // a sync of it has, in this process
}

// action is one thing done with the disk, or an acknowledgement.
type action struct {
	what   string // create rename remove syncdir, write truncate sync lose, ack
	inode  *inode
	name   string
	to     string
	offset int64
	data   []byte
	ack    uint64 // sequence that was acknowledged
}

func newTape(files map[string][]byte) *tape {
	t := &tape{names: map[string]*inode{}}
	for name, data := range files {
		t.names[name] = &inode{data: slices.Clone(data), durable: slices.Clone(data)}
	}
	t.base = maps.Clone(t.names)
	return t
}

// do records a and does it, or what a fault leaves of it.
func (t *tape) do(a action, effect func(part int)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if (a.what == "sync" || a.what == "write") && a.inode.failed && t.trusted == "" {
		t.trusted = a.what
	}
	part := len(a.data)
	var err error
	if t.fault != nil && a.what != "ack" {
		if part, err = t.fault(len(t.done), a); err != nil && a.what == "sync" {
			t.done = append(t.done, action{what: "lose", inode: a.inode})
			a.inode.failed = true
			return err
		} else if err != nil && part == 0 {
			return err
		}
	}
	if a.data != nil {
		a.data = slices.Clone(a.data[:part])
	}
	t.done = append(t.done, a)
	effect(part)
	return err
}

func (t *tape) ack(sequence uint64) { t.do(action{what: "ack", ack: sequence}, func(int) {}) }

// renames counts the files that got a name with a suffix.
func (t *tape) renames(suffix string) (n int) {
	for _, a := range t.done {
		if a.what == "rename" && strings.HasSuffix(a.to, suffix) {
			n++
		}
	}
	return n
}

func (t *tape) Names() ([]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.names)), nil
}

func (t *tape) Open(name string) (file, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := t.names[name]; i != nil {
		return &tapeFile{t, i}, nil
	}
	return nil, fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
}

func (t *tape) Create(name string) (file, error) {
	i := &inode{}
	err := t.do(action{what: "create", name: name, inode: i}, func(int) { t.names[name] = i })
	return &tapeFile{t, i}, err
}

func (t *tape) Rename(from, to string) error {
	t.mu.Lock()
	i := t.names[from]
	t.mu.Unlock()
	return t.do(action{what: "rename", name: from, to: to, inode: i}, func(int) {
		t.names[to] = i
		delete(t.names, from)
	})
}

func (t *tape) Remove(name string) error {
	return t.do(action{what: "remove", name: name}, func(int) { delete(t.names, name) })
}

func (t *tape) Sync() error  { return t.do(action{what: "syncdir"}, func(int) {}) }
func (t *tape) Close() error { return nil }

type tapeFile struct {
	tape *tape
	*inode
}

func (f *tapeFile) ReadAt(b []byte, offset int64) (int, error) {
	f.tape.mu.Lock()
	defer f.tape.mu.Unlock()
	if offset > int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.data[offset:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *tapeFile) WriteAt(b []byte, offset int64) (n int, err error) {
	err = f.tape.do(action{what: "write", inode: f.inode, offset: offset, data: b}, func(part int) {
		n = part
		f.data = written(f.data, offset, b[:part])
	})
	return n, err
}

func (f *tapeFile) Size() (int64, error) {
	f.tape.mu.Lock()
	defer f.tape.mu.Unlock()
	return int64(len(f.data)), nil
}

func (f *tapeFile) Truncate(size int64) error {
	return f.tape.do(action{what: "truncate", inode: f.inode, offset: size}, func(int) { f.data = truncated(f.data, size) })
}

func (f *tapeFile) Allocate(size int64) error {
	if have, _ := f.Size(); have >= size {
		return nil
	}
	return f.Truncate(size)
}

func (f *tapeFile) Sync() error {
	return f.tape.do(action{what: "sync", inode: f.inode}, func(int) {})
}
func (f *tapeFile) Close() error { return nil }

func written(data []byte, offset int64, b []byte) []byte {
	if end := offset + int64(len(b)); end > int64(len(data)) {
		data = truncated(data, end)
	}
	copy(data[offset:], b)
	return data
}

func truncated(data []byte, size int64) []byte {
	if size <= int64(len(data)) {
		return data[:size:size]
	}
	return append(slices.Clone(data), make([]byte, size-int64(len(data)))...)
}

// survival decides what becomes of actions that were not synced when the power went.
type survival struct {
	name string
	// file and entry say whether a change of a file's content or length, and one of the directory, survives.
	file, entry func(*rand.Rand) bool
	torn        bool // of a write that survives, only some sectors do
}

func never(*rand.Rand) bool     { return false }
func always(*rand.Rand) bool    { return true }
func perhaps(r *rand.Rand) bool { return r.IntN(2) == 0 }
func survivals() (all []survival) {
	return []survival{
		{"nothing survives", never, never, false},
		{"everything survives", always, always, false},
		{"names survive, contents do not", never, always, false},
		{"contents survive, names do not", always, never, false},
		{"torn writes", always, always, true},
		{"anything", perhaps, perhaps, false},
		{"anything, torn", perhaps, perhaps, true},
	}
}

// cut returns the files as a loss of power after the first n actions may leave them, and the last sequence acknowledged by then.
func (t *tape) cut(n int, s survival, random *rand.Rand) (files map[string][]byte, acknowledged uint64) {
	names, contents := maps.Clone(t.base), map[*inode][]byte{}
	for _, i := range names {
		contents[i] = i.durable
	}
	var entries []action
	unsynced := map[*inode][]action{}
	for _, a := range t.done[:n] {
		switch a.what {
		case "ack":
			acknowledged = max(acknowledged, a.ack)
		case "create", "rename", "remove":
			entries = append(entries, a)
		case "syncdir":
			for _, e := range entries {
				link(names, e)
			}
			entries = nil
		case "sync":
			for _, u := range unsynced[a.inode] {
				contents[a.inode] = apply(contents[a.inode], u)
			}
			delete(unsynced, a.inode)
		case "lose":
			contents[a.inode], unsynced[a.inode] = lose(contents[a.inode], unsynced[a.inode], s, random)
		default:
			unsynced[a.inode] = append(unsynced[a.inode], a)
		}
	}
	for _, e := range entries {
		if s.entry(random) {
			link(names, e)
		}
	}
	files = map[string][]byte{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		i := names[name]
		data := contents[i]
		for _, u := range unsynced[i] {
			if s.file(random) {
				data = applyTorn(data, u, s.torn, random)
			}
		}
		files[name] = data
	}
	return files, acknowledged
}

// lose does what the kernel does when a sync fails: the pages are clean then, whatever became of them, and no later sync writes them. Who
// reads the file finds what was written all the same. Lengths are the journal's, and wait for the next sync.
func lose(data []byte, unsynced []action, s survival, random *rand.Rand) (left []byte, lengths []action) {
	for _, u := range unsynced {
		if u.what == "truncate" {
			lengths = append(lengths, u)
		} else if s.file(random) {
			data = applyTorn(data, u, s.torn, random)
		}
	}
	return data, lengths
}

// restart is what becomes of the tape when the process dies and another begins: the kernel goes on.
func (t *tape) restart() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, i := range t.names {
		i.failed = false
	}
}

func link(names map[string]*inode, a action) {
	switch a.what {
	case "create":
		names[a.name] = a.inode
	case "rename":
		delete(names, a.name)
		names[a.to] = a.inode
	case "remove":
		delete(names, a.name)
	}
}

func apply(data []byte, a action) []byte {
	if a.what == "truncate" {
		return truncated(data, a.offset)
	}
	return written(slices.Clone(data), a.offset, a.data)
}

// sector is what a disk writes at once.
const sector = 64 // less than a real one's, so that small records are torn too

func applyTorn(data []byte, a action, torn bool, random *rand.Rand) []byte {
	if !torn || a.what != "write" {
		return apply(data, a)
	}
	for at := 0; at < len(a.data); {
		end := min(len(a.data), at+sector-int(a.offset+int64(at))%sector)
		if random.IntN(3) > 0 {
			data = apply(data, action{what: "write", offset: a.offset + int64(at), data: a.data[at:end]})
		}
		at = end
	}
	return data
}
