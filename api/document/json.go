package document

import "github.com/cosi-os/cosi/api/kinds"

func splitJSON(data []byte) []part {
	nodes, problem := kinds.ParseJSON(data)
	var parts []part
	for _, n := range nodes {
		parts = append(parts, part{line: n.Line, node: n})
	}
	if problem != nil {
		parts = append(parts, part{line: problem.Line, problem: problem})
	}
	return parts
}
