package kernel

import (
	"fmt"
	"slices"
	"strings"
)

// Dependencies is the file modules.dep for modules, as depmod writes it: a line a module, with all that it needs, nearest first. The
// modules must be closed under what they need, as Resolve returns them.
func Dependencies(modules []*Module) string {
	byName := map[string]*Module{}
	for _, m := range modules {
		byName[m.Name] = m
	}
	lines := make([]string, 0, len(modules))
	for _, m := range modules {
		line := m.Path + ":"
		for _, needed := range closure(m, byName) {
			line += " " + needed.Path
		}
		lines = append(lines, line+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// closure is everything that m needs, each before what it needs itself: to be loaded from the last to the first.
func closure(m *Module, byName map[string]*Module) []*Module {
	var order []*Module
	var visit func(*Module)
	visit = func(m *Module) {
		for _, name := range m.Info.Depends {
			needed, ok := byName[name]
			if !ok {
				continue // built in
			}
			// Met again: it must come after the one that needs it here, too.
			order = slices.DeleteFunc(order, func(x *Module) bool { return x == needed })
			order = append(order, needed)
			visit(needed)
		}
	}
	visit(m)
	return order
}

// Aliases is the file modules.alias for modules, as depmod writes it.
func Aliases(modules []*Module) string {
	var lines []string
	for _, m := range modules {
		for _, alias := range m.Info.Aliases {
			lines = append(lines, fmt.Sprintf("alias %s %s\n", alias, m.Name))
		}
	}
	slices.Sort(lines)
	return strings.Join(slices.Compact(lines), "")
}
