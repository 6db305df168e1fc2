package sdk

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
)

func testCache(t *testing.T) *cache {
	t.Helper()
	k, ok := linkedKinds(map[string]bool{"MountPoints.storage.cosi.dev": true})["MountPoints.storage.cosi.dev"]
	if !ok {
		t.Fatal("MountPoints is not linked")
	}
	if k.namespace != "config" {
		t.Fatalf("namespace = %q, want config", k.namespace)
	}
	return newCache(k, false)
}

// event is one of a resource with one id, born at the second born.
func event(kind resourcepb.EventType, version string, born int64, finalizers ...string) *resourcepb.Event {
	content, _ := proto.Marshal(&storagepb.MountPoint{Target: "/var/" + version})
	return &resourcepb.Event{EventType: kind, Bookmark: []byte(version), Resource: &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Id: "data", Version: version, Phase: "running", Finalizers: finalizers, Created: &timestamppb.Timestamp{Seconds: born}},
		Spec:     &resourcepb.Spec{ProtoSpec: content},
	}}
}

const (
	created      = resourcepb.EventType_CREATED
	updated      = resourcepb.EventType_UPDATED
	destroyed    = resourcepb.EventType_DESTROYED
	bootstrapped = resourcepb.EventType_BOOTSTRAPPED
)

func version(c *cache) string {
	e, _ := c.get("data")
	return e.resource.GetMetadata().GetVersion()
}

func TestCacheTakesContentsAtOnce(t *testing.T) {
	c := testCache(t)
	if c.start() != nil {
		t.Error("a new cache has a bookmark")
	}
	if c.established() {
		t.Error("the contents are known before they have come")
	}
	if got := c.apply(event(created, "1", 1)); got != content || version(c) != "" || c.isSynced() {
		t.Errorf("before BOOTSTRAPPED: change %v, version %q, synced %v", got, version(c), c.isSynced())
	}
	if got := c.apply(&resourcepb.Event{EventType: bootstrapped, Bookmark: []byte("b")}); got != life || version(c) != "1" || !c.isSynced() {
		t.Errorf("after BOOTSTRAPPED: change %v, version %q, synced %v", got, version(c), c.isSynced())
	}
	c.unsync()
	if string(c.start()) != "b" || !c.established() || !c.isSynced() || version(c) != "1" {
		t.Error("the next watch does not go on from the bookmark")
	}
	if !c.expired() || c.expired() || c.start() != nil {
		t.Error("an expired bookmark is still there")
	}
	c.apply(&resourcepb.Event{EventType: bootstrapped})
	if version(c) != "" {
		t.Error("a resource that the contents do not hold any more is still there")
	}
}

func TestCacheChanges(t *testing.T) {
	c := testCache(t)
	c.start()
	c.apply(&resourcepb.Event{EventType: bootstrapped})
	for _, step := range []struct {
		name    string
		event   *resourcepb.Event
		want    change
		version string
	}{
		{"created", event(created, "1", 1), content, "1"},
		{"the same again", event(created, "1", 1), unchanged, "1"},
		{"updated", event(updated, "3", 1), content, "3"},
		{"older", event(updated, "2", 1), unchanged, "3"},
		{"by number, not by text", event(updated, "10", 1), content, "10"},
		{"finalizer", event(updated, "11", 1, "x"), life, "11"},
		{"another life", event(created, "1", 2), life, "1"},
		{"destroyed", event(destroyed, "1", 2), life, ""},
		{"destroyed again", event(destroyed, "1", 2), unchanged, ""},
	} {
		if got := c.apply(step.event); got != step.want || version(c) != step.version {
			t.Errorf("%s: change %v, version %q; want %v, %q", step.name, got, version(c), step.want, step.version)
		}
	}
}

func TestCacheTakesOwnWritesIn(t *testing.T) {
	c := testCache(t)
	c.start()
	c.apply(&resourcepb.Event{EventType: bootstrapped})
	c.updated(event(updated, "2", 1).Resource)
	if version(c) != "" {
		t.Error("the answer to an update brought a resource back that the watch had seen go")
	}
	c.created(event(created, "1", 1).Resource)
	c.updated(event(updated, "2", 1).Resource)
	if version(c) != "2" {
		t.Errorf("version = %q, want that of the own write", version(c))
	}
	if got := c.apply(event(updated, "2", 1)); got != unchanged {
		t.Error("the event of an own write looks like somebody else's")
	}
	c.apply(event(destroyed, "2", 1))
	c.apply(event(created, "1", 2))
	c.updated(event(updated, "3", 1).Resource)
	if version(c) != "1" {
		t.Error("the answer to an update of an earlier life took the place of the present one")
	}
	c.destroyed("data")
	if version(c) != "" {
		t.Error("destroyed and still there")
	}
}

func TestCacheLeavesOutWhatItCannotRead(t *testing.T) {
	c := testCache(t)
	c.start()
	c.apply(&resourcepb.Event{EventType: bootstrapped})
	c.apply(event(created, "1", 1))
	broken := event(updated, "2", 1)
	broken.Resource.Spec.ProtoSpec = []byte{0xff}
	if got := c.apply(broken); got != life || version(c) != "" {
		t.Errorf("change %v, version %q; want it to be gone", got, version(c))
	}
}
