// Bench measures the figures that the project holds itself to and prints each beside its target. "make bench" builds the image and the
// programs first and calls it; a subset can be named:
//
//	go run ./hack/bench            all
//	go run ./hack/bench build size boot split idle api
//	go run ./hack/bench clean      a build with empty caches, which takes minutes; only when it is named
//
// A figure that is missed is shown as missed and is no error; one that cannot be measured is.
package main

import (
	"context"
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

// group is a set of figures that are measured together.
type group struct {
	name    string
	measure func(context.Context) ([]figure, error)
}

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, wanted []string) error {
	groups := []group{{"build", build}, {"size", size}, {"boot", boot}, {"split", split}, {"idle", idle}, {"api", api}, {"clean", clean}}
	for _, name := range wanted {
		if !slices.ContainsFunc(groups, func(g group) bool { return g.name == name }) {
			return fmt.Errorf("%q is none of build, size, boot, split, idle, api, clean", name)
		}
	}
	if len(wanted) == 0 {
		wanted = []string{"build", "size", "boot", "split", "idle", "api"}
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	fmt.Printf("%d cores, load %s\n\n", runtime.NumCPU(), strings.Join(strings.Fields(string(load))[:3], " "))
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "FIGURE\tMEASURED\tTARGET\t\tAGAIN")
	for _, g := range groups {
		if !slices.Contains(wanted, g.name) {
			continue
		}
		figures, err := g.measure(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
		for _, f := range figures {
			target := ""
			if f.target > 0 {
				target = fmt.Sprintf("≤ %g %s", f.target, f.unit)
			}
			fmt.Fprintf(table, "%s\t%.2f %s\t%s\t%s\tgo run ./hack/bench %s\n", f.name, f.measured, f.unit, target, f.verdict(), g.name)
		}
	}
	return table.Flush()
}
