package kernel

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Info is what a module says about itself in its section .modinfo.
type Info struct {
	// Depends are the modules whose symbols it uses.
	Depends []string
	// Before are the modules that it wants loaded first, if there are any.
	Before []string
	// Aliases are the devices, file systems and protocols that it serves: "virtio:d00000001v*", "fs-erofs".
	Aliases []string
}

// ErrNotModule says that a file is not a kernel module.
var ErrNotModule = errors.New("not a kernel module")

// ReadInfo reads the ELF file of a module.
func ReadInfo(r io.ReaderAt) (Info, error) {
	file, err := elf.NewFile(r)
	if err != nil {
		return Info{}, fmt.Errorf("%w: %w", ErrNotModule, err)
	}
	section := file.Section(".modinfo")
	if section == nil || section.Type == elf.SHT_NOBITS {
		return Info{}, fmt.Errorf("no .modinfo: %w", ErrNotModule)
	}
	data, err := section.Data()
	if err != nil {
		return Info{}, fmt.Errorf("%w: %w", ErrNotModule, err)
	}
	return parseInfo(data), nil
}

// parseInfo reads KEY=VALUE pairs that end in zero bytes.
func parseInfo(data []byte) Info {
	info := Info{}
	for pair := range bytes.SplitSeq(data, []byte{0}) {
		key, value, _ := strings.Cut(string(pair), "=")
		switch key {
		case "depends":
			for name := range strings.SplitSeq(value, ",") {
				if name != "" {
					info.Depends = append(info.Depends, nameOf(name))
				}
			}
		case "softdep":
			// "pre: a b post: c"
			before := false
			for _, word := range strings.Fields(value) {
				switch {
				case strings.HasSuffix(word, ":"):
					before = word == "pre:"
				case before:
					info.Before = append(info.Before, nameOf(word))
				}
			}
		case "alias":
			info.Aliases = append(info.Aliases, value)
		}
	}
	return info
}
