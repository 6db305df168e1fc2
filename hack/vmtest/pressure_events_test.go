package vmtest_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/hack/vmtest"
)

// checkPressureEvents: threads of a plugin compete for the processor, which passes the plugin's threshold and none of memory; of
// thresholds that cannot be it is said why.
func checkPressureEvents(t *testing.T, n *vmtest.Node) {
	generator(t, n, "pressure-events", "psi")
	checkBadThresholds(t, n)
	status := &eventspb.PressureThresholdStatus{}
	n.Apply(t, pressureThreshold("nobody", "resource: IO, tasks: FULL, stall: 1s, window: 10s, plugin: nobody"))
	n.Until(t, "pressurestatuses", "nobody", status, func(m *resourcepb.Metadata) bool {
		return m != nil && status.GetReason() == "NoPlugin" && !status.GetReady()
	})

	n.Converged(t, n.Apply(t, pressureThreshold("gauge-busy", "resource: CPU, tasks: SOME, stall: 1s, window: 2s, plugin: gauge")+
		"---\n"+pressureThreshold("probe-short", "resource: MEMORY, tasks: FULL, stall: 2s, window: 2s, plugin: probe")+
		"---\n"+pressureThreshold("short", "resource: MEMORY, tasks: SOME, stall: 2s, window: 2s"))...)
	burns := n.Apply(t, gaugeRequest("burn", "burn: 6"))
	e := &eventspb.PressureEvent{}
	await(t, n, "pressureevents", e, func() bool { return e.GetThreshold() == "gauge-busy" })
	if e.GetAction() != "Stalled" || e.GetPlugin() != "gauge" || e.GetResource() != eventspb.PressureThreshold_CPU || e.GetTotal().AsDuration().Seconds() < 1 || e.GetTime() == nil || e.GetBoottimeNs() == 0 {
		t.Errorf("event %v; want that gauge waited for a second", e)
	}
	n.Converged(t, burns...)
	for _, event := range list(t, n, "pressureevents") {
		if decode(t, event, e); e.GetThreshold() != "gauge-busy" {
			t.Errorf("an event that nobody provoked: %v", e)
		}
	}

	n.Delete(t, "pressurethresholds", "gauge-busy")
	if n.Get(t, "pressurestatuses", "gauge-busy", status) != nil {
		t.Errorf("status %v; want none without a threshold", status)
	}
	before := len(list(t, n, "pressureevents"))
	n.Converged(t, n.Apply(t, gaugeRequest("burn-again", "burn: 5"))...)
	if after := len(list(t, n, "pressureevents")); after != before {
		t.Errorf("%d events without a threshold", after-before)
	}
}

func pressureThreshold(id, spec string) string {
	return "metadata: {type: PressureThresholds.events.cosi.dev, id: " + id + "}\nspec: {" + spec + "}\n"
}

// checkBadThresholds: what the kernel would refuse is refused when it is written, and of which field.
func checkBadThresholds(t *testing.T, n *vmtest.Node) {
	kind := n.Kind(t, "pressurethresholds")
	for want, change := range map[string]func(*eventspb.PressureThreshold){
		"spec.window: must be in list [2s, 4s, 6s, 8s, 10s]": func(p *eventspb.PressureThreshold) { p.Window = &durationpb.Duration{Seconds: 3} },
		"stall is longer than window":                        func(p *eventspb.PressureThreshold) { p.Stall = &durationpb.Duration{Seconds: 5} },
		"FULL of CPU is for a plugin only": func(p *eventspb.PressureThreshold) {
			p.Resource, p.Tasks = eventspb.PressureThreshold_CPU, eventspb.PressureThreshold_FULL
		},
	} {
		p := &eventspb.PressureThreshold{
			Resource: eventspb.PressureThreshold_MEMORY, Tasks: eventspb.PressureThreshold_SOME,
			Stall: &durationpb.Duration{Seconds: 1}, Window: &durationpb.Duration{Seconds: 2},
		}
		change(p)
		content, err := proto.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = n.Client.Apply(n.Patience(t, moment), kind, &resourcepb.Resource{
			Metadata: &resourcepb.Metadata{Namespace: kind.Namespace(), Type: kind.Type(), Id: "bad", Version: "1", Phase: "running"},
			Spec:     &resourcepb.Spec{ProtoSpec: content},
		})
		vmtest.Refused(t, err, codes.InvalidArgument)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("refused with %v; want %q", err, want)
		}
	}
}
