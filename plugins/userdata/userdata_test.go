package userdata

import (
	"context"
	"os"
	"strings"
	"testing"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/sdk"
	"google.golang.org/protobuf/proto"
)

// run starts the plugin on a node whose files are below root, and stops it with the test or by the function that it returns.
func run(t *testing.T, r *plugintest.Runtime, root string) (stop func()) {
	t.Helper()
	if _, err := os.Stat(root + "/proc/cmdline"); err != nil {
		put(t, root, "proc/cmdline", "console=ttyS0\n")
	}
	t.Setenv(sdk.EnvEndpoint, r.Endpoint)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sdk.Run(ctx, plugin(root)) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			<-done
		}
	}
	t.Cleanup(stop)
	r.Wait("all sources have been looked at", func() bool { return source(r, summaryID).GetComplete() })
	return stop
}

func source(r *plugintest.Runtime, id string) *machinepb.UserDataSource {
	s := &machinepb.UserDataSource{}
	r.Get(id, s)
	return s
}

const defaults = `
metadata: {type: DHCPClients.network.cosi.dev, id: default}
spec: {link: {all_physical: true}}
`

func TestNoUserDataLeavesTheDefaults(t *testing.T) {
	r, root := plugintest.Start(t, declaration), t.TempDir()
	put(t, root, defaultsFile, defaults)
	run(t, r, root)
	if s := source(r, sourceFwCfg); s.State != stateAbsent {
		t.Errorf("fw_cfg is %v; want %s", s, stateAbsent)
	}
	client := &networkpb.DHCPClient{}
	if m := r.Get("default", client); m == nil || m.Annotations[annotationProvenance] != provenanceImage || !client.Link.GetAllPhysical() {
		t.Errorf("DHCPClient default = %v; want the image's", m)
	}
}

func TestNetworkReadOfflineReplacesTheDefault(t *testing.T) {
	r, root := plugintest.Start(t, declaration), t.TempDir()
	put(t, root, defaultsFile, defaults)
	put(t, root, fwCfgFile, "metadata: {type: addr, id: a}\nspec: {link: {name: eth0}, address: 192.0.2.1/24}\n")
	run(t, r, root)
	if m := r.Get("default", &networkpb.DHCPClient{}); m != nil {
		t.Errorf("DHCPClient default = %v; want none", m)
	}
	if m := r.Get("a", &networkpb.Address{}); m == nil || m.Owner != "" {
		t.Errorf("Address a = %v; want one that nobody owns", m)
	}
}

// TestAMistakeInTheAddressLeavesTheDefault: the node can be reached, and says what is wrong.
func TestAMistakeInTheAddressLeavesTheDefault(t *testing.T) {
	r, root := plugintest.Start(t, declaration), t.TempDir()
	put(t, root, defaultsFile, defaults)
	put(t, root, fwCfgFile, "metadata: {type: addr, id: a}\nspec: {link: {name: eth0}, address: 192.0.2.1/240}\n")
	run(t, r, root)
	if m := r.Get("default", &networkpb.DHCPClient{}); m == nil {
		t.Error("the image's DHCPClient is left out for an Address that is none")
	}
	if s := source(r, sourceFwCfg); s.State != stateFailed || len(s.Problems) != 1 {
		t.Errorf("fw_cfg is %v; want one problem", s)
	}
}

// TestAnAddressIsStillAskedForByWhoNamesOnlyAServer: what gives no address leaves the image's way to one.
func TestAnAddressIsStillAskedForByWhoNamesOnlyAServer(t *testing.T) {
	r, root := plugintest.Start(t, declaration), t.TempDir()
	put(t, root, defaultsFile, defaults)
	put(t, root, fwCfgFile, `metadata: {type: dns, id: lan}
spec: {servers: [192.0.2.53]}
---
metadata: {type: link, id: lan}
spec: {link: {name: eth0}, mtu: 1400}
---
metadata: {type: route, id: lan}
spec: {destination: 198.51.100.0/24, gateway: 192.0.2.1}
`)
	run(t, r, root)
	if s := source(r, sourceFwCfg); s.State != stateApplied || s.Applied != 3 {
		t.Fatalf("fw_cfg is %v; want three documents applied", s)
	}
	if m := r.Get("default", &networkpb.DHCPClient{}); m == nil || m.Annotations[annotationProvenance] != provenanceImage {
		t.Errorf("DHCPClient default = %v; want the image's", m)
	}
}

func TestGoodDocumentsAreAppliedBesideBadOnes(t *testing.T) {
	r, root := plugintest.Start(t, declaration), t.TempDir()
	put(t, root, fwCfgFile, `metadata: {type: mount, id: good}
spec: {source: tmpfs, target: /var/good, fstype: tmpfs}
---
metadata: {type: mount, id: broken
spec: {source: tmpfs}
---
metadata: {type: MountPiont, id: unknown}
spec: {source: tmpfs}
---
metadata: {type: mount, id: wrong}
spec:
  source: tmpfs
  target: /var/wrong
  fstype: tmpfs
  flags: [ro, nosiud]
---
metadata: {type: mount, id: last}
spec: {source: tmpfs, target: /var/last, fstype: tmpfs}
`)
	run(t, r, root)
	for _, id := range []string{"good", "last"} {
		if r.Get(id, &storagepb.MountPoint{}) == nil {
			t.Errorf("mount %s is not there", id)
		}
	}
	s := source(r, sourceFwCfg)
	if s.State != statePartlyApplied || s.Documents != 5 || s.Applied != 2 || len(s.Problems) != 3 {
		t.Fatalf("source = %v; want 2 of 5 applied and 3 problems", s)
	}
	for i, want := range []struct {
		document, line uint32
		field, message string
	}{
		{2, 5, "", ""},
		{3, 7, "metadata.type", "did you mean MountPoint"},
		{4, 15, "spec.flags[1]", "must be in list"},
	} {
		p := s.Problems[i]
		if p.Document != want.document || p.Line != want.line || p.Field != want.field || !strings.Contains(p.Message, want.message) {
			t.Errorf("problem %d = %v; want document %d, line %d, field %q, message with %q", i, p, want.document, want.line, want.field, want.message)
		}
	}
}

// TestAppliedOnceForEachDigest: what a person writes stays when the plugin starts again, and when new user data comes.
func TestAppliedOnceForEachDigest(t *testing.T) {
	r, root := plugintest.Start(t, declaration), t.TempDir()
	const old = `metadata: {type: mount, id: mine}
spec: {source: tmpfs, target: /var/old, fstype: tmpfs}
---
metadata: {type: mount, id: theirs}
spec: {source: tmpfs, target: /var/old, fstype: tmpfs}
`
	put(t, root, fwCfgFile, old)
	stop := run(t, r, root)
	person := &storagepb.MountPoint{Source: "tmpfs", Target: "/var/person", Fstype: "tmpfs"}
	change(t, r, "theirs", person)
	stop()

	before := r.Get("mine", &storagepb.MountPoint{}).Version
	run(t, r, root)()
	if after := r.Get("mine", &storagepb.MountPoint{}).Version; after != before {
		t.Errorf("applied again with the same digest: version %s, then %s", before, after)
	}

	put(t, root, fwCfgFile, strings.ReplaceAll(old, "/var/old", "/var/new"))
	run(t, r, root)
	r.Wait("the new digest is on record", func() bool { return source(r, sourceFwCfg).State == statePartlyApplied })
	mine, theirs := &storagepb.MountPoint{}, &storagepb.MountPoint{}
	r.Get("mine", mine)
	r.Get("theirs", theirs)
	if mine.Target != "/var/new" || theirs.Target != "/var/person" {
		t.Errorf("targets = %s, %s; want the new one where user data wrote last, the person's else", mine.Target, theirs.Target)
	}
	if p := source(r, sourceFwCfg).Problems; len(p) != 1 || !strings.Contains(p[0].Message, "changed over the API") {
		t.Errorf("problems = %v; want the conflict", p)
	}
}

// change writes as a person does over the API: the runtime takes the mark of user data off.
func change(t *testing.T, r *plugintest.Runtime, id string, spec *storagepb.MountPoint) {
	t.Helper()
	resource := r.Apply(id, spec)
	resource = &resourcepb.Resource{Metadata: proto.CloneOf(resource.Metadata), Spec: resource.Spec}
	delete(resource.Metadata.Annotations, annotationProvenance)
	if _, err := r.Store.Update(t.Context(), resource, state.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
}
