package fat

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
)

// checkName refuses what a long name cannot hold.
func checkName(name string) error {
	if n := len(utf16.Encode([]rune(name))); n > 255 {
		return fmt.Errorf("name of %d characters: at most 255", n)
	}
	if strings.ContainsAny(name, `"*:<>?\|`) || strings.TrimRight(name, " .") != name {
		return fmt.Errorf("name %q holds a character that FAT has not", name)
	}
	for _, r := range name {
		if r < ' ' || r == 0x7f {
			return fmt.Errorf("name %q holds a control character", name)
		}
	}
	return nil
}

// shortChar says whether c is used in short names. FAT knows more; these need no code page.
func shortChar(c byte) bool {
	return c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

// plainShort returns name as a short name, if it is one as it stands.
func plainShort(name string) (s [11]byte, ok bool) {
	base, ext, dot := strings.Cut(name, ".")
	if base == "" || len(base) > 8 || len(ext) > 3 || dot && ext == "" {
		return s, false
	}
	copy(s[:], "           ")
	copy(s[:8], base)
	copy(s[8:], ext)
	for _, c := range []byte(base + ext) {
		if !shortChar(c) {
			return s, false
		}
	}
	return s, true
}

// alias returns a short name for a long one that is not in taken: BASE~1.EXT.
func alias(name string, taken map[[11]byte]bool) ([11]byte, error) {
	base, ext := name, ""
	if dot := strings.LastIndexByte(name, '.'); dot > 0 {
		base, ext = name[:dot], name[dot+1:]
	}
	base, ext = squeeze(base, 6), squeeze(ext, 3)
	for i := 1; i <= 9999; i++ {
		tail := fmt.Sprintf("~%d", i)
		s := [11]byte([]byte("           "))
		copy(s[:8], base[:min(len(base), 8-len(tail))]+tail)
		copy(s[8:], ext)
		if !taken[s] {
			return s, nil
		}
	}
	return [11]byte{}, fmt.Errorf("%q: too many names like it", name)
}

// squeeze returns at most n characters of s as short names have them.
func squeeze(s string, n int) string {
	var b strings.Builder
	for _, r := range strings.ToUpper(s) {
		switch {
		case r == ' ' || r == '.':
			continue
		case r < 0x80 && shortChar(byte(r)):
			b.WriteRune(r)
		default:
			b.WriteByte('_')
		}
		if b.Len() == n {
			break
		}
	}
	return b.String()
}

// longEntries returns the directory entries that carry name, the last piece first as they stand
// on disk; none if the short name says it all.
func longEntries(name string, short [11]byte) [][entrySize]byte {
	if s, ok := plainShort(name); ok && s == short {
		return nil
	}
	var sum byte
	for _, c := range short {
		sum = sum>>1 | sum<<7
		sum += c
	}
	const per = 13 // characters an entry
	units := utf16.Encode([]rune(name))
	count := (len(units) + per - 1) / per
	if len(units)%per != 0 {
		units = append(units, 0)
	}
	for len(units) < count*per {
		units = append(units, 0xffff)
	}
	entries := make([][entrySize]byte, count)
	for i := range entries {
		e := &entries[count-1-i]
		e[0] = byte(i + 1)
		e[11], e[13] = attrLongName, sum
		for j, off := range [per]int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
			binary.LittleEndian.PutUint16(e[off:], units[i*per+j])
		}
	}
	entries[0][0] |= 0x40 // the last piece
	return entries
}
