package doorbell

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// kernelTypes are where the running kernel tells of its structures and functions, in the BPF Type Format:
// https://docs.kernel.org/bpf/btf.html
const kernelTypes = "/sys/kernel/btf/vmlinux"

// types are what a probe needs of the kernel's 100,000 types. The library would read all of them: three quarters of what a generator costs at
// its start, and 20 MiB for the time being.
type types struct {
	spec      *btf.Spec               // structures that the probe names, for CO-RE
	functions map[string][]btf.TypeID // several may have a name
}

// needed reports whether a probe needs any: it is attached to a function by its type, or reads a field.
func needed(spec *ebpf.CollectionSpec) bool {
	for _, program := range spec.Programs {
		if program.Type == ebpf.Tracing {
			return true
		}
		for i := range program.Instructions {
			if btf.CORERelocationMetadata(&program.Instructions[i]) != nil {
				return true
			}
		}
	}
	return false
}

// kernelNames are the names in a probe that the kernel may know: of structures, and of functions that programs are attached to.
func kernelNames(spec *ebpf.CollectionSpec) (names map[string]bool, err error) {
	names = map[string]bool{}
	for _, program := range spec.Programs {
		names[program.AttachTo] = true
	}
	for t, err := range spec.Types.All() {
		if err != nil {
			return nil, err
		}
		switch t.(type) {
		case *btf.Struct, *btf.Union, *btf.Typedef:
			name, _, _ := strings.Cut(t.TypeName(), "___") // the kernel calls x___later x
			names[name] = true
		}
	}
	delete(names, "") // what is anonymous, or attached to nothing
	return names, nil
}

// readTypes reads what a probe needs of the kernel's types in file.
func readTypes(file string, spec *ebpf.CollectionSpec) (*types, error) {
	if !needed(spec) {
		return &types{}, nil
	}
	names, err := kernelNames(spec)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// Not on the heap, which would grow by these megabytes, and collect garbage.
	data, err := unix.Mmap(-1, 0, int(info.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("%s: memory for it: %w", file, err)
	}
	defer unix.Munmap(data)
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	t, err := parseTypes(data, names)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return t, nil
}

var errCut = errors.New("cut off, or no types")

// Kinds of types.
const (
	kindInteger  = 1
	kindPointer  = 2
	kindArray    = 3
	kindStruct   = 4
	kindUnion    = 5
	kindEnum     = 6
	kindForward  = 7
	kindTypedef  = 8
	kindVolatile = 9
	kindConst    = 10
	kindRestrict = 11
	kindFunction = 12
	kindFloat    = 16
	kindTypeTag  = 18
	kindEnum64   = 19
)

// Of a type's words, the first is where its name stands in the text, the second has its kind and the number of its members, and the third is
// a size, or the type that it is made of. behind is how many stand behind these: at all, and for each member. The index is the kind.
var behind = [...]struct{ always, each int }{
	kindInteger: {always: 1}, kindArray: {always: 3}, kindStruct: {each: 3}, kindUnion: {each: 3}, kindEnum: {each: 2}, 13: {each: 2}, 14: {always: 1},
	15: {each: 3}, 17: {always: 1}, kindEnum64: {each: 3},
}

const headerSize = 24

// parseTypes finds types and functions by their names. What it returns shares no memory with data.
func parseTypes(data []byte, names map[string]bool) (*types, error) {
	if len(data) < headerSize || binary.NativeEndian.Uint16(data) != 0xeb9f {
		return nil, errCut
	}
	word := func(at int) uint64 { return uint64(binary.NativeEndian.Uint32(data[at:])) }
	size := uint64(len(data))
	wordsAt, textAt := word(4)+word(8), word(4)+word(16)
	wordsEnd, textEnd := wordsAt+word(12), textAt+word(20)
	if wordsEnd > size || textEnd > size || wordsAt%4 != 0 || wordsAt == wordsEnd || textAt == textEnd || data[textEnd-1] != 0 {
		return nil, errCut
	}
	k := &selection{
		words: unsafe.Slice((*uint32)(unsafe.Pointer(&data[wordsAt])), (wordsEnd-wordsAt)/4),
		text:  data[textAt:textEnd],
		ids:   map[btf.TypeID]btf.TypeID{0: 0},
	}
	t := &types{functions: map[string][]btf.TypeID{}}
	structures, err := k.find(names, t.functions)
	if err != nil {
		return nil, err
	}
	for _, id := range structures {
		if _, err := k.keep(id); err != nil {
			return nil, err
		}
	}
	t.spec, err = k.spec()
	return t, err
}

// selection is the types that are kept, and what they are taken from.
type selection struct {
	words []uint32
	text  []byte
	at    []uint32 // where in words the type begins that has this index as its id, less 1

	ids     map[btf.TypeID]btf.TypeID // of those that are kept, their new ones
	count   btf.TypeID
	out     []byte
	outText []byte
}

// find goes through all types and returns the structures that have one of the names, and adds the functions that have.
func (k *selection) find(names map[string]bool, functions map[string][]btf.TypeID) (structures []btf.TypeID, err error) {
	var beginnings [1 << 16]bool // of the names: few others begin so
	for name := range names {
		beginnings[binary.NativeEndian.Uint16([]byte(name+"\x00"))] = true
	}
	k.at = make([]uint32, 0, len(k.words)/6) // about as many as there are
	for at := 0; at < len(k.words); {
		kind, size := k.size(at)
		if size == 0 {
			return nil, fmt.Errorf("type %d of kind %d: %w", len(k.at)+1, kind, errCut)
		}
		k.at = append(k.at, uint32(at))
		switch kind {
		case kindStruct, kindUnion, kindTypedef, kindFunction:
			text := k.text[min(int(k.words[at]), len(k.text)-1):]
			if len(text) < 2 || !beginnings[binary.NativeEndian.Uint16(text)] {
				break
			}
			text = text[:bytes.IndexByte(text, 0)]
			if !names[string(text)] {
				break
			}
			if id := btf.TypeID(len(k.at)); kind == kindFunction {
				functions[string(text)] = append(functions[string(text)], id)
			} else {
				structures = append(structures, id)
			}
		}
		at += size
	}
	return structures, nil
}

// size of the type that begins there, in words; 0 if it is cut off, or of a kind that is not known, so that what follows cannot be found.
func (k *selection) size(at int) (kind, size int) {
	if at+3 > len(k.words) {
		return 0, 0
	}
	info := k.words[at+1]
	kind = int(info >> 24 & 0x1f)
	if kind == 0 || kind >= len(behind) {
		return kind, 0
	}
	size = 3 + behind[kind].always + int(info&0xffff)*behind[kind].each
	if at+size > len(k.words) {
		return kind, 0
	}
	return kind, size
}

// keep keeps a type and what it consists of, and returns its new id. What a pointer points to is no part of it: nobody needs to know.
func (k *selection) keep(id btf.TypeID) (btf.TypeID, error) {
	if chosen, ok := k.ids[id]; ok {
		return chosen, nil
	}
	if int(id) > len(k.at) {
		return 0, fmt.Errorf("there is no type %d", id)
	}
	k.ids[id] = 0 // one that consists of itself would have no end
	at := int(k.at[id-1])
	kind, size := k.size(at)
	t := slices.Clone(k.words[at : at+size])
	k.rename(&t[0])
	var parts []*uint32 // types that it consists of
	switch kind {
	case kindInteger, kindForward, kindFloat:
	case kindPointer:
		t[2] = 0 // void
	case kindTypedef, kindVolatile, kindConst, kindRestrict, kindTypeTag:
		parts = append(parts, &t[2])
	case kindArray:
		parts = append(parts, &t[3], &t[4])
	case kindStruct, kindUnion:
		for member := 3; member < size; member += 3 {
			k.rename(&t[member])
			parts = append(parts, &t[member+1])
		}
	case kindEnum, kindEnum64:
		for value := 3; value < size; value += behind[kind].each {
			k.rename(&t[value])
		}
	default:
		return 0, nil // functions and variables are no data: as good as void
	}
	for _, part := range parts {
		id, err := k.keep(btf.TypeID(*part))
		if err != nil {
			return 0, err
		}
		*part = uint32(id)
	}
	for _, word := range t {
		k.out = binary.NativeEndian.AppendUint32(k.out, word)
	}
	k.count++
	k.ids[id] = k.count
	return k.count, nil
}

// rename keeps the text that stands there; that of what has no name is empty.
func (k *selection) rename(name *uint32) {
	text := k.text[min(int(*name), len(k.text)-1):]
	*name = 0
	if size := bytes.IndexByte(text, 0); size > 0 {
		*name = uint32(1 + len(k.outText))
		k.outText = append(k.outText, text[:size+1]...)
	}
}

// spec is what was kept, as the library reads it.
func (k *selection) spec() (*btf.Spec, error) {
	text := append([]byte{0}, k.outText...)
	b := binary.NativeEndian.AppendUint16(nil, 0xeb9f)
	b = append(b, 1, 0) // version, flags
	for _, n := range []int{headerSize, 0, len(k.out), len(k.out), len(text)} {
		b = binary.NativeEndian.AppendUint32(b, uint32(n))
	}
	return btf.LoadSpecFromReader(bytes.NewReader(append(append(b, k.out...), text...)))
}
