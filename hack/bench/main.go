// Bench measures the figures that the project holds itself to and prints each beside its target. "make bench" builds the images and the
// programs first and calls it; some groups can be named:
//
//	make bench                       all; on two idle cores that takes about a quarter of an hour
//	make bench WHAT="size build"     some of: size build boot split clean events power idle api boot-server size-own boot-own
//
// A figure that is missed is shown as missed and is no error; one that cannot be measured is, and the others are shown all the same.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
)

// figure is something that was measured.
type figure struct {
	name     string
	measured float64
	unit     string
	target   float64 // 0: none, the figure is part of another
}

func (f figure) verdict() string {
	switch {
	case f.target == 0:
		return ""
	case f.measured <= f.target:
		return "met"
	}
	return "missed"
}

// String is the figure as columns of the table.
func (f figure) String() string {
	target := ""
	if f.target > 0 {
		target = fmt.Sprintf("≤ %g %s", f.target, f.unit)
	}
	return fmt.Sprintf("%s\t%.2f %s\t%s\t%s", f.name, f.measured, f.unit, target, f.verdict())
}

// group is a set of figures that are measured together.
type group struct {
	name    string
	measure func(context.Context) ([]figure, error)
}

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	do := func(ctx context.Context) error { return run(ctx, flag.Args()) }
	if other, ok := roles[os.Getenv(role)]; ok {
		do = other
	}
	if err := do(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// groups are all that is measured, the quick ones first.
var groups = []group{{"size", size}, {"build", builds}, {"boot", boot}, {"split", split}, {"clean", clean}, {"events", events}, {"power", power}, {"idle", idle}, {"api", api}, {"boot-server", bootServer}}

// named are measured only if they are named: building our own kernel takes longer than all of the above.
var named = []group{{"size-own", sizeOwn}, {"boot-own", bootOwn}}

// choose returns the groups of these names, all but the named ones if there are no names.
func choose(names []string) ([]group, error) {
	if len(names) == 0 {
		return groups, nil
	}
	all := slices.Concat(groups, named)
	var chosen []group
	for _, name := range names {
		i := slices.IndexFunc(all, func(g group) bool { return g.name == name })
		if i < 0 {
			var known []string
			for _, g := range all {
				known = append(known, g.name)
			}
			return nil, fmt.Errorf("%q is none of %s", name, strings.Join(known, ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// run measures, and prints what was measured even if something could not be.
func run(ctx context.Context, names []string) error {
	chosen, err := choose(names)
	if err != nil {
		return err
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	fmt.Printf("%d cores, load %s\n\n", runtime.NumCPU(), strings.Join(strings.Fields(string(load))[:3], " "))
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "FIGURE\tMEASURED\tTARGET\t\tAGAIN")
	var problems []error
	for _, g := range chosen {
		figures, err := g.measure(ctx)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", g.name, err))
		}
		for _, f := range figures {
			fmt.Fprintf(table, "%s\tmake bench WHAT=%s\n", f, g.name)
		}
	}
	return errors.Join(append(problems, table.Flush())...)
}
