package bootentry

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/cosi-os/cosi/api/layout/verity"
)

// Places on the EFI system partition of what a BIOS boots by: GRUB finds its counter in EnvFile, and how to boot a root in what GRUBFile names.
const (
	GRUBDir = "grub"
	EnvFile = GRUBDir + "/grubenv"
)

// GRUBFile is the place of the configuration that boots a root.
func (e Entry) GRUBFile() string { return GRUBDir + "/" + e.Root.String() + ".cfg" }

// Env is GRUB's environment block. GRUB boots Trial while it has tries left, and counts one down before it does, and else Good. What it holds is in
// the first sector of the file, so that a change happens whole or not at all.
type Env struct {
	Good, Trial verity.Hash // Trial may be zero
	Left        int
}

const (
	envSize   = 1024 // GRUB_ENVBLK_DEFSIZE
	envHeader = "# GRUB Environment Block\n"
)

// Encode returns the file's content.
func (e Env) Encode() []byte {
	text := envHeader + "good=" + e.Good.String() + "\n"
	if e.Trial != (verity.Hash{}) {
		text += fmt.Sprintf("trial=%s\nleft=%d\n", e.Trial, e.Left)
	}
	return []byte(text + strings.Repeat("#", envSize-len(text)))
}

// ParseEnv reads what Encode wrote, and GRUB may have changed.
func ParseEnv(data []byte) (e Env, err error) {
	text, is := strings.CutPrefix(string(data), envHeader)
	if !is || len(data) != envSize {
		return e, fmt.Errorf("%s: no environment block of GRUB", EnvFile)
	}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		switch name {
		case "good":
			e.Good, err = verity.ParseHash(value)
		case "trial":
			e.Trial, err = verity.ParseHash(value)
		case "left":
			e.Left, err = strconv.Atoi(value)
		}
		if err != nil {
			return e, fmt.Errorf("%s: %s: %w", EnvFile, name, err)
		}
	}
	if e.Good == (verity.Hash{}) {
		return e, fmt.Errorf("%s: it names nothing to boot", EnvFile)
	}
	return e, nil
}
