package mountevents

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/plugins/internal/mountinfo"
)

func TestChangesThatNobodyAskedFor(t *testing.T) {
	with := func(change func(*resourcepb.Metadata, *storagepb.MountPoint)) []point {
		p := point{
			Metadata: &resourcepb.Metadata{Id: "data", Phase: "running", Created: &timestamppb.Timestamp{Seconds: 7}},
			Spec:     &storagepb.MountPoint{Source: "a", Target: "/var/data", Fstype: "tmpfs"},
		}
		if change != nil {
			change(p.Metadata, p.Spec)
		}
		return []point{p}
	}
	data := with(nil)
	m := func(id uint64, change func(*mountinfo.Mount)) mountinfo.Mount {
		m := mountinfo.Mount{ID: id, Device: 40, Source: "a", Target: "/var/data", Fstype: "tmpfs", Flags: []string{"rw", "nosuid"}, Options: "rw,size=1k"}
		if change != nil {
			change(&m)
		}
		return m
	}
	options := func(text string) func(*mountinfo.Mount) { return func(m *mountinfo.Mount) { m.Options = text } }
	flags := func(all ...string) func(*mountinfo.Mount) { return func(m *mountinfo.Mount) { m.Flags = all } }
	type table = mountinfo.Table
	for what, tc := range map[string]struct {
		first, second  table
		before         []point // MountPoints of the first look
		known, current []point // of the second
		want           []string
	}{
		"nothing":                                 {first: table{m(1, nil)}, second: table{m(1, nil)}},
		"mounted":                                 {second: table{m(1, nil)}, want: []string{"Mounted"}},
		"mounted for a MountPoint":                {second: table{m(1, nil)}, known: data, current: data},
		"mounted for one that is gone again":      {second: table{m(1, nil)}, known: data},
		"another source":                          {second: table{m(1, func(m *mountinfo.Mount) { m.Source = "b" })}, known: data, current: data, want: []string{"Mounted"}},
		"another file system":                     {second: table{m(1, func(m *mountinfo.Mount) { m.Fstype = "ramfs" })}, known: data, current: data, want: []string{"Mounted"}},
		"a second one on top":                     {first: table{m(1, nil)}, before: data, second: table{m(1, nil), m(2, nil)}, known: data, current: data, want: []string{"Mounted"}},
		"unmounted":                               {first: table{m(1, nil)}, want: []string{"Unmounted"}},
		"unmounted, asked for":                    {first: table{m(1, nil)}, before: data, known: data, current: data, want: []string{"Unmounted"}},
		"its MountPoint is gone":                  {first: table{m(1, nil)}, before: data, known: data},
		"is torn down":                            {first: table{m(1, nil)}, before: data, known: data, current: with(func(m *resourcepb.Metadata, _ *storagepb.MountPoint) { m.Phase = "tearingDown" })},
		"goes elsewhere":                          {first: table{m(1, nil)}, before: data, known: data, current: with(func(_ *resourcepb.Metadata, p *storagepb.MountPoint) { p.Target = "/var/b" })},
		"is another one by now":                   {first: table{m(1, nil)}, before: data, known: data, current: with(func(m *resourcepb.Metadata, _ *storagepb.MountPoint) { m.Created.Seconds = 8 })},
		"mounted again by the plugin":             {first: table{m(1, nil)}, before: data, second: table{m(2, nil)}, known: data, current: data, want: []string{"Unmounted"}},
		"moved":                                   {first: table{m(1, nil)}, second: table{m(1, func(m *mountinfo.Mount) { m.Target = "/b" })}, want: []string{"Mounted", "Unmounted"}},
		"read-only by its flags":                  {first: table{m(1, nil)}, second: table{m(1, flags("ro"))}, want: []string{"ReadOnly"}},
		"read-only, its MountPoint does not care": {first: table{m(1, nil)}, before: data, second: table{m(1, options("ro"))}, known: data, current: data, want: []string{"ReadOnly"}},
		"read-only as ext4 says it":               {first: table{m(1, nil)}, second: table{m(1, options("rw,emergency_ro"))}, want: []string{"ReadOnly"}},
		"writable again":                          {first: table{m(1, options("ro"))}, second: table{m(1, nil)}, want: []string{"Writable"}},
		"read-only as asked":                      {first: table{m(1, nil)}, before: data, second: table{m(1, options("ro"))}, known: with(func(_ *resourcepb.Metadata, p *storagepb.MountPoint) { p.Flags = []string{"ro"} })},
		"other options":                           {first: table{m(1, nil)}, second: table{m(1, options("rw,size=2k"))}},
	} {
		first, _ := compare(nil, tc.first, tc.before, tc.before)
		if equal := same(first, tc.second); equal && len(tc.want) > 0 {
			t.Errorf("%s: same = %v", what, equal)
		}
		_, changes := compare(first, tc.second, tc.known, tc.current)
		var got []string
		for _, c := range changes {
			got = append(got, c.action)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q; want %q", what, got, tc.want)
		}
	}
}

// A file system that takes no writes any more is read-only whatever the table says of it, and once.
func TestAFileSystemThatRefusesWritesIsReadOnly(t *testing.T) {
	m := mountinfo.Mount{ID: 1, Source: "/dev/a", Target: "/a", Fstype: "ext4", Flags: []string{"rw"}, Options: "rw"}
	table := mountinfo.Table{m}
	now, _ := compare(nil, table, nil, nil)
	now[keyOf(m)].refuses = "writes fail"
	if same(now, table) {
		t.Error("nothing to compare")
	}
	now, changes := compare(now, table, nil, nil)
	if len(changes) != 1 || changes[0].action != "ReadOnly" || changes[0].why != "writes fail" {
		t.Errorf("changes %+v; want that it is read-only", changes)
	}
	if _, changes := compare(now, table, nil, nil); len(changes) > 0 || !same(now, table) {
		t.Errorf("changes %+v; want it once", changes)
	}
}
