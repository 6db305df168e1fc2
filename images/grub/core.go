package grub

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/ulikunitz/xz/lzma"
)

// modules are what grub.cfg takes: the disk of the BIOS, its partitions, the ESP, a file as a disk, Linux; what becomes of a failure; and what
// counts the tries of a version.
var modules = []string{"biosdisk", "part_gpt", "fat", "loopback", "linux", "normal", "sleep", "reboot", "loadenv", "test", "configfile"}

// prefix is where GRUB finds grub.cfg: on the second partition of the disk that it was loaded from, which is the ESP.
const prefix = "(,gpt2)/" + directory

const (
	linkAddress = 0x9000 // of the kernel

	// A core image carries objects behind the kernel, each behind its type and size.
	moduleMagic  = 0x676d696d
	objectModule = 0
	objectPrefix = 3

	// In lzma_decompress.img.
	compressedSize   = 0x08
	uncompressedSize = 0x0c
)

// core returns the core image: diskboot.img, the decompressor, and what that unpacks.
func (p *parts) core() []byte {
	diskboot, decompressor := p.read("diskboot.img", sector), p.read("lzma_decompress.img", 0)
	plain := append(p.kernel(), p.objects()...)
	if p.err != nil {
		return nil
	}
	if len(decompressor) < uncompressedSize+4 {
		p.err = fmt.Errorf("lzma_decompress.img: %d bytes", len(decompressor))
		return nil
	}
	packed, err := compress(plain)
	if err != nil {
		p.err = err
		return nil
	}
	binary.LittleEndian.PutUint32(decompressor[compressedSize:], uint32(len(packed)))
	binary.LittleEndian.PutUint32(decompressor[uncompressedSize:], uint32(len(plain)))
	return slices.Concat(diskboot, decompressor, packed)
}

// kernel returns what GRUB's kernel is in memory, up to the data that begins as zeros.
func (p *parts) kernel() []byte {
	const name = "kernel.img"
	data := p.read(name, 0)
	if p.err != nil {
		return nil
	}
	file, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		p.err = fmt.Errorf("%s: %w", name, err)
		return nil
	}
	for _, segment := range file.Progs {
		if segment.Type != elf.PT_LOAD || segment.Vaddr != linkAddress {
			continue
		}
		image, err := io.ReadAll(io.NewSectionReader(segment, 0, int64(segment.Filesz)))
		if err != nil {
			p.err = fmt.Errorf("%s: %w", name, err)
		}
		return image
	}
	p.err = fmt.Errorf("%s: nothing to load at %#x", name, linkAddress)
	return nil
}

// objects returns the modules and the prefix, as the kernel looks for them behind itself.
func (p *parts) objects() []byte {
	le := binary.LittleEndian
	var all []byte
	add := func(kind uint32, data []byte) {
		for len(data)%4 != 0 || kind == objectPrefix && (len(data) == 0 || data[len(data)-1] != 0) {
			data = append(data, 0)
		}
		all = le.AppendUint32(all, kind)
		all = le.AppendUint32(all, uint32(8+len(data)))
		all = append(all, data...)
	}
	for _, name := range p.needed() {
		add(objectModule, p.read(name+".mod", 0))
	}
	add(objectPrefix, []byte(prefix))
	const header = 12
	var info []byte
	for _, v := range []uint32{moduleMagic, header, uint32(header + len(all))} {
		info = le.AppendUint32(info, v)
	}
	return append(info, all...)
}

// needed returns modules with all that they need, each after what it needs itself.
func (p *parts) needed() []string {
	needs := map[string][]string{}
	for line := range strings.Lines(string(p.read("moddep.lst", 0))) {
		name, others, _ := strings.Cut(line, ":")
		needs[name] = strings.Fields(others)
	}
	var order []string
	var visit func(string)
	visit = func(name string) {
		if slices.Contains(order, name) {
			return
		}
		for _, other := range needs[name] {
			visit(other)
		}
		order = append(order, name)
	}
	for _, name := range modules {
		visit(name)
	}
	return order
}

// compress returns what the decompressor expects: an LZMA stream without header and end mark. It knows the properties.
func compress(plain []byte) ([]byte, error) {
	const header = 13
	var out bytes.Buffer
	c := lzma.WriterConfig{Properties: &lzma.Properties{LC: 3, LP: 0, PB: 2}, DictCap: 1 << 20, SizeInHeader: true, Size: int64(len(plain))}
	w, err := c.NewWriter(&out)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes()[header:], nil
}
