package kinds

import (
	"regexp"
	"slices"
	"strings"

	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
)

var typePattern = regexp.MustCompile(`^[A-Z][A-Za-z0-9]*(\.[a-z]([a-z0-9-]*[a-z0-9])?)+$`)

// Names returns every name, in lower case, that a kind is found by, without repetition and sorted.
func Names(d *metapb.ResourceDefinitionSpec) []string {
	typ := strings.ToLower(d.GetResourceType())
	all := []string{typ, plural(typ), singular(plural(typ)), strings.ToLower(d.GetDisplayType())}
	for _, alias := range d.GetAliases() {
		all = append(all, strings.ToLower(alias))
	}
	all = slices.DeleteFunc(all, func(name string) bool { return name == "" })
	slices.Sort(all)
	return slices.Compact(all)
}

// plural is the first label of a type: "mountpoints".
func plural(typ string) string {
	first, _, _ := strings.Cut(strings.ToLower(typ), ".")
	return first
}

// singular takes an English plural back. A word that is none stays as it is.
func singular(word string) string {
	for _, rule := range []struct{ plural, singular string }{
		{"ies", "y"}, {"sses", "ss"}, {"uses", "us"}, {"xes", "x"}, {"ss", "ss"}, {"s", ""},
	} {
		if stem, ok := strings.CutSuffix(word, rule.plural); ok && stem != "" {
			return stem + rule.singular
		}
	}
	return word
}

// Nearest returns those candidates that name was probably meant to be: of those that are about the same the nearest, at most three.
func Nearest(name string, candidates []string) (hints []string) {
	nearest := max(1, min(3, len(name)/3))
	for _, candidate := range candidates {
		d := distance(strings.ToLower(name), strings.ToLower(candidate))
		if d < nearest {
			nearest, hints = d, nil
		}
		if d == nearest {
			hints = append(hints, candidate)
		}
	}
	return hints[:min(3, len(hints))]
}

// maxCompared bounds the work that a hint is worth: longer names get none.
const maxCompared = 128

// distance counts the insertions, deletions, replacements and swaps of neighbours that make b out of a.
func distance(a, b string) int {
	if len(a) > maxCompared || len(b) > maxCompared {
		return maxCompared
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
