package mountevents

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/plugins/internal/mountinfo"
	"github.com/cosi-os/cosi/sdk"
)

type point = sdk.Resource[*storagepb.MountPoint]

// key tells one mount from all others: an id alone may be that of another one soon.
type key struct {
	id, device             uint64
	source, target, fstype string
}

func keyOf(m mountinfo.Mount) key { return key{m.ID, m.Device, m.Source, m.Target, m.Fstype} }

// seen is a mount as the table had it last.
type seen struct {
	mountinfo.Mount
	fsid  unix.Fsid // that its errors come with, if they do
	point point     // that asked for it, as it was last; without metadata if none did

	faulty   bool   // its file system found an error in itself
	refuses  string // why it takes no writes since, if it says so
	readOnly bool
}

// change is a difference between two tables that nobody asked for.
type change struct {
	what   what
	action string
	mount  mountinfo.Mount
	why    string
}

// compare returns what is in the table now, and what has changed without being asked for. known are MountPoints that are there or were a
// moment ago, the latest word of each last: what one of them asked for was mounted for it. current are those that were there after the
// table was read: what was asked for in that and is gone from the table was taken away by somebody else.
func compare(before map[key]*seen, table mountinfo.Table, known, current []point) (now map[key]*seen, changes []change) {
	now = map[key]*seen{}
	taken := map[string]bool{} // MountPoints that have their mount; each has one
	for _, m := range table {
		old := before[keyOf(m)]
		is := &seen{}
		if old != nil {
			*is = *old
		}
		is.Mount, is.readOnly = m, readOnly(m) || is.refuses != ""
		if p := asker(known, m, taken); p.Metadata != nil {
			is.point, taken[p.GetId()] = p, true
		}
		now[keyOf(m)] = is
		switch {
		case old == nil && is.point.Metadata == nil:
			changes = append(changes, change{mounted, "Mounted", m, ""})
		case old != nil && old.readOnly != is.readOnly && (is.point.Metadata == nil || slices.Contains(is.point.Spec.GetFlags(), "ro") != is.readOnly):
			changes = append(changes, change{changed, map[bool]string{true: "ReadOnly", false: "Writable"}[is.readOnly], m, is.refuses})
		}
	}
	gone := slices.SortedFunc(maps.Values(before), func(a, b *seen) int { return cmp.Compare(b.ID, a.ID) }) // the innermost first, mostly
	for _, old := range gone {
		if now[keyOf(old.Mount)] == nil && (old.point.Metadata == nil || stillAsked(current, old.point)) {
			changes = append(changes, change{unmounted, "Unmounted", old.Mount, ""})
		}
	}
	return now, changes
}

// asker returns the MountPoint that m is there for.
func asker(points []point, m mountinfo.Mount, taken map[string]bool) point {
	for _, p := range slices.Backward(points) {
		if !taken[p.GetId()] && p.Spec.GetTarget() == m.Target && p.Spec.GetFstype() == m.Fstype &&
			(p.Spec.GetSource() == m.Source || deviceOf(p.Spec.GetSource()) == m.Device) {
			return p
		}
	}
	return point{}
}

// deviceOf is the number of a block device, which may have several names; 0 if it is none.
func deviceOf(source string) uint64 {
	var stat unix.Stat_t
	if !strings.HasPrefix(source, "/") || unix.Stat(source, &stat) != nil || stat.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0
	}
	return stat.Rdev
}

// stillAsked reports whether p is there as it was. One that is changed or torn down has its mount taken away.
func stillAsked(current []point, p point) bool {
	return slices.ContainsFunc(current, func(c point) bool {
		return c.GetId() == p.GetId() && proto.Equal(c.GetCreated(), p.GetCreated()) && !c.TearingDown() && proto.Equal(c.Spec, p.Spec)
	})
}

// readOnly reports whether the table says that nothing can be written through m. After an error ext4 says so in a word of its own since
// Linux 6.15; before it may say nothing, see refusal.
func readOnly(m mountinfo.Mount) bool {
	options := strings.Split(m.Options, ",")
	return slices.Contains(m.Flags, "ro") || slices.Contains(options, "ro") || slices.Contains(options, "emergency_ro")
}

// same reports whether there is nothing to compare.
func same(before map[key]*seen, table mountinfo.Table) bool {
	for _, m := range table {
		if old := before[keyOf(m)]; old == nil || old.readOnly != (readOnly(m) || old.refuses != "") {
			return false
		}
	}
	return len(before) == len(table)
}
