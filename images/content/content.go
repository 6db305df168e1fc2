// Package content passes bytes between the writers of the image formats without
// copying them into memory: a kernel, an initramfs, a whole boot image. The builder
// makes a Content of each input; a writer that lays inputs one after the other (the
// unified kernel image) is a Content again, so that a disk can be written straight from
// its parts.
package content

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// Content is a run of bytes of known length that can be read at any offset, any number of
// times and by several goroutines at once. *bytes.Reader, *strings.Reader and
// *io.SectionReader are Contents.
type Content interface {
	io.ReaderAt
	Size() int64
}

// String returns s as Content.
func String(s string) Content { return strings.NewReader(s) }

// File is the content of an open file.
type File struct {
	*os.File
	size int64
}

// Open opens the regular file at path. Its size is fixed now; the caller closes it.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &File{f, st.Size()}, nil
}

// Size returns the file's size when it was opened.
func (f *File) Size() int64 { return f.size }

// Reader returns a fresh reader over all of c.
func Reader(c Content) *io.SectionReader { return io.NewSectionReader(c, 0, c.Size()) }

// CopyAt writes c to w at off. A content that ends early is io.ErrUnexpectedEOF.
func CopyAt(w io.WriterAt, off int64, c Content) error {
	n, err := io.CopyBuffer(io.NewOffsetWriter(w, off), readerOnly{Reader(c)}, make([]byte, 1<<20))
	if err == nil && n != c.Size() {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// readerOnly hides the reader's other methods: io.CopyBuffer must use the buffer.
type readerOnly struct{ io.Reader }
