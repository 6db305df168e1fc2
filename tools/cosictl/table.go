package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Colours of a terminal.
const (
	red   = "\x1b[31m"
	green = "\x1b[32m"
	bold  = "\x1b[1m"
	plain = "\x1b[0m"
)

// table prints rows in columns. It keeps its widths, so that rows may follow later.
type table struct {
	out     io.Writer
	colours bool
	header  []string
	widths  []int
}

func newTable(out io.Writer, colours bool, header ...string) *table {
	return &table{out: out, colours: colours, header: header}
}

// print prints the header, if it was not printed before, and rows.
func (t *table) print(rows [][]string) {
	first := t.widths == nil
	if first {
		t.widths = make([]int, len(t.header))
		t.fit(t.header)
	}
	for _, row := range rows {
		t.fit(row)
	}
	if first {
		t.line(t.header, func(_ int, text string) string { return t.paint(bold, text) })
	}
	for _, row := range rows {
		t.line(row, func(i int, text string) string {
			switch {
			case t.header[i] == "READY" && row[i] == "true":
				return t.paint(green, text)
			case t.header[i] == "READY" && row[i] == "false":
				return t.paint(red, text)
			}
			return text
		})
	}
}

func (t *table) fit(row []string) {
	for i, text := range row {
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(text))
	}
}

func (t *table) line(row []string, paint func(int, string) string) {
	var b strings.Builder
	for i, text := range row {
		b.WriteString(paint(i, text))
		if i < len(row)-1 {
			b.WriteString(strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(text)+3))
		}
	}
	fmt.Fprintln(t.out, strings.TrimRight(b.String(), " "))
}

func (t *table) paint(colour, text string) string {
	if !t.colours {
		return text
	}
	return colour + text + plain
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
