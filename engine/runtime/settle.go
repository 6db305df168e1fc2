package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/headroom"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/storage"
	"google.golang.org/protobuf/proto"
)

const (
	// latest is how long a node may take to be ready before it is settled all the same.
	latest = 5 * time.Minute
	// quiet is how long a node that has become ready is left alone.
	quiet = 5 * time.Second
	// settled is when what the boot took is given back.
	settled = 15 * time.Second
	// frugal is how many percent of what is in use there may be of garbage from ready until then. The rules that are compiled stay, most
	// of what that takes does not, and the more of it lies about, the larger are the holes between.
	frugal = 25
)

// hurried is how many percent of what is in use there may be of garbage before the first collection. A boot makes no more than that, and shares the
// processor with all that starts: collecting it there costs 40 million instructions.
const hurried = 400

// hurry puts the first collection off. It does nothing when collection is off (GOGC=off).
func (r *nodeRuntime) hurry() {
	r.garbage = debug.SetGCPercent(hurried)
	if r.garbage < 0 {
		debug.SetGCPercent(r.garbage)
		return
	}
	r.first = runtime.AddCleanup(new([16]byte), func(usual int) { debug.SetGCPercent(usual) }, r.garbage)
}

// settle does what the boot does not wait for.
func (r *nodeRuntime) settle(ctx context.Context) error {
	rest := quiet
	select {
	case <-r.ready:
	case <-time.After(latest):
		rest = 0
	case <-ctx.Done():
		return ctx.Err()
	}
	if !pause(ctx, rest) {
		return ctx.Err()
	}
	r.first.Stop()
	debug.SetGCPercent(frugal)
	misfits, err := r.top.Settle(ctx, r.storage.Kinds())
	if err != nil {
		return err
	}
	if len(misfits) > 0 {
		said := proto.CloneOf(r.storage.Status())
		said.Reason, said.Message = storage.ReasonMisfits, strings.Join(misfits, "; ")
		warn(fmt.Errorf("state of another image: %s", said.GetMessage()))
		if err := r.sayStorage(ctx, said); err != nil {
			return err
		}
	}
	if pause(ctx, settled-rest) {
		runtime.GC() // what is in a pool goes in the second collection after it was put there
		debug.FreeOSMemory()
		debug.SetGCPercent(r.garbage)
		headroom.Keep()
	}
	<-ctx.Done()
	return ctx.Err()
}

// pause reports whether so much time has passed before ctx is done.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// sayStorage shows where the state is kept, and what is the matter with it.
func (r *nodeRuntime) sayStorage(ctx context.Context, s *machinepb.StateStatus) error {
	r.node.Storage(s)
	return r.output.Put(ctx, state.Pointer{Kind: storage.Statuses, ID: storage.StatusID}, s)
}
