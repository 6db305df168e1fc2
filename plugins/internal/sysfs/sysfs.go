// Package sysfs is what generators share: how the attributes of a device are read.
package sysfs

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Attributes are the files of a device's directory below /sys. One that is not there, or has gone, is empty.
type Attributes struct{ Dir string }

// Text is an attribute without the blanks around it.
func (a Attributes) Text(name string) string {
	data, err := os.ReadFile(filepath.Join(a.Dir, name))
	if err != nil {
		return ""
	}
	// Firmware pads with blanks, and some with zeros.
	return strings.ToValidUTF8(strings.Trim(string(data), " \t\n\x00"), "\uFFFD")
}

// Has reports whether there is such a file.
func (a Attributes) Has(name string) bool {
	_, err := os.Lstat(filepath.Join(a.Dir, name))
	return err == nil
}

// First is the first of several attributes that is not empty: kinds of devices name the same thing differently.
func (a Attributes) First(names ...string) string {
	for _, name := range names {
		if text := a.Text(name); text != "" {
			return text
		}
	}
	return ""
}

// Parse reads a number; what is none is 0.
func Parse(text string) uint64 {
	n, _ := strconv.ParseUint(text, 10, 64)
	return n
}

// Number is an attribute that is one, or 0.
func (a Attributes) Number(name string) uint64 { return Parse(a.Text(name)) }

// Flag reports whether an attribute is 1.
func (a Attributes) Flag(name string) bool { return a.Text(name) == "1" }

// Variables are those of the device's uevent.
func (a Attributes) Variables() map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(a.Text("uevent")) {
		if key, value, ok := strings.Cut(strings.TrimRight(line, "\n"), "="); ok {
			all[key] = value
		}
	}
	return all
}
