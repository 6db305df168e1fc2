package own

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// RecordFile of the tree says what kernels became, by the hash of what they were built of and with, as go.sum does of modules: whoever builds the
// same again learns whether he has got the same. It is for sha256sum --check, too, in the directory kernels of the cache.
const RecordFile = "kernel/built.sha256"

var (
	// ErrNotRecorded says that the tree does not know what becomes of such inputs. Another compiler is enough for that.
	ErrNotRecorded = errors.New("nobody has recorded what becomes of it")
	// ErrOther says that the same inputs have become something else before.
	ErrOther = errors.New("what it was built of has become another kernel before")
)

// recorded is the hash of one file, and the line that says it.
type recorded struct {
	sum  string
	line int
}

var recordPattern = regexp.MustCompile(`^([0-9a-f]{64})  ([0-9a-f]{64})/(\S+)$`)

// readRecord returns what a tree says of the kernel of these inputs, by the files' paths; nothing if it says nothing.
func readRecord(tree, inputs string) (map[string]recorded, error) {
	text, err := os.ReadFile(filepath.Join(tree, filepath.FromSlash(RecordFile)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all, number := map[string]recorded{}, 0
	for line := range strings.Lines(string(text)) {
		number++
		if line = strings.TrimRight(line, "\r\n"); line == "" || line[0] == '#' {
			continue
		}
		match := recordPattern.FindStringSubmatch(line)
		if match == nil {
			return nil, fmt.Errorf("%s:%d: want SHA-256, two spaces, HASH OF INPUTS/FILE, as cosi-image kernel --record writes it", RecordFile, number)
		}
		if match[2] != inputs {
			continue
		}
		if before, twice := all[match[3]]; twice {
			return nil, fmt.Errorf("%s:%d: %s stands in line %d already", RecordFile, number, match[3], before.line)
		}
		all[match[3]] = recorded{match[1], number}
	}
	return all, nil
}

// Check compares the kernel that lies in dir with the one that the tree has recorded for the same inputs. It fails with ErrNotRecorded if there is
// none, and with ErrOther, naming each file that differs, if that is another one.
func (k *Kernel) Check(dir string) error {
	if len(k.recorded) == 0 {
		return fmt.Errorf("%s: %s for %s, built of and with %s…: %w", RecordFile, k.Source.Version, k.Architecture, k.Digest()[:12], ErrNotRecorded)
	}
	sums, err := sumsOf(dir)
	if err != nil {
		return err
	}
	var problems []error
	for _, file := range slices.Sorted(maps.Keys(sums)) {
		if want, there := k.recorded[file]; !there {
			problems = append(problems, fmt.Errorf("%s: %s does not have it", filepath.Join(dir, file), RecordFile))
		} else if sums[file] != want.sum {
			problems = append(problems, fmt.Errorf("%s: SHA-256 %s; %s:%d: %s", filepath.Join(dir, file), sums[file], RecordFile, want.line, want.sum))
		}
	}
	for _, file := range slices.Sorted(maps.Keys(k.recorded)) {
		if _, there := sums[file]; !there {
			problems = append(problems, fmt.Errorf("%s:%d: %s is not there", RecordFile, k.recorded[file].line, filepath.Join(dir, file)))
		}
	}
	if len(problems) > 0 {
		return fmt.Errorf("%s for %s: %w:\n%w", k.Source.Version, k.Architecture, ErrOther, errors.Join(problems...))
	}
	return nil
}

// Lines are what RecordFile says of the kernel that lies in dir.
func (k *Kernel) Lines(dir string) (string, error) {
	sums, err := sumsOf(dir)
	if err != nil {
		return "", err
	}
	text := &strings.Builder{}
	fmt.Fprintf(text, "# %s %s for %s, by\n", k.Source.Name, k.Source.Version, k.Architecture)
	for _, tool := range k.Tools {
		fmt.Fprintf(text, "#   %s\n", tool)
	}
	for _, file := range slices.Sorted(maps.Keys(sums)) {
		fmt.Fprintf(text, "%s  %s/%s\n", sums[file], k.Digest(), file)
	}
	return text.String(), nil
}

// Record adds the kernel that lies in dir to what the tree knows. Of what is recorded it fails as Check does, and adds nothing.
func (k *Kernel) Record(tree, dir string) error {
	if err := k.Check(dir); !errors.Is(err, ErrNotRecorded) {
		return err
	}
	lines, err := k.Lines(dir)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(tree, filepath.FromSlash(RecordFile)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(lines)
	if err = errors.Join(err, f.Close()); err == nil {
		k.recorded, err = readRecord(tree, k.Digest())
	}
	return err
}

// sumsOf are the hashes of all files below dir, by their paths there, with slashes.
func sumsOf(dir string) (map[string]string, error) {
	sums := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		sums[filepath.ToSlash(name)], err = sumOf(path)
		return err
	})
	return sums, err
}

func sumOf(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
