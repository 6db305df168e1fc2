package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

// pluginChecker checks one plugin, step by step.
type pluginChecker struct {
	out             io.Writer
	host            *host
	inputs          []*resourcepb.Resource
	patience, quiet time.Duration
	json            bool
}

// The rules of a plugin.
const (
	ruleStarts     = "It registers as declared and becomes ready"
	ruleAnswers    = "It answers every input with a status of its version"
	ruleRests      = "It writes nothing when nothing changes"
	ruleReconnects = "It changes nothing when a runtime that restarted asks again"
	ruleRewrites   = "It writes everything again when the runtime has lost its memory"
	ruleSurvives   = "Killed at any moment, it comes back to the same"
	ruleLetsGo     = "It lets go of what is torn down and removes its status"
	ruleFinishes   = "Killed while it lets go, it lets go all the same"
	ruleDrains     = "It drains in time and ends with 0"
	ruleCalls      = "It calls nothing that its declaration does not have"
)

// step is how a rule is checked.
type step struct {
	rule   string
	inputs bool // it needs some
	run    func(context.Context) error
	// builds are rules that break this one too when they are broken: it is then not checked.
	builds []string
}

func (c *pluginChecker) steps() []step {
	started := func(context.Context) error { return nil } // as before every step
	refused := func(context.Context) error { return c.host.refusals() }
	return []step{
		{ruleStarts, false, started, nil},
		{ruleAnswers, true, c.answers, nil},
		{ruleRests, false, c.rests, nil},
		{ruleReconnects, false, c.reconnects, []string{ruleRests}},
		{ruleRewrites, true, c.rewrites, []string{ruleAnswers}},
		{ruleSurvives, false, c.survives, []string{ruleAnswers}},
		{ruleLetsGo, true, c.letsGo, nil},
		{ruleFinishes, true, c.finishes, []string{ruleAnswers, ruleLetsGo}},
		{ruleDrains, false, c.drains, nil},
		{ruleCalls, false, refused, nil},
	}
}

// check prints what came of each rule, and returns errBroken if one is.
func (c *pluginChecker) check(ctx context.Context) error {
	count, outcomes := map[string]int{}, map[string]string{}
	p := checker{out: c.out, json: c.json}
	for _, s := range c.steps() {
		f := c.finding(ctx, s, outcomes)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		count[f.Outcome]++
		outcomes[s.rule] = f.Outcome
		if err := p.print(f); err != nil {
			return err
		}
	}
	if !c.json {
		fmt.Fprintf(c.out, "%d rules kept, %d broken, %d not checked\n", count[kept], count[broken], count[unchecked])
	}
	if count[broken] > 0 {
		return errBroken
	}
	return nil
}

func (c *pluginChecker) finding(ctx context.Context, s step, outcomes map[string]string) finding {
	f := finding{Rule: s.rule, Outcome: unchecked}
	base := slices.IndexFunc(s.builds, func(rule string) bool { return outcomes[rule] == broken })
	switch {
	case s.inputs && len(c.inputs) == 0:
		f.Why = "--inputs has no document"
	case outcomes[ruleStarts] == broken && s.rule != ruleCalls:
		f.Why = "the plugin does not start"
	case base >= 0:
		f.Why = "a rule that it builds on is broken: " + s.builds[base]
	default:
		f.Outcome = kept
		if err := c.running(ctx, s); err != nil {
			f.Outcome, f.Wrong = broken, []string{err.Error()}
		}
	}
	return f
}

// running runs a step with a plugin that runs: one that ended in the step before is started again, as a node does.
func (c *pluginChecker) running(ctx context.Context, s step) error {
	if s.rule != ruleCalls && c.host.alive() != nil {
		if err := c.starts(ctx); err != nil {
			return err
		}
	}
	return s.run(ctx)
}

// until waits until is returns nil while the plugin runs. It returns its last error otherwise.
func (c *pluginChecker) until(ctx context.Context, is func() error) error {
	for end := time.Now().Add(c.patience); ; time.Sleep(10 * time.Millisecond) {
		last := is()
		if last == nil {
			return nil
		}
		if err := c.host.alive(); err != nil {
			return fmt.Errorf("%w: %w", err, last)
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("after %v: %w", c.patience, last)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (c *pluginChecker) starts(ctx context.Context) error {
	if err := c.host.startPlugin(); err != nil {
		return err
	}
	return c.until(ctx, c.host.ready)
}

func (c *pluginChecker) applyAll(ctx context.Context) error {
	for _, r := range c.inputs {
		if err := c.host.apply(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

func (c *pluginChecker) answered(ctx context.Context) error {
	return c.until(ctx, func() error { return c.host.answered(ctx, c.inputs) })
}

func (c *pluginChecker) answers(ctx context.Context) error {
	if err := c.applyAll(ctx); err != nil {
		return err
	}
	return c.answered(ctx)
}

// rests waits until the outputs are for a while what they were.
func (c *pluginChecker) rests(ctx context.Context) error {
	return c.until(ctx, func() error {
		before, err := c.host.outputs(ctx, true)
		if err != nil {
			return err
		}
		pause(ctx, c.quiet)
		return c.host.same(ctx, before, true)
	})
}

// reconnects restarts the runtime with the store that it had.
func (c *pluginChecker) reconnects(ctx context.Context) error {
	before, err := c.host.outputs(ctx, true)
	if err != nil {
		return err
	}
	c.host.stop()
	if err := c.host.start(); err != nil {
		return err
	}
	if err := c.until(ctx, c.host.ready); err != nil {
		return err
	}
	pause(ctx, c.quiet)
	return c.host.same(ctx, before, true)
}

// rewrites restarts the runtime with a store that has the inputs alone.
func (c *pluginChecker) rewrites(ctx context.Context) error {
	before, err := c.host.outputs(ctx, false)
	if err != nil {
		return err
	}
	c.host.stop()
	if err := c.host.forget(ctx, c.inputs); err != nil {
		return err
	}
	if err := c.host.start(); err != nil {
		return err
	}
	return c.until(ctx, func() error { return errors.Join(c.host.ready(), c.host.same(ctx, before, false)) })
}

// kills is how often the plugin is killed at a random moment.
const kills = 3

// kill kills the plugin while it is at work, and starts it again.
func (c *pluginChecker) kill(ctx context.Context) error {
	pause(ctx, rand.N(200*time.Millisecond))
	c.host.killPlugin()
	return c.starts(ctx)
}

// survives gives every input a new version and kills the plugin while it is at it. What it says then may not differ but for the version.
func (c *pluginChecker) survives(ctx context.Context) error {
	if err := c.answers(ctx); err != nil {
		return err
	}
	before, err := c.host.outputs(ctx, false)
	if err != nil {
		return err
	}
	for range kills {
		if err := c.applyAll(ctx); err != nil {
			return err
		}
		if err := c.kill(ctx); err != nil {
			return err
		}
		if err := c.answered(ctx); err != nil {
			return err
		}
	}
	return c.until(ctx, func() error { return c.host.same(ctx, before, false) })
}

func (c *pluginChecker) teardownAll(ctx context.Context) error {
	for _, r := range c.inputs {
		if _, err := c.host.top.Teardown(ctx, state.PointerTo(r), state.WriteOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// gone waits until all inputs can be destroyed and have no status.
func (c *pluginChecker) gone(ctx context.Context) error {
	return c.until(ctx, func() error {
		for _, r := range c.inputs {
			if err := c.host.gone(ctx, r); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *pluginChecker) letsGo(ctx context.Context) error {
	if err := c.teardownAll(ctx); err != nil {
		return err
	}
	err := c.gone(ctx)
	if err != nil {
		c.host.remove(ctx, c.inputs) // the next steps go without
	}
	return err
}

// finishes kills the plugin while it lets go.
func (c *pluginChecker) finishes(ctx context.Context) error {
	for range kills {
		if err := c.answers(ctx); err != nil {
			return err
		}
		if err := c.teardownAll(ctx); err != nil {
			return err
		}
		if err := c.kill(ctx); err != nil {
			return err
		}
		if err := c.gone(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *pluginChecker) drains(ctx context.Context) error {
	// Half of the time is the plugin's.
	late := c.host.table.Drain(ctx, "conformance", time.Now().Add(2*c.patience), func(string) {})
	if len(late) > 0 {
		c.host.killPlugin()
		return fmt.Errorf("after %v: it has not said that it has drained", c.patience)
	}
	code, err := c.host.waitPlugin(c.patience)
	if err != nil {
		return err
	}
	if code != 0 {
		return errors.New("it ends with " + strconv.Itoa(code))
	}
	return nil
}
