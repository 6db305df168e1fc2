// Package rules says what may be in a root: no shell and no interpreter, nothing that is linked dynamically, nothing setuid.
//
// The image builder checks every file with it before it writes a root, whoever brings the file, and each file of a system extension when it
// reads one.
package rules

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"github.com/cosi-os/cosi/images/rootfs"
)

// interpreters are programs that run whatever they are given, by the names that everybody knows them by.
var interpreters = regexp.MustCompile(`^(r?bash|[ackz]?sh|dash|fish|mksh|tcsh|busybox|toybox|python[0-9.]*|perl[0-9.]*|ruby[0-9.]*|lua(jit)?[0-9.]*|node|php[0-9.]*|tclsh[0-9.]*|awk|gawk|mawk)$`)

// machines are what an architecture's programs are for.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// Check returns why e must not be in a root of an architecture, nil if it may.
func Check(e rootfs.Entry, arch string) error {
	if err := check(e, arch); err != nil {
		return fmt.Errorf("/%s: %w", e.Path, err)
	}
	return nil
}

func check(e rootfs.Entry, arch string) error {
	switch {
	case e.Mode&^(fs.ModePerm|fs.ModeDir|fs.ModeSymlink) != 0:
		return fmt.Errorf("has the mode %v: want a file, a directory or a symbolic link, and nothing setuid", e.Mode)
	case e.Mode&fs.ModeSymlink != 0:
		if path.IsAbs(e.Target) || !fs.ValidPath(path.Join(path.Dir(e.Path), e.Target)) {
			return fmt.Errorf("points to %q: want a relative path inside the root", e.Target)
		}
	case e.Mode.Perm()&0o022 != 0:
		return fmt.Errorf("has the mode %v: somebody else than root may write to it", e.Mode)
	}
	if !e.Mode.IsDir() && interpreters.MatchString(path.Base(e.Path)) {
		return errors.New("is the name of a shell or an interpreter: a node has none")
	}
	if !e.Mode.IsRegular() {
		return nil
	}
	return checkContent(e, arch)
}

// checkContent checks what is in a file.
func checkContent(e rootfs.Entry, arch string) error {
	start := make([]byte, len(elf.ELFMAG))
	if e.Content != nil {
		if n, err := e.Content.ReadAt(start, 0); err != nil && !errors.Is(err, io.EOF) {
			return err
		} else if n >= 2 && string(start[:2]) == "#!" {
			return errors.New("is a script, and a node has nothing that runs one")
		}
	}
	executable := e.Mode.Perm()&0o111 != 0
	module := strings.HasSuffix(e.Path, ".ko")
	if !bytes.Equal(start, []byte(elf.ELFMAG)) {
		if executable || module {
			return errors.New("is no ELF file, and is to be run")
		}
		return nil
	}
	file, err := elf.NewFile(e.Content)
	if err != nil {
		return err
	}
	if file.Machine != machines[arch] {
		return fmt.Errorf("is for %v: want %v", file.Machine, machines[arch])
	}
	switch {
	case module && !executable && file.Type == elf.ET_REL:
		return nil
	case !executable:
		return errors.New("is a program, and its mode says that it is none")
	}
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("is linked dynamically (it wants an interpreter): a root has no libraries")
		}
	}
	if needed, err := file.DynString(elf.DT_NEEDED); err == nil && len(needed) > 0 {
		return fmt.Errorf("is linked dynamically (it wants %s): a root has no libraries", strings.Join(needed, ", "))
	}
	return nil
}
