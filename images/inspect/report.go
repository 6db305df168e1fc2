package inspect

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/images/pcr"
	"github.com/cosi-os/cosi/images/plan"
	"github.com/cosi-os/cosi/kernel/lock"
)

// Report is what an image is and holds.
type Report struct {
	File       string         `json:"file"`
	Format     Format         `json:"format"`
	Size       int64          `json:"size"`
	Image      string         `json:"image"`
	Version    string         `json:"version"`
	Built      time.Time      `json:"built"`
	Definition string         `json:"definition"`
	Go         string         `json:"go"`
	Kernel     string         `json:"kernel"`
	Unpinned   bool           `json:"unpinned"`
	Arguments  []string       `json:"arguments"`
	Packages   []lock.Package `json:"packages"`
	Signatures []Signature    `json:"signatures"`
	// PCR11 is what a TPM holds once the image runs; empty if it is none that systemd-stub starts.
	PCR11      string      `json:"pcr11,omitempty"`
	Partitions []Partition `json:"partitions,omitempty"`
	Files      []File      `json:"files"`
}

// Partition is one of the disk that an image is, or that it is with more on it.
type Partition struct {
	Number int    `json:"number"`
	Name   string `json:"name"`
	GUID   string `json:"guid"`
	Start  int64  `json:"start"`
	Size   int64  `json:"size"`
}

// Place is where in an image a file is.
type Place string

const (
	ESP       Place = "esp"       // the file system that the firmware reads
	Boot      Place = "boot"      // the sections of the unified kernel image
	Early     Place = "initramfs" // what the kernel unpacks
	RootPlace Place = "root"      // what the node runs on
)

// File is a file of an image, or a section of its boot image.
type File struct {
	Place  Place  `json:"place"`
	Path   string `json:"path"`
	Mode   string `json:"mode,omitempty"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Report reads all of the image.
func (i *Image) Report() (*Report, error) {
	m, err := i.Manifest()
	if err != nil {
		return nil, err
	}
	r := &Report{
		File: i.path, Format: i.Format, Size: i.Size, Image: m.Image, Version: m.Inputs.Version, Built: m.Inputs.Epoch, Definition: m.Source,
		Go: m.Inputs.Go, Kernel: m.Kernel, Unpinned: m.Unpinned, Arguments: strings.Fields(m.CommandLine), Packages: m.Packages, Partitions: i.partitions(),
	}
	if i.boot != nil {
		line, err := i.boot.Section(".cmdline").Data()
		if err != nil {
			return nil, fmt.Errorf("%s: .cmdline: %w", i.path, err)
		}
		r.Arguments = strings.Fields(strings.TrimRight(string(line), "\x00"))
	}
	if i.boot != nil {
		predicted, err := pcr.Predict(i.raw)
		if err != nil {
			return nil, fmt.Errorf("%s: PCR 11: %w", i.path, err)
		}
		r.PCR11 = predicted.String()
	}
	if r.Files, err = i.files(); err != nil {
		return nil, fmt.Errorf("%s: %w", i.path, err)
	}
	if r.Signatures, err = i.signatures(); err != nil {
		return nil, fmt.Errorf("%s: %w", i.path, err)
	}
	return r, nil
}

func (i *Image) partitions() []Partition {
	if i.table == nil {
		return nil
	}
	var all []Partition
	for n, p := range i.table.Partitions {
		if p.Type != (gpt.GUID{}) {
			all = append(all, Partition{n + 1, p.Name, p.GUID.String(), p.Start, p.End - p.Start})
		}
	}
	return all
}

// files lists everything with its hash.
func (i *Image) files() ([]File, error) {
	var all []File
	if i.esp != nil {
		if err := i.espFiles(".", &all); err != nil {
			return nil, fmt.Errorf("EFI system partition: %w", err)
		}
	}
	if i.boot != nil {
		for _, s := range i.boot.Sections {
			f, err := Hash(io.NewSectionReader(s, 0, int64(min(s.Size, s.VirtualSize))))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.Name, err)
			}
			f.Place, f.Path = Boot, s.Name
			all = append(all, f)
		}
	}
	for _, record := range i.early {
		if record.Mode&cpio.S_IFMT != cpio.S_IFREG {
			continue
		}
		f, err := Hash(io.NewSectionReader(record, 0, int64(record.FileSize)))
		if err != nil {
			return nil, fmt.Errorf("initramfs: %s: %w", record.Name, err)
		}
		f.Place, f.Path, f.Mode = Early, "/"+record.Name, fs.FileMode(record.Mode&0o777).String()
		all = append(all, f)
	}
	err := fs.WalkDir(i.Root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		f, err := rootFile(i.Root, name, entry)
		all = append(all, f)
		return err
	})
	return all, err
}

// rootFile describes a file of the root; of a link, the link.
func rootFile(root fs.FS, name string, entry fs.DirEntry) (f File, err error) {
	info, err := entry.Info()
	if err != nil {
		return f, err
	}
	var data []byte
	if info.Mode()&fs.ModeSymlink != 0 {
		var target string
		target, err = fs.ReadLink(root, name)
		data = []byte(target)
	} else {
		data, err = fs.ReadFile(root, name)
	}
	if err == nil {
		f, err = Hash(bytes.NewReader(data))
	}
	f.Place, f.Path, f.Mode = RootPlace, "/"+name, info.Mode().String()
	return f, err
}

func (i *Image) espFiles(dir string, all *[]File) error {
	entries, err := i.esp.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := path.Join(dir, entry.Name())
		switch {
		case entry.Name() == "." || entry.Name() == "..":
		case entry.IsDir():
			if err := i.espFiles(name, all); err != nil {
				return err
			}
		default:
			data, err := i.readESP("/" + name)
			if err != nil {
				return err
			}
			f, err := Hash(bytes.NewReader(data))
			if err != nil {
				return err
			}
			f.Place, f.Path = ESP, "/"+name
			*all = append(*all, f)
		}
	}
	return nil
}

// Hash reads all of r, and says how much that is and its SHA-256.
func Hash(r io.Reader) (f File, err error) {
	h := sha256.New()
	f.Size, err = io.Copy(h, r)
	f.SHA256 = hex.EncodeToString(h.Sum(nil))
	return f, err
}

// String is the report for people.
func (r *Report) String() string {
	out := &strings.Builder{}
	fmt.Fprintf(out, "%s: %s %s, %s, %s\n\n", r.File, r.Image, r.Version, r.Format, plan.MB(r.Size))
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	line := func(name string, values ...string) {
		for _, v := range values {
			fmt.Fprintf(table, "  %s\t%s\n", name, v)
			name = ""
		}
	}
	line("built", r.Built.UTC().Format(time.RFC3339)+", from "+r.Definition+", with "+r.Go)
	if r.Unpinned {
		line("", "UNPINNED: a package was replaced by a newer one")
	}
	line("kernel", r.Kernel)
	line("arguments", r.Arguments...)
	for i, p := range r.Packages {
		line(map[bool]string{true: "packages"}[i == 0], p.Name+" "+p.Version+", SHA-256 "+p.SHA256)
	}
	for i, s := range r.Signatures {
		line(map[bool]string{true: "signatures"}[i == 0], s.String())
	}
	if r.PCR11 != "" {
		line("PCR 11", r.PCR11+" (SHA-256, as a TPM will hold it)")
	}
	table.Flush() // to memory
	if len(r.Partitions) > 0 {
		fmt.Fprintln(table, "\nPARTITION\tNAME\tSTART\tSIZE\tGUID")
		for _, p := range r.Partitions {
			fmt.Fprintf(table, "%d\t%s\t%d\t%s\t%s\n", p.Number, p.Name, p.Start, plan.MB(p.Size), p.GUID)
		}
		table.Flush()
	}
	fmt.Fprintln(table, "\nPLACE\tFILE\tMODE\tSIZE\tSHA-256")
	for _, f := range r.Files {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", f.Place, f.Path, f.Mode, cmp.Or(plan.MB(f.Size), "0 bytes"), f.SHA256[:min(16, len(f.SHA256))])
	}
	table.Flush()
	return trimmed(out.String())
}

// trimmed takes the blanks from the ends of lines.
func trimmed(text string) string {
	lines := slices.Collect(strings.SplitSeq(text, "\n"))
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " ")
	}
	return strings.Join(lines, "\n")
}
