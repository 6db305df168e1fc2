package own

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Directory of the tree is where the configuration is.
const Directory = "kernel/config"

// Option is a line of the configuration: CONFIG_NAME=VALUE.
type Option struct {
	Name, Value string
	// File and Line are where it stands.
	File string
	Line int
}

func (o Option) String() string { return o.Name + "=" + o.Value }

var optionPattern = regexp.MustCompile(`^(CONFIG_[A-Za-z0-9_]+)=(y|n|-?[0-9]+|0x[0-9a-f]+|"[^"]*")$`)

// read reads files of a tree. It fails with all lines that are no option, and with options that are there twice.
func read(tree string, files []string) (all []Option, err error) {
	var problems []error
	seen := map[string]Option{}
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(tree, filepath.FromSlash(file)))
		if err != nil {
			return nil, err
		}
		number := 0
		for line := range strings.Lines(string(text)) {
			number++
			if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
				continue
			}
			match := optionPattern.FindStringSubmatch(line)
			if match == nil {
				problems = append(problems, fmt.Errorf(`%s:%d: %s: want CONFIG_NAME=VALUE: y, n, a number or a text in quotes; there are no modules`, file, number, line))
				continue
			}
			o := Option{match[1], match[2], file, number}
			if before, twice := seen[o.Name]; twice {
				problems = append(problems, fmt.Errorf("%s:%d: %s stands in %s:%d already", file, number, o.Name, before.File, before.Line))
			}
			seen[o.Name] = o
			all = append(all, o)
		}
	}
	return all, errors.Join(problems...)
}

// Lacking fails with the options that a kernel's configuration does not have. Linux drops without a word what it does not know, and what
// needs something else.
func (k *Kernel) Lacking(configuration string) error {
	has := map[string]string{}
	for line := range strings.Lines(configuration) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && strings.HasPrefix(name, "CONFIG_") {
			has[name] = value
		}
	}
	var problems []error
	for _, o := range k.Options {
		switch got, there := has[o.Name]; {
		case there && got == o.Value, !there && o.Value == "n":
		case there:
			problems = append(problems, fmt.Errorf("%s:%d: %s: this Linux makes it %s", o.File, o.Line, o, got))
		default:
			problems = append(problems, fmt.Errorf("%s:%d: %s: this Linux has none, or it needs another option", o.File, o.Line, o))
		}
	}
	return errors.Join(problems...)
}
