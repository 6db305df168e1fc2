package vmtest_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/tools/client"

	"google.golang.org/protobuf/proto"
)

// patience is how long something may take on hardware until a test gives it up.
const patience = 15 * time.Second

// everyKind: all that is there can be listed and read, one by one, by the client and by cosictl.
func (c *checks) everyKind(t *testing.T) {
	set, err := c.Client.Kinds(c.Patience(t, patience))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(set.All()), len(builtin.Set().All()); got != want {
		t.Errorf("the node defines %d kinds, this repository %d", got, want)
	}
	table := c.outside.cosictl(t, "get")
	full := map[string]int{}
	for _, kind := range set.All() {
		all, err := c.Client.List(c.Patience(t, patience), kind)
		if err != nil {
			t.Errorf("list %s: %v", kind.Type(), err)
		}
		if full[kind.ShortName()] = len(all); len(all) > 0 {
			id := all[len(all)-1].GetMetadata().GetId()
			if r, err := c.Client.Get(c.Patience(t, patience), kind, id); err != nil || r.GetMetadata().GetId() != id {
				t.Errorf("get %s/%s = %v, %v", kind.Type(), id, r, err)
			}
		}
		if !strings.Contains(table, kind.Type()) {
			t.Errorf("cosictl get does not show %s", kind.Type())
		}
		out := c.outside.cosictl(t, "get", kind.ShortName())
		if rows := strings.Count(out, "\n"); len(all) > 0 && rows < 2 || len(all) == 0 && rows > 0 {
			t.Errorf("cosictl get %s shows %d resources as %q", kind.ShortName(), len(all), out)
		}
	}
	for _, kind := range []string{
		"machinestatuses", "pluginstatuses", "logs", "certificates", "certificatesstatuses", "userdatasources", "dhcpclients", "linkstatuses",
		"addressstatuses", "resourcedefinitions", "namespaces",
	} {
		if full[kind] == 0 {
			t.Errorf("a node has %s; this one shows none", kind)
		}
	}
}

// logs: the last lines of the engine, of the kernel and of each plugin that has something to say are read and followed as resources.
func (c *checks) logs(t *testing.T) {
	kind := c.Kind(t, "logs")
	for _, name := range []string{"engine", "kernel", "userdata", "marker", "probe"} {
		var last uint64
		err := c.Client.Watch(c.Patience(t, patience), kind, name, &resourcepb.WatchOptions{TailEvents: 3, Aggregated: true}, func(e *resourcepb.Event) error {
			var line servicepb.LogLine
			if err := proto.Unmarshal(e.GetResource().GetSpec().GetProtoSpec(), &line); err != nil {
				return err
			}
			if line.GetLine() == "" || line.GetTime().AsTime().Year() < 2026 {
				t.Errorf("%s: %v", name, &line)
			}
			last = line.GetSequence()
			return client.ErrStop
		})
		if err != nil || last == 0 {
			t.Errorf("%s: no line, %v", name, err)
		}
	}
	if out := c.outside.cosictl(t, "logs", "marker"); !strings.Contains(out, "wrote "+target("second")) {
		t.Errorf("cosictl logs marker: %q", out)
	}
	// As JSON a line has its time.
	var line struct{ Line, Time string }
	out := c.outside.cosictl(t, "logs", "kernel", "--tail", "1", "-o", "json")
	if err := json.Unmarshal([]byte(out), &line); err != nil || line.Line == "" || line.Time == "" {
		t.Errorf("cosictl logs kernel -o json: %q: %v", out, err)
	}
	follower := c.outside.follow(t, "logs", "marker", "-f", "--tail", "1")
	follower.expect(t, `wrote`) // it follows now
	c.Converged(t, c.Apply(t, mountPoint("followed", "/dev/vdb"))...)
	follower.expect(t, `wrote `+target("followed"))
	follower.interrupt(t)
	c.Delete(t, "mountpoints", "followed")
}

// demoWithGrpcurl is the demo by a client that has nothing of ours but the protoset. It writes YAML; both forms come back.
func (c *checks) demoWithGrpcurl(t *testing.T) {
	type resource struct {
		Metadata struct {
			Version, Phase string
			Finalizers     []string
		}
		Spec struct{ ProtoSpec, YamlSpec string }
	}
	type answer struct{ Resource resource }
	const id = "grpcurl"
	name := func(kind, namespace string) string {
		return fmt.Sprintf(`{"namespace": %q, "type": %q, "id": %q}`, namespace, kind, id)
	}
	desired, observed := name("MountPoints.storage.cosi.dev", "config"), name("MountPointStatuses.storage.cosi.dev", "status")

	from := c.Console.Position()
	var created answer
	c.outside.call(t, "Create", fmt.Sprintf(`{"resource": {
		"metadata": {"namespace": "config", "type": "MountPoints.storage.cosi.dev", "id": %q, "version": "1", "phase": "running"},
		"spec": {"yaml_spec": "{source: /dev/vdb, target: %s, fstype: ext4}"}}}`, id, target(id)), &created)
	if s := created.Resource.Spec; s.ProtoSpec == "" || !strings.Contains(s.YamlSpec, "source: /dev/vdb\n") {
		t.Errorf("both forms of the content should come back: %+v", s)
	}
	c.Expect(t, from, `marker: .*wrote `+target(id)+`/cosi-marker`)
	var status, acknowledged answer
	c.outside.call(t, "Get", observed, &status)
	if s := status.Resource.Spec; s.ProtoSpec == "" || !strings.Contains(s.YamlSpec, "ready: true\n") || !strings.Contains(s.YamlSpec, "observed_version:") {
		t.Errorf("the status: %+v", s)
	}
	c.outside.call(t, "Get", desired, &acknowledged)
	if f := acknowledged.Resource.Metadata.Finalizers; len(f) != 1 || f[0] != "mount" {
		t.Errorf("finalizers of the MountPoint: %q; want that of mount", f)
	}
	c.outside.call(t, "TeardownAndDestroy", desired, nil)
	for _, gone := range []string{desired, observed} {
		if out, err := c.outside.grpcurl(t, "Get", gone); err == nil || !strings.Contains(out, "NotFound") {
			t.Errorf("get %s after it was destroyed: %v, %s", gone, err, out)
		}
	}
	c.unmounted(t, id)
}

// grpcurlIsToldWhatIsWrong: a write that breaks the schema is refused field by field.
func (c *checks) grpcurlIsToldWhatIsWrong(t *testing.T) {
	out, err := c.outside.grpcurl(t, "Create", `{"resource": {
		"metadata": {"namespace": "config", "type": "MountPoints.storage.cosi.dev", "id": "wrong", "version": "1", "phase": "running"},
		"spec": {"yaml_spec": "{sorce: /dev/vdb, target: /etc, fstype: ext4}"}}}`)
	if err == nil || !strings.Contains(out, "InvalidArgument") || !strings.Contains(out, "sorce") {
		t.Errorf("a wrong field: %v, %s", err, out)
	}
}
