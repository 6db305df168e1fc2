package module

import "strings"

// aliases answers which modules want a device, from modules.alias.
type aliases struct {
	// by holds the patterns by what stands before their first colon or wildcard, "pci", "virtio": a few of several ten thousand are
	// looked at for each device.
	by map[string][]alias
}

type alias struct{ pattern, module string }

// parseAlias reads modules.alias: "alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci". Other lines are ignored. The patterns point into
// text.
func parseAlias(text string) *aliases {
	a := &aliases{by: map[string][]alias{}}
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "alias ")
		if !ok {
			continue
		}
		pattern, module, ok := strings.Cut(rest, " ")
		if !ok || pattern == "" || module == "" {
			continue
		}
		b := bus(pattern)
		a.by[b] = append(a.by[b], alias{pattern, module})
	}
	return a
}

// modules that claim a modalias.
func (a *aliases) modules(modalias string) []string {
	var out []string
	for _, candidate := range a.by[bus(modalias)] {
		if match(candidate.pattern, modalias) {
			out = append(out, candidate.module)
		}
	}
	return out
}

// bus of a modalias or pattern: "acpi*:PNP0C0C:*" and "acpi:PNP0C0C:" are both of "acpi".
func bus(s string) string {
	if i := strings.IndexAny(s, ":*?["); i >= 0 {
		return s[:i]
	}
	return s
}

// match reports whether s fits a pattern of fnmatch: *, ?, and [a-z] or [!a-z]. A set without its end matches nothing.
func match(pattern, s string) bool {
	star, retry := -1, 0
	p, i := 0, 0
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			star, retry = p, i
			p++
			continue
		}
		if width := one(pattern[p:], s[i]); width > 0 {
			p += width
			i++
			continue
		}
		if star < 0 {
			return false
		}
		retry++
		p, i = star+1, retry // the star takes one more
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// one returns how much of the pattern c fits, 0 if it does not.
func one(pattern string, c byte) int {
	switch {
	case pattern == "":
		return 0
	case pattern[0] == '?':
		return 1
	case pattern[0] != '[':
		if pattern[0] == c {
			return 1
		}
		return 0
	}
	end := strings.IndexByte(pattern, ']')
	if end < 2 {
		return 0
	}
	set := pattern[1:end]
	inverted := set[0] == '!'
	if inverted {
		set = set[1:]
	}
	if contains(set, c) == inverted {
		return 0
	}
	return end + 1
}

func contains(set string, c byte) bool {
	for i := 0; i < len(set); i++ {
		if i+2 < len(set) && set[i+1] == '-' {
			if set[i] <= c && c <= set[i+2] {
				return true
			}
			i += 2
			continue
		}
		if set[i] == c {
			return true
		}
	}
	return false
}
