package client

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/builtin"
)

func lookup(t *testing.T, name string) *kinds.Kind {
	t.Helper()
	k, err := builtin.Set().Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func spec(t *testing.T, m proto.Message) *resourcepb.Spec {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &resourcepb.Spec{ProtoSpec: data}
}

func TestApplyKeepsWhatTheNodeAdded(t *testing.T) {
	old := &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Id: "data", Version: "7", Finalizers: []string{"mount"}, Labels: map[string]string{"old": "x"},
			Annotations: map[string]string{"cosi.dev/cause": "c", "cosi.dev/provenance": "p", "mine": "1"}},
		Spec: spec(t, &storagepb.MountPoint{Source: "a"}),
	}
	wanted := &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Id: "data", Labels: map[string]string{"new": "y"}, Annotations: map[string]string{"cosi.dev/cause": "d"}},
		Spec:     spec(t, &storagepb.MountPoint{Source: "b"}),
	}
	want := &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Id: "data", Version: "7", Finalizers: []string{"mount"}, Labels: map[string]string{"new": "y"},
			Annotations: map[string]string{"cosi.dev/cause": "d", "cosi.dev/provenance": "p"}},
		Spec: wanted.GetSpec(),
	}
	got := Merge(old, wanted)
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if old.GetMetadata().GetLabels()["old"] != "x" || len(wanted.GetMetadata().GetAnnotations()) != 1 {
		t.Error("merge changed what it was given")
	}
}

func TestOnlyADifferenceIsAnUpdate(t *testing.T) {
	k := lookup(t, "mount")
	resource := func(source string, labels, annotations map[string]string) *resourcepb.Resource {
		return &resourcepb.Resource{Metadata: &resourcepb.Metadata{Labels: labels, Annotations: annotations}, Spec: spec(t, &storagepb.MountPoint{Source: source})}
	}
	one := map[string]string{"a": "b"}
	for name, test := range map[string]struct {
		other *resourcepb.Resource
		want  bool
	}{
		"the same":            {resource("x", nil, nil), true},
		"empty and no labels": {resource("x", map[string]string{}, nil), true},
		"another content":     {resource("y", nil, nil), false},
		"another label":       {resource("x", one, nil), false},
		"another annotation":  {resource("x", nil, one), false},
	} {
		if got := same(k, resource("x", nil, nil), test.other); got != test.want {
			t.Errorf("%s: same = %v; want %v", name, got, test.want)
		}
	}
}

func TestOlder(t *testing.T) {
	for _, test := range []struct {
		observed, wanted string
		want             bool
	}{
		{"1", "2", true}, {"2", "2", false}, {"10", "9", false}, {"9", "10", true}, {"", "1", true}, {"undefined", "1", true},
	} {
		if got := older(test.observed, test.wanted); got != test.want {
			t.Errorf("older(%q, %q) = %v", test.observed, test.wanted, got)
		}
	}
}

func TestReadConvergence(t *testing.T) {
	k := lookup(t, "mountstatus")
	got, err := ReadConvergence(k, &resourcepb.Resource{Spec: spec(t, &storagepb.MountPointStatus{ObservedVersion: "3", Ready: true, Reason: "Mounted", Message: "m"})})
	if want := (Convergence{ObservedVersion: "3", Ready: true, Reason: "Mounted", Message: "m"}); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for want, c := range map[string]Convergence{
		"no status yet": {}, "observed version 2": {ObservedVersion: "2"}, "Waiting": {Reason: "Waiting"}, "Waiting: for a disk": {Reason: "Waiting", Message: "for a disk"},
	} {
		if c.String() != want {
			t.Errorf("%+v.String() = %q; want %q", c, c, want)
		}
	}
}
