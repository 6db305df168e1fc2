package node

import (
	"testing"

	"github.com/cosi-os/cosi/engine/output"
	"github.com/cosi-os/cosi/engine/wire"
)

func started(name string, pid int) wire.Up {
	return wire.Up{Started: &wire.Started{Name: name, PID: pid}}
}

func TestALateRuntimeIsToldTheLastOfEachProcess(t *testing.T) {
	r := newRecord()
	r.publish(wire.Up{Stage: &wire.Stage{Name: "engine", Milliseconds: 1}})
	r.publish(wire.Up{Watchdog: &wire.Watchdog{Identity: "x"}})
	r.publish(started("mount", 1))
	r.publish(wire.Up{Confined: &wire.Confined{Name: "mount", PID: 1}})
	r.publish(wire.Up{Exited: &wire.Exited{Name: "mount", PID: 1}})
	r.publish(started("network", 2))
	r.publish(wire.Up{Confined: &wire.Confined{Name: "network", PID: 2}})
	r.publish(started("mount", 3))
	all := r.connect()
	if len(all) != 5 || all[0].Stage == nil || all[1].Watchdog == nil || all[2].Started.PID != 3 || all[3].Started.PID != 2 || all[4].Confined.PID != 2 {
		t.Errorf("replay %+v; want the stage, the watchdog, mount 3, network 2 and its confinement", all)
	}
	if r.alone() {
		t.Error("alone with a runtime connected")
	}
}

func TestTheQueueBeginsWhereTheReplayEnds(t *testing.T) {
	r := newRecord()
	r.publish(started("a", 1))
	if all := r.connect(); len(all) != 1 {
		t.Fatalf("replay %+v", all)
	}
	r.publish(started("b", 2))
	if queue := r.take(); len(queue) != 1 || queue[0].Started.Name != "b" {
		t.Errorf("queue %+v; want b", queue)
	}
	if queue := r.take(); queue != nil {
		t.Errorf("queue %+v after it was taken", queue)
	}
	r.disconnect()
	r.publish(started("c", 3))
	if queue := r.take(); queue != nil || !r.alone() {
		t.Errorf("queue %+v with nobody connected", queue)
	}
	r.publish(wire.Up{Stopping: &wire.Stopping{Reason: "asked"}})
	if all := r.connect(); len(all) != 4 || all[3].Stopping == nil {
		t.Errorf("replay %+v; want three processes and Stopping", all)
	}
}

func TestTheRuntimesReadyIsHeardOnceAndMore(t *testing.T) {
	n := New(Config{}, output.NewLog())
	select {
	case <-n.listens:
		t.Fatal("the API listens before it says so")
	default:
	}
	n.obey(t.Context(), &wire.Down{Stage: &wire.Stage{Name: "api", Milliseconds: 1}})
	<-n.listens
	select {
	case <-n.ready:
		t.Fatal("ready after another stage")
	default:
	}
	for range 2 { // a runtime that was restarted says it again
		n.obey(t.Context(), &wire.Down{Stage: &wire.Stage{Name: stageReady, Milliseconds: 2}})
	}
	<-n.ready
	if all := n.record.connect(); len(all) != 3 {
		t.Errorf("replay %+v; want the three stages", all)
	}
}
