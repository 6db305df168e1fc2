package fetch

import (
	"cmp"
	"strings"
)

// compareVersions orders Debian versions as deb-version(7) says: epoch, then runs of non-digits (where ~ sorts before everything and
// letters before the rest) and runs of digits in turn. The hyphen before the revision sorts like the end of the version before it.
func compareVersions(a, b string) int {
	epoch := func(v string) (string, string) {
		if before, after, found := strings.Cut(v, ":"); found {
			return before, after
		}
		return "0", v
	}
	aEpoch, a := epoch(a)
	bEpoch, b := epoch(b)
	if c := compareNumbers(aEpoch, bEpoch); c != 0 {
		return c
	}
	for a != "" || b != "" {
		var aText, bText, aNumber, bNumber string
		aText, a = span(a, func(c byte) bool { return !digit(c) })
		bText, b = span(b, func(c byte) bool { return !digit(c) })
		if c := compareTexts(aText, bText); c != 0 {
			return c
		}
		aNumber, a = span(a, digit)
		bNumber, b = span(b, digit)
		if c := compareNumbers(aNumber, bNumber); c != 0 {
			return c
		}
	}
	return 0
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

func span(s string, is func(byte) bool) (head, tail string) {
	n := 0
	for n < len(s) && is(s[n]) {
		n++
	}
	return s[:n], s[n:]
}

func compareNumbers(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

func compareTexts(a, b string) int {
	for i := range max(len(a), len(b)) {
		if c := cmp.Compare(weight(a, i), weight(b, i)); c != 0 {
			return c
		}
	}
	return 0
}

func weight(s string, i int) int {
	switch {
	case i >= len(s), s[i] == '-':
		return 0
	case s[i] == '~':
		return -1
	case s[i] >= 'A' && s[i] <= 'Z', s[i] >= 'a' && s[i] <= 'z':
		return int(s[i])
	}
	return int(s[i]) + 256
}
