package userdata

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/sdk"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// remote is a source that takes a network.
type remote struct {
	id    string // of the UserDataSource
	fetch func(context.Context) *found
	// guessed is one that nobody has named. If it does not answer for a while, it is not there.
	guessed bool
}

// guessPatience is how long one is asked that was guessed: an address may take a DHCP server its time.
const guessPatience = 2 * time.Minute

// retry spaces the attempts at a remote source.
type retry struct {
	first, most time.Duration
	delay       time.Duration
	since, next time.Time
	done        bool // there is nothing more to ask
}

// later doubles the delay and returns when the next attempt is due.
func (r *retry) later(now time.Time) (time.Time, time.Duration) {
	r.delay = min(max(2*r.delay, r.first), r.most)
	r.next = now.Add(r.delay)
	return r.next, r.delay
}

// retryOf returns the attempts at a source.
func (c *controller) retryOf(id string) *retry {
	if c.retries[id] == nil {
		c.retries[id] = &retry{first: firstRetry, most: mostRetry, since: c.now()}
	}
	return c.retries[id]
}

const (
	firstRetry = 2 * time.Second
	mostRetry  = time.Minute
)

// remotes are the sources that take a network, in the order in which they are applied. A config drive holds what OpenStack's service would say; one
// that is refused may be anybody's, and keeps nobody from asking.
func (c *controller) remotes(argument string, offline []*found) []remote {
	var all []remote
	drive := slices.ContainsFunc(offline, func(f *found) bool {
		return f.source == sourceConfigDrive && !f.absent() && !errors.Is(f.err, errRefused)
	})
	if services[c.platform] != nil && !(drive && c.platform == platformOpenStack) {
		fetch := func(ctx context.Context) *found { return askService(ctx, c.platform, c.metadata) }
		all = append(all, remote{string(c.platform), fetch, !c.named})
	}
	if argument != "" && !strings.HasPrefix(argument, "data:") {
		fetch := func(ctx context.Context) *found { return fetch(ctx, c.root, argument) }
		all = append(all, remote{sourceURL, fetch, false})
	}
	return all
}

// askRemotes handles the sources that take a network and returns why one is still pending, "" if none is.
func (c *controller) askRemotes(ctx context.Context, s *sdk.State, a *applier, all []remote) (string, error) {
	var pending []string
	for _, r := range all {
		why, err := c.askRemote(ctx, s, a, r)
		if err != nil {
			return "", err
		}
		if why != "" {
			pending = append(pending, why)
		}
	}
	if len(pending) == 0 {
		c.tellAzure(ctx)
	}
	return strings.Join(pending, "; "), nil
}

// askRemote handles one.
func (c *controller) askRemote(ctx context.Context, s *sdk.State, a *applier, r remote) (string, error) {
	if known, ok := sdk.Get[*machinepb.UserDataSource](s, kindSource, r.id); ok && finished(known.Spec.State) {
		return "", nil // once for each boot: what has changed there since is for the next one
	}
	attempts := c.retryOf(r.id)
	switch {
	case attempts.done:
		return "", nil
	case attempts.next.After(c.now()):
		return fmt.Sprintf("%s is tried again soon", r.id), nil
	}
	f := r.fetch(ctx)
	if f.err != nil && !errors.Is(f.err, errRefused) {
		if !r.guessed || c.now().Sub(attempts.since) < guessPatience {
			return c.unreachable(ctx, s, f, attempts)
		}
		f = nowhere(r.id, fmt.Sprintf("no answer in %s: %v", guessPatience, f.err))
	}
	attempts.done = true
	return "", c.settle(ctx, s, a, f)
}

// unreachable records a failed fetch and arranges for the next.
func (c *controller) unreachable(ctx context.Context, s *sdk.State, f *found, attempts *retry) (string, error) {
	next := c.again(attempts)
	message := f.err.Error()
	return message, c.write(ctx, s, f.id, &machinepb.UserDataSource{
		State: stateUnreachable, Source: f.source, Message: message, NextTry: timestamppb.New(next), Unauthenticated: f.unauthenticated,
	})
}

// again arranges for the next attempt and returns when it is.
func (c *controller) again(attempts *retry) time.Time {
	next, delay := attempts.later(c.now())
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wake != nil {
		time.AfterFunc(delay, c.wake)
	}
	return next
}

// tellAzure tells Azure once a boot that the node is ready: its user data has been dealt with. Nothing waits for it.
func (c *controller) tellAzure(ctx context.Context) {
	const id = "ready report to Azure"
	attempts := c.retryOf(id)
	if c.platform != platformAzure || attempts.done || attempts.next.After(c.now()) {
		return
	}
	if err := reportReady(ctx, c.wire); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", id, err)
		c.again(attempts)
		return
	}
	attempts.done = true
}
