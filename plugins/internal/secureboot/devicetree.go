package secureboot

import (
	"bytes"
	"encoding/binary"
)

// Of a flattened device tree (Devicetree Specification 0.4, chapter 5), which is big-endian: its first word, how long what comes before its
// blocks is, and the tokens of the block that has the nodes.
const (
	treeMagic  = 0xd00dfeed
	treeHeader = 40
	beginNode  = 1
	endNode    = 2
	property   = 3
	nothing    = 4
)

// chosen returns the value of a property of the node /chosen: what a boot loader tells a kernel. It is nil if there is none, or if the tree is
// damaged before it.
func chosen(tree []byte, name string) []byte {
	if len(tree) < treeHeader || binary.BigEndian.Uint32(tree) != treeMagic {
		return nil
	}
	nodes, names := binary.BigEndian.Uint32(tree[8:]), binary.BigEndian.Uint32(tree[12:])
	if uint64(max(nodes, names)) > uint64(len(tree)) {
		return nil
	}
	r := treeReader{left: tree[nodes:]}
	wanted := append([]byte(name), 0)
	for depth, inside := 0, false; ; {
		switch r.word() {
		case beginNode:
			node := r.text()
			depth++
			inside = depth == 2 && node == "chosen"
		case endNode:
			depth--
			inside = false
		case property:
			size, at := r.word(), uint64(names)+uint64(r.word())
			value := r.bytes(size)
			if inside && at < uint64(len(tree)) && bytes.HasPrefix(tree[at:], wanted) {
				return value
			}
		case nothing:
		default: // the end, or damage
			return nil
		}
	}
}

// treeReader reads a tree's nodes. Behind their end there are zeros, which are no token.
type treeReader struct{ left []byte }

func (r *treeReader) word() uint32 {
	if len(r.left) < 4 {
		r.left = nil
		return 0
	}
	n := binary.BigEndian.Uint32(r.left)
	r.left = r.left[4:]
	return n
}

// bytes returns what is size bytes long, and passes over what fills the last word.
func (r *treeReader) bytes(size uint32) []byte {
	if uint64(size) > uint64(len(r.left)) {
		r.left = nil
		return nil
	}
	value := r.left[:size]
	r.left = r.left[min((uint64(size)+3)&^3, uint64(len(r.left))):]
	return value
}

func (r *treeReader) text() string {
	end := bytes.IndexByte(r.left, 0)
	if end < 0 {
		r.left = nil
		return ""
	}
	return string(r.bytes(uint32(end) + 1)[:end])
}
