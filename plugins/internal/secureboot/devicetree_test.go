package secureboot

import (
	"encoding/binary"
	"testing"
)

// deviceTreeOf is a flattened device tree with tokens in its root, each with what belongs to it.
func deviceTreeOf(tokens ...any) []byte {
	be := binary.BigEndian
	padded := func(to []byte, s string) []byte {
		to = append(to, s...)
		return append(to, make([]byte, -len(s)&3)...)
	}
	nodes, names := padded(be.AppendUint32(nil, beginNode), "\x00"), []byte{}
	for i := 0; i < len(tokens); i++ {
		token := tokens[i].(int)
		nodes = be.AppendUint32(nodes, uint32(token))
		switch token {
		case beginNode:
			nodes = padded(nodes, tokens[i+1].(string)+"\x00")
			i++
		case property:
			value := tokens[i+2].(string)
			nodes = be.AppendUint32(be.AppendUint32(nodes, uint32(len(value))), uint32(len(names)))
			names, nodes = append(names, tokens[i+1].(string)+"\x00"...), padded(nodes, value)
			i += 2
		}
	}
	nodes = be.AppendUint32(be.AppendUint32(nodes, endNode), 9)
	const header = 56 // with the end of an empty list of reserved memory
	out := make([]byte, header)
	for i, word := range []int{treeMagic, header + len(nodes) + len(names), header, header + len(nodes), 40, 17, 16, 0, len(names), len(nodes)} {
		be.PutUint32(out[4*i:], uint32(word))
	}
	return append(append(out, nodes...), names...)
}

func TestChosenIsReadFromADeviceTree(t *testing.T) {
	for name, c := range map[string]struct {
		tokens []any
		want   string
	}{
		"the first property": {[]any{beginNode, "chosen", property, "a", "is", property, "b", "x", endNode}, "is"},
		"behind others, one of an odd length": {[]any{beginNode, "memory@0", property, "reg", "12345", nothing, endNode,
			beginNode, "chosen", property, "aa", "no", property, "b", "", property, "a", "is", endNode}, "is"},
		"of another node":         {[]any{beginNode, "cpus", property, "a", "no", endNode}, ""},
		"of the root":             {[]any{property, "a", "no", beginNode, "chosen", endNode}, ""},
		"of a node inside chosen": {[]any{beginNode, "chosen", beginNode, "module", property, "a", "no", endNode, endNode}, ""},
		"of a deeper chosen":      {[]any{beginNode, "cpus", beginNode, "chosen", property, "a", "no", endNode, endNode}, ""},
		"behind chosen":           {[]any{beginNode, "chosen", endNode, property, "a", "no"}, ""},
		"behind what is no token": {[]any{7, beginNode, "chosen", property, "a", "no", endNode}, ""},
	} {
		if got := chosen(deviceTreeOf(c.tokens...), "a"); string(got) != c.want {
			t.Errorf("%s: chosen = %q; want %q", name, got, c.want)
		}
	}
}

// Wherever it is cut off, and whatever its first words say, it holds what it held, or nothing.
func TestADamagedDeviceTree(t *testing.T) {
	whole := deviceTreeOf(beginNode, "chosen", property, "b", "x", property, "a", "is", endNode)
	for i := range whole {
		if got := string(chosen(whole[:i], "a")); got != "" && got != "is" {
			t.Errorf("cut off at %d: chosen = %q", i, got)
		}
	}
	for at := 0; at+4 <= len(whole); at += 4 {
		damaged := append([]byte(nil), whole...)
		binary.BigEndian.PutUint32(damaged[at:], 0xfffffffe)
		if got := string(chosen(damaged, "a")); got != "" && got != "is" && got != "\xff\xff" {
			t.Errorf("damaged at %d: chosen = %q", at, got)
		}
	}
}
