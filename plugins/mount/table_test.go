package mount

import (
	"reflect"
	"strings"
	"testing"

	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"

	"golang.org/x/sys/unix"
)

const lines = `22 1 253:0 / / rw,relatime shared:1 - ext4 /dev/root rw
31 22 0:27 / /run/mnt/a\040b ro,nosuid,nodev - tmpfs tm\134pfs ro,size=1024k
32 31 254:16 /sub /var/data rw,relatime shared:3 master:1 - xfs /dev/vdb rw,attr2
33 22 0:28 / /var/data rw - tmpfs  rw
`

func TestParseTable(t *testing.T) {
	got, err := parseTable([]byte(lines))
	if err != nil {
		t.Fatal(err)
	}
	want := table{
		{unix.Mkdev(253, 0), "/", []string{"rw", "relatime"}, "ext4", "/dev/root", "rw"},
		{unix.Mkdev(0, 27), "/run/mnt/a b", []string{"ro", "nosuid", "nodev"}, "tmpfs", `tm\pfs`, "ro,size=1024k"},
		{unix.Mkdev(254, 16), "/var/data", []string{"rw", "relatime"}, "xfs", "/dev/vdb", "rw,attr2"},
		{unix.Mkdev(0, 28), "/var/data", []string{"rw"}, "tmpfs", "", "rw"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("parseTable = %+v; want %+v", got, want)
	}
	if m, ok := got.at("/var/data"); !ok || m.fstype != "tmpfs" {
		t.Errorf("at /var/data = %+v, %v; want the mount that covers the other", m, ok)
	}
	if _, ok := got.at("/var"); ok {
		t.Error("at /var found something")
	}
}

func TestParseTableNamesTheLine(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"22 1 253:0 / /\n", `/proc/self/mountinfo:1: "22 1 253:0 / /" has too few fields`},
		{strings.Split(lines, "\n")[0] + "\n22 1 x:0 / / rw - ext4 a rw\n", `/proc/self/mountinfo:2: "x:0" is not a device number`},
	} {
		if _, err := parseTable([]byte(test.in)); err == nil || err.Error() != test.want {
			t.Errorf("parseTable(%q) = %v; want %s", test.in, err, test.want)
		}
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{`a\040b`: "a b", `\134040`: `\040`, `a\`: `a\`, `\04`: `\04`, `\999`: `\999`, "plain": "plain"} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%q) = %q; want %q", in, got, want)
		}
	}
}

// FuzzParseTable: whatever is in the table, each line of it is one mount or the whole is an error.
func FuzzParseTable(f *testing.F) {
	f.Add([]byte(lines))
	f.Add([]byte("22 1 253:0 / / rw - ext4"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parseTable(data)
		if err == nil && len(got) != len(strings.FieldsFunc(string(data), func(r rune) bool { return r == '\n' })) {
			t.Errorf("%d mounts of %q", len(got), data)
		}
		for _, m := range got {
			if len(m.flags) == 0 {
				t.Errorf("%+v has no flags", m)
			}
		}
	})
}

func TestDataLeavesOutWhatFlagsSay(t *testing.T) {
	for options, want := range map[string]string{"rw": "", "ro": "", "rw,size=64k": "size=64k", "size=64k": "size=64k", "rwx=1": "rwx=1"} {
		if got := dataOf(mounted{options: options}); got != want {
			t.Errorf("dataOf(%q) = %q; want %q", options, got, want)
		}
	}
}

func TestTmpfsBelongsToRoot(t *testing.T) {
	for _, c := range []struct{ fstype, data, want string }{
		{"tmpfs", "", "uid=0,gid=0"},
		{"tmpfs", "size=1m", "size=1m,uid=0,gid=0"},
		{"tmpfs", "uid=7,size=1m", "uid=7,size=1m,gid=0"},
		{"tmpfs", "size=1m,gid=7,uid=7", "size=1m,gid=7,uid=7"},
		{"ext4", "", ""},
	} {
		if got := rootOwned(&storagepb.MountPoint{Fstype: c.fstype, Data: c.data}); got != c.want {
			t.Errorf("rootOwned(%s %q) = %q; want %q", c.fstype, c.data, got, c.want)
		}
	}
}
