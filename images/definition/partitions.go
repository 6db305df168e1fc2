package definition

import (
	"fmt"
	"os"
	"regexp"
	"slices"

	"github.com/cosi-os/cosi/images/disk"
)

// partitionPattern: a table has room for 36 characters of a name.
var partitionPattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,35}$`)

const (
	leastSlot = 64 // MiB
	leastData = 1
	mostSize  = 1 << 20
)

// partitions finds sizes and names that no disk can have.
func (c *checker) partitions(p *Partitions) {
	c.size("partitions.esp", p.ESP, leastSlot)
	c.size("partitions.root", p.Root, leastSlot)
	c.each("partitions.extra", names(p.Extra, partitionName), func(name string) bool {
		return partitionPattern.MatchString(name) && !slices.Contains(disk.Reserved, name)
	}, "name: %q is none for a partition, or the name of one that every disk has")
	for i, extra := range p.Extra {
		field := fmt.Sprintf("partitions.extra[%d]", i)
		if extra.Size == "" {
			c.Problem(c.Lines[field], field+".size", "missing")
		}
		c.size(field+".size", extra.Size, leastData)
	}
}

// size finds a size that is none, or not one between least MiB and 1 TiB. None at all is for others to find.
func (c *checker) size(field string, s Size, least int64) {
	n, ok := s.MiB()
	switch {
	case s == "":
	case !ok:
		c.Problem(c.Lines[field], field, "%q is not a size (try 10GiB)", s)
	case n < least:
		c.Problem(c.Lines[field], field, "%s is too small: want %dMiB at least", s, least)
	case n > mostSize:
		c.Problem(c.Lines[field], field, "%s is too large: want 1TiB at most", s)
	}
}

// findContents finds the files that the extra partitions of the definition in file begin with.
func (d *Definition) findContents(file string, lines map[string]int) (problems Problems) {
	for i := range d.Partitions.Extra {
		p := &d.Partitions.Extra[i]
		if p.Content == "" {
			continue
		}
		p.Content = beside(file, p.Content)
		info, err := os.Stat(p.Content)
		if err == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("%s is not a file", p.Content)
		}
		if n, ok := p.Size.MiB(); err == nil && ok && info.Size() > n<<20 {
			err = fmt.Errorf("%s has %d bytes: they do not fit into %s", p.Content, info.Size(), p.Size)
		}
		if err != nil {
			field := fmt.Sprintf("partitions.extra[%d].content", i)
			problems = append(problems, Problem{File: file, Line: lines[field], Field: field, Message: err.Error()})
		}
	}
	return problems
}
