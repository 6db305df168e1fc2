package userdata

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// Names of the sources, in the order in which they are applied. What an earlier one has written, a later one does not change.
const (
	sourceImage   = "image" // the image's default resources: whoever else writes a resource replaces them
	sourceFwCfg   = "fw_cfg"
	sourceCmdline = "cmdline"
	sourceCIDATA  = "cidata"
	// sourceConfigDrive is OpenStack's disk. The platforms' own sources have the platforms' names.
	sourceConfigDrive = "config-drive"
	sourceESP         = "esp"
	sourceURL         = "url"
)

// States of a UserDataSource.
const (
	stateAbsent        = "Absent"
	stateUnreachable   = "Unreachable"
	stateRefused       = "Refused"
	stateApplied       = "Applied"
	statePartlyApplied = "PartlyApplied"
	stateFailed        = "Failed"
)

// maxSize bounds user data. Clouds allow 16 to 256 KiB; certificates and a few hundred documents fit.
const maxSize = 4 << 20

// errRefused wraps the reason why a source that is there is not used.
var errRefused = errors.New("refused")

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errRefused, fmt.Sprintf(format, args...))
}

// found is user data as a source has it.
type found struct {
	source string
	// id is the id of the UserDataSource: the name of the source, for disks with the device.
	id string
	// name says where the bytes were: a path, a URL. Its extension tells the format, where it has one.
	name string
	data []byte
	// unauthenticated data came over a channel that anyone on the path could have changed.
	unauthenticated bool
	// err is why what is there cannot be used. A source with neither data nor error is absent.
	err error
	// missing is what an absent source lacks, in words.
	missing string
}

// nowhere is a source that there is none of.
func nowhere(source, missing string) *found {
	return &found{source: source, id: source, missing: missing}
}

func (f *found) absent() bool { return f.data == nil && f.err == nil }

func (f *found) digest() string {
	sum := sha256.Sum256(f.data)
	return hex.EncodeToString(sum[:])
}

// provenance is the value of the annotation that marks what this data wrote.
func (f *found) provenance() string {
	if f.source == sourceImage {
		return provenanceImage
	}
	return provenanceUserData + f.id + "@" + f.digest()[:12]
}
