package fat

import (
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/cosi-os/cosi/images/content"
)

// Attributes of a directory entry.
const (
	attrLabel     = 0x08
	attrDirectory = 0x10
	attrArchive   = 0x20
	attrLongName  = 0x0f
)

// node is a file or a directory.
type node struct {
	name     string
	short    [11]byte
	content  content.Content // nil: a directory
	children []*node         // sorted by name
	parent   *node
	label    string // of the root
	first    uint32 // cluster; 0 for an empty file
}

// tree makes a tree of the files' paths.
func tree(files []File) (*node, error) {
	root := &node{}
	sorted := slices.Clone(files)
	slices.SortFunc(sorted, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	for _, f := range sorted {
		if err := root.add(f); err != nil {
			return nil, fmt.Errorf("%q: %w", f.Path, err)
		}
	}
	return root, root.shorten()
}

func (n *node) add(f File) error {
	switch {
	case !fs.ValidPath(f.Path) || f.Path == ".":
		return fmt.Errorf("not a clean relative path")
	case f.Content == nil:
		return fmt.Errorf("no content")
	case f.Content.Size() > math.MaxUint32:
		return fmt.Errorf("longer than 4 GiB")
	}
	parts := strings.Split(f.Path, "/")
	for i, name := range parts {
		if err := checkName(name); err != nil {
			return err
		}
		last := i == len(parts)-1
		at := slices.IndexFunc(n.children, func(c *node) bool { return strings.EqualFold(c.name, name) })
		if at < 0 {
			n.children = append(n.children, &node{name: name, parent: n})
			at = len(n.children) - 1
		} else if c := n.children[at]; last || c.name != name || c.content != nil {
			return fmt.Errorf("the name %q is taken", c.name)
		}
		n = n.children[at]
	}
	n.content = f.Content
	return nil
}

// shorten gives every node below n its short name.
func (n *node) shorten() error {
	taken := map[[11]byte]bool{}
	// Names that need no long entry keep theirs, whatever comes before them.
	for _, c := range n.children {
		if s, ok := plainShort(c.name); ok {
			c.short, taken[s] = s, true
		}
	}
	for _, c := range n.children {
		if c.short == [11]byte{} {
			s, err := alias(c.name, taken)
			if err != nil {
				return err
			}
			c.short, taken[s] = s, true
		}
		if err := c.shorten(); err != nil {
			return err
		}
	}
	return nil
}

// size returns the bytes that n needs.
func (n *node) size() int64 {
	if n.content != nil {
		return n.content.Size()
	}
	entries := 2 // "." and "..", or the label
	for _, c := range n.children {
		entries += 1 + len(longEntries(c.name, c.short))
	}
	return int64(entries) * entrySize
}

// allocate gives n and what is below it clusters from the end of table on, in one piece each.
func (n *node) allocate(table []uint32, g geometry) []uint32 {
	if size := n.size(); size > 0 {
		n.first = uint32(len(table))
		for count := (size + g.clusterSize() - 1) / g.clusterSize(); count > 1; count-- {
			table = append(table, uint32(len(table))+1)
		}
		table = append(table, endOfChain)
	}
	for _, c := range n.children {
		table = c.allocate(table, g)
	}
	return table
}

// write writes the data of n and of what is below it.
func (n *node) write(w io.WriterAt, g geometry, t stamp) error {
	if n.content != nil {
		if n.first == 0 {
			return nil
		}
		if err := content.CopyAt(w, g.offset(n.first), n.content); err != nil {
			return fmt.Errorf("%q: %w", n.name, err)
		}
		return nil
	}
	if _, err := w.WriteAt(n.entries(t), g.offset(n.first)); err != nil {
		return err
	}
	for _, c := range n.children {
		if err := c.write(w, g, t); err != nil {
			return err
		}
	}
	return nil
}

// entries returns the directory n.
func (n *node) entries(t stamp) []byte {
	var b []byte
	if n.parent == nil {
		if n.label != "" {
			b = append(b, entry([11]byte([]byte((n.label + "           ")[:11])), attrLabel, 0, 0, t)...)
		}
	} else {
		up := n.parent.first
		if n.parent.parent == nil {
			up = 0 // ".." of a directory in the root
		}
		b = append(b, entry([11]byte([]byte(".          ")), attrDirectory, n.first, 0, t)...)
		b = append(b, entry([11]byte([]byte("..         ")), attrDirectory, up, 0, t)...)
	}
	for _, c := range n.children {
		for _, e := range longEntries(c.name, c.short) {
			b = append(b, e[:]...)
		}
		if c.content == nil {
			b = append(b, entry(c.short, attrDirectory, c.first, 0, t)...)
		} else {
			b = append(b, entry(c.short, attrArchive, c.first, uint32(c.content.Size()), t)...)
		}
	}
	return b
}

func entry(short [11]byte, attr byte, first, size uint32, t stamp) []byte {
	e := make([]byte, entrySize)
	le := binary.LittleEndian
	copy(e, short[:])
	e[11] = attr
	le.PutUint16(e[14:], t.time) // created
	le.PutUint16(e[16:], t.date)
	le.PutUint16(e[18:], t.date) // read
	le.PutUint16(e[20:], uint16(first>>16))
	le.PutUint16(e[22:], t.time) // written
	le.PutUint16(e[24:], t.date)
	le.PutUint16(e[26:], uint16(first))
	le.PutUint32(e[28:], size)
	return e
}

// stamp is a time in FAT's two words, which count in two seconds from 1980 on.
type stamp struct{ date, time uint16 }

// dosTime returns t in UTC, moved into the range of years that FAT has.
func dosTime(t time.Time) stamp {
	t = t.UTC()
	if t.Year() < 1980 {
		t = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	} else if t.Year() > 2107 {
		t = time.Date(2107, 12, 31, 23, 59, 58, 0, time.UTC)
	}
	return stamp{
		date: uint16((t.Year()-1980)<<9 | int(t.Month())<<5 | t.Day()),
		time: uint16(t.Hour()<<11 | t.Minute()<<5 | t.Second()/2),
	}
}
