package etcdguard

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	etcdpb "github.com/cosi-os/cosi/api/cosi/etcd/v1alpha1"
)

const (
	// interval is how often etcd is looked at, and the lock of a node that is leaving renewed.
	interval = 30 * time.Second
	// impatience is how often it is looked at while the node has the lock and does not leave: others may not go before it is let go.
	impatience = time.Second
)

// stage is how far the node is on its way down.
type stage string

const (
	watching stage = "watching" // nobody asks
	asked    stage = "asked"    // a request waits for an answer
	leaving  stage = "leaving"  // the answer was yes
)

// question is what the worker is asked. Two that are equal have one answer.
type question struct {
	config   *etcdpb.EtcdGuard // nil: none
	version  string            // of config
	stage    stage
	requests string // the ids and versions of those that wait
	override bool   // all of them have force or are critical
	critical bool   // one of them is
}

// deadline is the time for an answer. All inhibitors together delay a critical request for 30 s at most.
func (q question) deadline() time.Duration {
	d := orElse(q.config.GetDeadline(), 20*time.Second)
	if q.critical {
		return min(d, 15*time.Second)
	}
	return d
}

func orElse(d *durationpb.Duration, usual time.Duration) time.Duration {
	if d == nil {
		return usual
	}
	return d.AsDuration()
}

// answer is what the cluster says.
type answer struct {
	question question
	view     *view
	err      error // asked: why the node must not go; else: why etcd gives no answer
}

// lasts is for how long it need not be asked again.
func (a answer) lasts() time.Duration {
	if a.question.stage == watching && a.view != nil && a.view.lock.Member == a.question.config.GetMember() {
		return impatience
	}
	return interval
}

// worker speaks to etcd, which may take until the deadline, so that reconcile need not wait for it.
type worker struct {
	posed chan struct{} // holds one

	mu       sync.Mutex // guards the fields below
	question question
	stop     context.CancelFunc // ends the work on the question before
	answer   answer
}

func newWorker() *worker { return &worker{posed: make(chan struct{}, 1), stop: func() {}} }

// pose returns the answer to q, if there is one yet. Work on another question ends.
func (w *worker) pose(q question) (answer, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.question != q {
		w.question = q
		w.stop()
		select {
		case w.posed <- struct{}{}:
		default: // one is enough
		}
	}
	return w.answer, w.answer.question == q
}

// watch answers questions until ctx is done, and calls wake when there is an answer.
func (w *worker) watch(ctx context.Context, wake func()) error {
	for {
		var again <-chan time.Time
		if q, run := w.begin(ctx); q.config != nil {
			a := work(run, q)
			if w.end(a, run) {
				wake()
			}
			again = time.After(a.lasts())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.posed:
		case <-again:
		}
	}
}

func (w *worker) begin(ctx context.Context) (question, context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	run, stop := context.WithCancel(ctx)
	w.stop = stop
	return w.question, run
}

// end takes an answer in, unless another question was posed meanwhile.
func (w *worker) end(a answer, run context.Context) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.stop()
	if run.Err() != nil {
		return false
	}
	w.answer = a
	return true
}

// work answers q within its deadline.
func work(ctx context.Context, q question) answer {
	ctx, cancel := context.WithTimeout(ctx, q.deadline())
	defer cancel()
	c, err := connect(q.config)
	if err != nil {
		return answer{question: q, err: err}
	}
	defer c.close()
	switch q.stage {
	case asked:
		v, err := c.permit(ctx, q.override)
		return answer{q, v, err}
	case leaving:
		if err := c.renew(ctx); err != nil {
			return answer{question: q, err: err}
		}
		v, err := c.inspect(ctx)
		return answer{q, v, err}
	}
	v, err := c.settle(ctx)
	return answer{q, v, err}
}

// permit finds out whether the node may go down, and brings about that it may. An error says why not: then the lock is let go. With override
// the node goes whatever it says, so that all is done that can be done, and the lock is kept.
func (c *cluster) permit(ctx context.Context, override bool) (*view, error) {
	// Half of the time for the lock and the members: the rest is for the leader to move.
	half, cancel := context.WithTimeout(ctx, remaining(ctx)/2)
	defer cancel()
	refused := c.lock(half)
	if refused != nil && !override {
		return nil, refused
	}
	v, err := c.prepare(half, ctx, override)
	if err != nil && !override {
		// The time may be over; if this fails, settle does it later.
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if c.unlock(late) == nil && v != nil {
			v.lock = lock{}
		}
	}
	return v, cmp.Or(refused, err)
}

// prepare looks whether the node can be spared, for which it has until half is done, and moves the leader away.
func (c *cluster) prepare(half, ctx context.Context, override bool) (*view, error) {
	v, err := c.inspect(half)
	if err != nil {
		return nil, err
	}
	refused := v.spare(c.config.GetMember())
	if refused != nil && !override {
		return v, refused
	}
	if err := c.moveLeader(ctx, v); err != nil {
		return v, fmt.Errorf("the leader does not move away: %w", err)
	}
	return v, refused
}

// remaining is the time until ctx's deadline, which work has set.
func remaining(ctx context.Context) time.Duration {
	end, _ := ctx.Deadline()
	return time.Until(end)
}

// settle looks at the cluster while nobody asks. A lock of the node's own is of its last way down, or of a request that others refused.
func (c *cluster) settle(ctx context.Context) (*view, error) {
	v, err := c.inspect(ctx)
	if err != nil || v.lock.Member != c.config.GetMember() || !v.own(c.config.GetMember()).healthy {
		return v, err
	}
	if err := c.unlock(ctx); err != nil {
		return v, err
	}
	v.lock = lock{}
	return v, nil
}
