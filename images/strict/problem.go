package strict

import (
	"fmt"
	"slices"
	"strings"
)

// Problem is one mistake in a file.
type Problem struct {
	File    string
	Line    int    // 0: none is known
	Field   string // "kernel.modules.boot[2]"
	Message string
}

func (p Problem) String() string {
	where := p.File
	if p.Line > 0 {
		where += fmt.Sprintf(":%d", p.Line)
	}
	if p.Field == "" {
		return where + ": " + p.Message
	}
	return where + ": " + p.Field + ": " + p.Message
}

// Problems are all mistakes of a file and of those that it extends, as an error.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// Among says that got is none of the words there are, and which may have been meant.
func Among[T ~string](got string, what string, words []T) string {
	all := make([]string, len(words))
	for i, w := range words {
		all[i] = string(w)
	}
	message := fmt.Sprintf("%q is not %s", got, what)
	if hint := Meant(got, all); hint != "" {
		return message + hint
	}
	return message + fmt.Sprintf(" (%s)", strings.Join(all, ", "))
}

// Meant asks whether one of the words there are was meant, as the end of a message. It is empty if none is like got.
func Meant(got string, words []string) string {
	if near := nearest(got, words); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

// nearest is the word that got is a likely misspelling of, or empty.
func nearest(got string, words []string) string {
	best, limit := "", len(got)/3+1
	for _, word := range words {
		if d := distance(strings.ToLower(got), word); d <= limit {
			best, limit = word, d-1
		}
	}
	return best
}

// distance counts the letters to insert, delete, change or swap to make b of a.
func distance(a, b string) int {
	var rows [3][]int
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
	}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := range len(a) {
		before, last, row := rows[0], rows[1], rows[2]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = slices.Min([]int{last[j+1] + 1, row[j] + 1, last[j] + cost})
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		rows = [3][]int{last, row, before}
	}
	return rows[1][len(b)]
}
