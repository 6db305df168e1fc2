package vmtest_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	testpb "github.com/cosi-os/cosi/api/cosi/test/v1alpha1"
)

// pluginThatEnds: a plugin that dies is started again and goes on where it was. Its resources stay, its status tells of it, and those
// who follow the engine's log read it. (That the plugin has no right to signal any other process is one of its own attempts.)
func (c *checks) pluginThatEnds(t *testing.T, action, exit string) {
	var before, after servicepb.PluginStatus
	c.Get(t, "plugins", "probe", &before)
	results := c.created(t, "probes")
	if len(results) < 20 || !before.GetReady() {
		t.Fatalf("before the test the plugin has %d results and this status: %v", len(results), &before)
	}
	follower := c.outside.follow(t, "logs", "engine", "-f", "--tail", "1")
	follower.expect(t, `.`) // it follows now

	request := c.Apply(t, fmt.Sprintf("metadata: {type: ProbeRequests.test.cosi.dev, id: end}\nspec: {action: %s}\n", action))
	c.Until(t, "plugins", "probe", &after, func(*resourcepb.Metadata) bool { return after.GetRestarts() > before.GetRestarts() && after.GetReady() })
	if after.GetRestarts() != before.GetRestarts()+1 || after.GetLastExit() != exit || after.GetPid() == before.GetPid() {
		t.Errorf("before: %v\nafter: %v\nwant one restart, exit %q, another process", &before, &after, exit)
	}
	if !after.GetConfinement().GetDeviceFilter() {
		t.Errorf("started again, it has no device filter: %v", after.GetConfinement())
	}
	// Ready is what the second process writes, when it sees the request again.
	c.Converged(t, request...)
	var status testpb.ProbeRequestStatus
	if c.Get(t, "proberequeststatuses", "end", &status); status.GetPid() != before.GetPid() {
		t.Errorf("the process %d has ended, the first one was %d", status.GetPid(), before.GetPid())
	}
	if now := c.created(t, "probes"); !maps.Equal(results, now) {
		t.Errorf("the plugin's resources were not left alone:\n%v\n%v", results, now)
	}
	follower.expect(t, `probe ended: `+exit)
	follower.interrupt(t)
	c.Delete(t, "proberequests", "end")
	c.Until(t, "proberequeststatuses", "end", &status, func(m *resourcepb.Metadata) bool { return m == nil })
}

// runtimeThatIsKilled: PID 1 starts it again, the plugins stay, connect to it and say everything anew. What is mounted stays mounted.
func (c *checks) runtimeThatIsKilled(t *testing.T) {
	c.Converged(t, c.Apply(t, mountPoint("kept", "/dev/vdb"))...)
	before, links := c.processes(t, "before"), c.created(t, "linkstatuses")
	from := c.Console.Position()
	c.Apply(t, "metadata: {type: GaugeRequests.test.cosi.dev, id: kill}\nspec: {kill: runtime}\n")
	c.Expect(t, from, `runtime ended: signal killed`)

	c.Ready(t)
	c.Converged(t, c.Apply(t, mountPoint("kept", "/dev/vdb"))...)
	if !inUse(t, c.data) {
		t.Error("the host sees a file system that nobody has mounted")
	}
	after := c.processes(t, "after")
	for name, pid := range before {
		if now := after[name]; (name == "runtime") == (now == pid) {
			t.Errorf("%s was process %d and is process %d; want another runtime, and nothing else", name, pid, now)
		}
	}
	if now := c.created(t, "linkstatuses"); !slices.Equal(slices.Sorted(maps.Keys(now)), slices.Sorted(maps.Keys(links))) {
		t.Errorf("links before: %v, after: %v", links, now)
	}
	c.Delete(t, "mountpoints", "kept")
	c.unmounted(t, "kept")
}

// processes returns the pid of each process of the node.
func (c *checks) processes(t *testing.T, id string) map[string]uint32 {
	t.Helper()
	c.Converged(t, c.Apply(t, fmt.Sprintf("metadata: {type: GaugeRequests.test.cosi.dev, id: %s}\n", id))...)
	var status testpb.GaugeRequestStatus
	c.Get(t, "gaugerequeststatuses", id, &status)
	all := map[string]uint32{}
	for _, p := range status.GetProcesses() {
		all[p.GetName()] = p.GetPid()
	}
	if len(all) < 8 {
		t.Fatalf("processes: %v; want the engine, the runtime and at least six plugins", all)
	}
	return all
}

// created tells when each resource of a kind was created: one that was gone in between is not the same.
func (c *checks) created(t *testing.T, kind string) map[string]string {
	t.Helper()
	all, err := c.Client.List(c.Patience(t, patience), c.Kind(t, kind))
	if err != nil {
		t.Fatal(err)
	}
	created := map[string]string{}
	for _, r := range all {
		created[r.GetMetadata().GetId()] = r.GetMetadata().GetCreated().AsTime().String() + " " + r.GetMetadata().GetOwner()
	}
	return created
}
