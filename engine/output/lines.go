package output

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
)

// maxLine is where a line is cut in two.
const maxLine = 4096

// lines calls each for every line of r until it ends. A line of more than maxLine bytes comes in pieces; what is not UTF-8 is
// replaced; a last line without its end counts.
func lines(r io.Reader, each func(string)) {
	b := bufio.NewReaderSize(r, maxLine)
	for {
		piece, err := b.ReadSlice('\n')
		if len(piece) > 0 {
			each(strings.ToValidUTF8(string(bytes.TrimRight(piece, "\r\n")), "\uFFFD"))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// printable replaces control characters: a process must not move the cursor or change the console's mode.
func printable(line string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '\uFFFD'
		}
		return r
	}, line)
}
