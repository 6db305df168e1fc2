package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"strings"
	"time"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/statetest"
)

// checker checks the rules one after the other.
type checker struct {
	out       io.Writer
	api       resourcepb.StateClient
	namespace string
	run       *regexp.Regexp
	extended  bool
	history   int
	patience  time.Duration
	json      bool
}

// finding is what came of one rule.
type finding struct {
	Rule     string   `json:"rule"`
	Outcome  string   `json:"outcome"` // kept, broken, unchecked
	Extended bool     `json:"extended,omitempty"`
	Wrong    []string `json:"wrong,omitempty"`
	Why      string   `json:"why,omitempty"` // it was not checked
}

// Outcomes.
const (
	kept      = "kept"
	broken    = "broken"
	unchecked = "unchecked"
)

// rule is one of either sort.
type rule struct {
	name              string
	extended, outruns bool
	check             func(ctx context.Context, t statetest.T, suffix string)
}

func (c *checker) rules() []rule {
	var all []rule
	for _, r := range statetest.Rules() {
		all = append(all, rule{r.Name, r.Extended, r.Outruns, func(ctx context.Context, t statetest.T, suffix string) {
			s := &renamed{statetest.Foreign(c.api), c.namespace, suffix}
			defer s.clean()
			r.Check(ctx, t, s, c.history)
		}})
	}
	for _, r := range statetest.WireRules() {
		all = append(all, rule{r.Name, r.Extended, false, func(ctx context.Context, t statetest.T, suffix string) {
			k := state.Kind{Namespace: c.namespace, Type: "Wire" + suffix}
			defer clean(statetest.Foreign(c.api), k)
			r.Check(ctx, t, c.api, k)
		}})
	}
	return all
}

// check prints what came of each rule, and returns errBroken if one is.
func (c *checker) check(ctx context.Context) error {
	count := map[string]int{}
	begun := time.Now().UnixNano()
	for n, r := range c.rules() {
		if !c.run.MatchString(r.name) || r.extended && !c.extended {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f := finding{Rule: r.name, Extended: r.extended, Outcome: kept}
		if r.outruns && c.history == 0 {
			f.Outcome, f.Why = unchecked, "--history does not say how many events the server keeps"
		} else if f.Wrong = c.one(ctx, r, fmt.Sprintf("%x%d.conformance.cosi.dev", begun, n)); len(f.Wrong) > 0 {
			f.Outcome = broken
		}
		count[f.Outcome]++
		if err := c.print(f); err != nil {
			return err
		}
	}
	if !c.json {
		fmt.Fprintf(c.out, "%d rules kept, %d broken, %d not checked\n", count[kept], count[broken], count[unchecked])
	}
	switch {
	case count[broken] > 0:
		return errBroken
	case count[kept] == 0:
		return errors.New("no rule was checked")
	}
	return nil
}

// one checks a rule with kinds that nobody has used, and returns what is wrong.
func (c *checker) one(ctx context.Context, r rule, suffix string) []string {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	t := &recorder{}
	done := make(chan struct{})
	go func() { // of its own, because Fatalf ends it
		defer close(done)
		r.check(ctx, t, suffix)
	}()
	<-done
	return t.wrong
}

func (c *checker) print(f finding) error {
	if c.json {
		return json.NewEncoder(c.out).Encode(f)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-9s  %s\n", f.Outcome, f.Rule)
	for _, wrong := range f.Wrong {
		fmt.Fprintf(&b, "           %s\n", strings.ReplaceAll(wrong, "\n", "\n           "))
	}
	if f.Why != "" {
		fmt.Fprintf(&b, "           %s\n", f.Why)
	}
	_, err := io.WriteString(c.out, b.String())
	return err
}

// recorder is a statetest.T.
type recorder struct{ wrong []string }

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.wrong = append(r.wrong, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}
