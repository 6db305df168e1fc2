// Package manifest is what an image says of itself: everything that it is made of, by version and SHA-256. It holds no time of day and no path of the
// build machine: the same inputs give the same manifest.
//
// The image builder writes it twice: into the root, and, with the hashes of the outputs, beside them. cosi-image reads both.
package manifest

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cosi-os/cosi/kernel/lock"
)

// Manifest names everything that an image is made of and, beside outputs, everything that was made.
type Manifest struct {
	// Image is the stem of the outputs: cosi-base-amd64.
	Image    string `json:"image"`
	Unpinned bool   `json:"unpinned"`
	// Source is the definition's path in the tree, or elsewhere/ and its name, if it lies in none; Definition is what it says, with what it extends, as YAML.
	Source     string         `json:"source"`
	Definition string         `json:"definition"`
	Inputs     *Inputs        `json:"inputs"`
	Packages   []lock.Package `json:"packages"`
	Kernel     string         `json:"kernel"`
	// CommandLine is what the kernel needs to be told where no unified kernel image does: qemu -kernel.
	CommandLine string `json:"command_line"`
	Outputs     []File `json:"outputs,omitempty"`
	// Signatures are all that were made: with them, who has no private key builds the same outputs again.
	Signatures [][]byte `json:"signatures,omitempty"`
}

// Inputs are everything that an image is made of, but for the packages.
type Inputs struct {
	// Files of the tree by path, with their SHA-256: what is compiled, the definition and what it names, and the lock. Those outside of the tree
	// are elsewhere/ and their path below the definition's directory, or their name.
	Files map[string]string `json:"files"`
	// Go is the toolchain: "go1.26.8".
	Go string `json:"go"`
	// KernelTools are those that our own kernel was built with, by version, if it is the image's.
	KernelTools []string  `json:"kernel_tools,omitempty"`
	Version     string    `json:"version"`
	Epoch       time.Time `json:"epoch"`
}

// File is an output.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// errNone says that something is no manifest.
var errNone = errors.New("not the manifest of an image")

// Read reads the manifest beside outputs.
func Read(file string) (*Manifest, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	m, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return m, nil
}

func parse(data []byte) (*Manifest, error) {
	m := &Manifest{}
	if err := json.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("%w: %w", errNone, err)
	}
	if m.Image == "" || m.Inputs == nil {
		return nil, errNone
	}
	return m, nil
}

// Arch is what the image is for: amd64, arm64.
func (m *Manifest) Arch() string { return m.Image[strings.LastIndexByte(m.Image, '-')+1:] }

// Verify hashes the outputs beside the manifest in dir. It fails if one is missing or is not what was built, naming all of these.
func (m *Manifest) Verify(dir string) error {
	var problems []error
	for _, output := range m.Outputs {
		got, err := Sum(filepath.Join(dir, output.Name))
		if err == nil && got != output.SHA256 {
			err = fmt.Errorf("%s: SHA-256 %s; want %s", output.Name, got, output.SHA256)
		}
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// Sum is the SHA-256 of a file.
func Sum(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyBuffer(h, struct{ io.Reader }{f}, make([]byte, 1<<20)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// JSON is the form beside outputs.
func (m *Manifest) JSON() ([]byte, error) {
	data, err := json.MarshalIndent(m, "", "  ")
	return append(data, '\n'), err
}

// Pack is the form in a root: without the outputs and signatures, which are made of it, and with gzip, because a node keeps its root in memory.
func (m *Manifest) Pack() ([]byte, error) {
	inside := *m
	inside.Outputs, inside.Signatures = nil, nil
	data, err := inside.JSON()
	if err != nil {
		return nil, err
	}
	packed := &bytes.Buffer{}
	w, err := gzip.NewWriterLevel(packed, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	err = w.Close()
	return packed.Bytes(), err
}

// most is how large a manifest may be, unpacked.
const most = 64 << 20

// Unpack reads what Pack has made.
func Unpack(data []byte) (*Manifest, error) {
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNone, err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, most))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNone, err)
	}
	return parse(plain)
}
