package doorbell

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// probes are the objects of all generators.
func probes(t *testing.T) map[string]*ebpf.CollectionSpec {
	t.Helper()
	files, err := filepath.Glob("../../*/probe_*.o")
	if err != nil || len(files) < 10 {
		t.Fatalf("objects %q, %v; want those of five generators", files, err)
	}
	all := map[string]*ebpf.CollectionSpec{}
	for _, file := range files {
		if all[file], err = ebpf.LoadCollectionSpec(file); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	return all
}

// What is read of the kernel of this machine is what the library finds when it reads everything.
func TestTypesAreThoseThatTheLibraryFinds(t *testing.T) {
	f, err := os.Open(kernelTypes)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("this machine's kernel has no types")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	whole, err := btf.LoadSpecFromReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for file, spec := range probes(t) {
		found, err := readTypes(kernelTypes, spec)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		for name, program := range spec.Programs {
			if want, got := relocated(t, program, whole), relocated(t, program, found.spec); got != want {
				t.Errorf("%s: %s reads\n%s; the library\n%s", file, name, got, want)
			}
			var function *btf.Func
			if program.Type != ebpf.Tracing || whole.TypeByName(program.AttachTo, &function) != nil {
				continue
			}
			id, err := whole.TypeID(function)
			if ids := found.functions[program.AttachTo]; err != nil || len(ids) != 1 || ids[0] != id {
				t.Errorf("%s: functions %s are %d, %v; want %d", file, program.AttachTo, ids, err, id)
			}
		}
	}
}

// relocated is the code of a program as it reads the fields of a kernel.
func relocated(t *testing.T, program *ebpf.ProgramSpec, kernel *btf.Spec) string {
	t.Helper()
	code := program.Copy().Instructions
	if err := (&types{spec: kernel}).relocate(code, program.ByteOrder); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(code)
}

// kernelOf is a file that the kernel of such types would show.
func kernelOf(t *testing.T, all ...btf.Type) []byte {
	t.Helper()
	b, err := btf.NewBuilder(all, nil)
	if err != nil {
		t.Fatal(err)
	}
	data, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func smallKernel(t *testing.T) []byte {
	number := &btf.Int{Name: "int", Size: 4}
	other := &btf.Struct{Name: "other", Size: 4, Members: []btf.Member{{Name: "n", Type: number}}}
	inner := &btf.Union{Size: 4, Members: []btf.Member{{Name: "n", Type: &btf.Typedef{Name: "number", Type: number}}, {Name: "e", Type: &btf.Enum{Name: "e", Size: 4, Values: []btf.EnumValue{{Name: "one", Value: 1}}}}}}
	device := &btf.Struct{Name: "device", Size: 24, Members: []btf.Member{
		{Name: "other", Type: &btf.Pointer{Target: other}}, {Name: "in", Type: inner, Offset: 64},
		{Name: "list", Type: &btf.Array{Index: number, Type: &btf.Const{Type: number}, Nelems: 3}, Offset: 96},
	}}
	function := func(name string) btf.Type {
		return &btf.Func{Name: name, Type: &btf.FuncProto{Return: number, Params: []btf.FuncParam{{Name: "d", Type: &btf.Pointer{Target: device}}}}}
	}
	return kernelOf(t, function("once"), function("twice"), function("twice"), device, function("unwanted"))
}

var smallNames = map[string]bool{"device": true, "once": true, "twice": true, "a": true}

func TestTypesAreFoundByTheirNames(t *testing.T) {
	found, err := parseTypes(smallKernel(t), smallNames)
	if err != nil {
		t.Fatal(err)
	}
	if once, twice := found.functions["once"], found.functions["twice"]; len(once) != 1 || len(twice) != 2 || len(found.functions) != 2 {
		t.Errorf("functions %v; want one and two of those that are wanted", found.functions)
	}
	var device, other *btf.Struct
	if err := found.spec.TypeByName("device", &device); err != nil || device.Size != 24 || len(device.Members) != 3 || device.Members[2].Offset != 96 || device.Members[1].Name != "in" {
		t.Errorf("device is %+v, %v", device, err)
	}
	if err := found.spec.TypeByName("other", &other); err == nil {
		t.Errorf("what is pointed to is there: %v", other)
	}
	for name, want := range map[string]string{"nothing": "0 functions nothing", "twice": "2 functions twice"} {
		_, err := found.load(&ebpf.ProgramSpec{Type: ebpf.Tracing, AttachTo: name}, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("load = %v; want %q", err, want)
		}
	}
}

// What is broken is an error, or is left out.
func TestBrokenTypes(t *testing.T) {
	whole := smallKernel(t)
	for size := range whole {
		if _, err := parseTypes(whole[:size], smallNames); err == nil {
			t.Errorf("the first %d of %d bytes are no error", size, len(whole))
		}
	}
	for at := range whole {
		for _, b := range []byte{0, 1, 9, 0x7f, 0xff} {
			broken := append([]byte(nil), whole...)
			broken[at] = b
			_, _ = parseTypes(broken, smallNames) // whatever it says
		}
	}
	// The first type, of a kind of the future; and one that consists of itself.
	for what, words := range map[string][2]uint32{"kind 31": {31 << 24, 0}, "": {kindTypedef << 24, 1}} {
		broken := append([]byte(nil), whole...)
		binary.NativeEndian.PutUint32(broken[headerSize+4:], words[0])
		binary.NativeEndian.PutUint32(broken[headerSize+8:], words[1])
		if _, err := parseTypes(broken, smallNames); what != "" && (err == nil || !strings.Contains(err.Error(), what)) {
			t.Errorf("%v; want %q", err, what)
		}
	}
	if _, err := readTypes(filepath.Join(t.TempDir(), "none"), &ebpf.CollectionSpec{}); err != nil {
		t.Errorf("a probe that needs no types: %v", err)
	}
}

// Why the kernel takes a program or not is its verifier's to say.
func TestTheVerifierIsQuoted(t *testing.T) {
	good := &ebpf.ProgramSpec{Type: ebpf.RawTracepoint, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}}
	if program, err := ebpf.NewProgram(good); errors.Is(err, unix.EPERM) { // the verifier's own refusals are EACCES
		t.Skipf("this user may load no programs: %v", err)
	} else if err != nil {
		t.Fatal(err)
	} else {
		program.Close()
	}
	spec := &ebpf.ProgramSpec{Name: "bad", Type: ebpf.RawTracepoint, License: "GPL", ByteOrder: binary.LittleEndian, Instructions: asm.Instructions{asm.Return()}}
	if _, err := (&types{}).load(spec, nil); err == nil || !strings.Contains(err.Error(), "R0 !read_ok") {
		t.Errorf("load = %v; want that register 0 was never written", err)
	}
}
