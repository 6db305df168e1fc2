package pressureevents

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
)

// note says that a threshold was passed, or that there is nothing left to be watched.
type note struct {
	at        time.Duration // of CLOCK_BOOTTIME: when it was read, as the kernel gives no time with it
	id        string
	threshold *eventspb.PressureThreshold
	total     time.Duration
	gone      bool
}

// event is what n becomes, unless it is about a control group that has gone.
func (n note) event(when func(time.Duration) time.Time) (*eventspb.PressureEvent, bool) {
	t := n.threshold
	return &eventspb.PressureEvent{
		Action: "Stalled", Threshold: n.id, Resource: t.GetResource(), Tasks: t.GetTasks(), Plugin: t.GetPlugin(), BoottimeNs: uint64(n.at),
		Time: timestamppb.New(when(n.at)), Total: durationpb.New(n.total), Message: n.message(),
	}, !n.gone
}

var waits = map[eventspb.PressureThreshold_Resource]string{
	eventspb.PressureThreshold_MEMORY: "memory", eventspb.PressureThreshold_CPU: "the processor", eventspb.PressureThreshold_IO: "a disk",
}

var who = map[eventspb.PressureThreshold_Tasks]string{eventspb.PressureThreshold_SOME: "tasks", eventspb.PressureThreshold_FULL: "all tasks"}

// message says what was passed: "tasks waited for memory for 150ms or more within 2s".
func (n note) message() string {
	t := n.threshold
	return fmt.Sprintf("%s waited for %s for %s or more within %s", who[t.GetTasks()], waits[t.GetResource()], t.GetStall().AsDuration(), t.GetWindow().AsDuration())
}
