// Package kerneltest makes kernels without a kernel, for tests of what takes modules out of packages.
package kerneltest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"
)

// Module is an ELF file with nothing but a .modinfo.
func Module(t testing.TB, pairs ...string) []byte {
	t.Helper()
	info := []byte(strings.Join(pairs, "\x00") + "\x00")
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	header := elf.Header64{Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1,
		Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 2, Shoff: uint64(64 + len(info) + len(names))}
	out := &bytes.Buffer{}
	for _, part := range []any{header, info, names, elf.Section64{},
		elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: 64, Size: uint64(len(info)), Addralign: 1},
		elf.Section64{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(64 + len(info)), Size: uint64(len(names)), Addralign: 1},
	} {
		if err := binary.Write(out, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	out.WriteString("~Module signature appended~\n")
	return out.Bytes()
}

// Tree writes the files of a kernel's package, 6.12.1-test, and returns their directory: modules by path below kernel/.
func Tree(t testing.TB, builtin string, modules map[string][]byte) string {
	t.Helper()
	root := t.TempDir()
	files := map[string][]byte{"boot/vmlinuz-6.12.1-test": []byte("kernel"), "usr/lib/modules/6.12.1-test/modules.builtin": []byte(builtin)}
	for path, data := range modules {
		if strings.HasSuffix(path, ".xz") {
			compressed := &bytes.Buffer{}
			w, _ := xz.NewWriter(compressed)
			w.Write(data)
			w.Close()
			data = compressed.Bytes()
		}
		files["usr/lib/modules/6.12.1-test/kernel/"+path] = data
	}
	for path, data := range files {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, path), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}
