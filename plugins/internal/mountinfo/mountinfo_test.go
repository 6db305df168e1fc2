package mountinfo

import (
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const lines = `22 1 253:0 / / rw,relatime shared:1 - ext4 /dev/root rw
31 22 0:27 / /run/mnt/a\040b ro,nosuid,nodev - tmpfs tm\134pfs ro,size=1024k
32 31 254:16 /sub /var/data rw,relatime shared:3 master:1 - xfs /dev/vdb rw,attr2
33 22 0:28 / /var/data rw - tmpfs  rw
`

func TestParse(t *testing.T) {
	got, err := parse([]byte(lines))
	if err != nil {
		t.Fatal(err)
	}
	want := Table{
		{22, unix.Mkdev(253, 0), "/", []string{"rw", "relatime"}, "ext4", "/dev/root", "rw"},
		{31, unix.Mkdev(0, 27), "/run/mnt/a b", []string{"ro", "nosuid", "nodev"}, "tmpfs", `tm\pfs`, "ro,size=1024k"},
		{32, unix.Mkdev(254, 16), "/var/data", []string{"rw", "relatime"}, "xfs", "/dev/vdb", "rw,attr2"},
		{33, unix.Mkdev(0, 28), "/var/data", []string{"rw"}, "tmpfs", "", "rw"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("parse = %+v; want %+v", got, want)
	}
	if m, ok := got.At("/var/data"); !ok || m.Fstype != "tmpfs" {
		t.Errorf("at /var/data = %+v, %v; want the mount that covers the other", m, ok)
	}
	if _, ok := got.At("/var"); ok {
		t.Error("at /var found something")
	}
}

func TestParseNamesTheLine(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"22 1 253:0 / /\n", `/proc/self/mountinfo:1: "22 1 253:0 / /" has too few fields`},
		{strings.Split(lines, "\n")[0] + "\nx 1 253:0 / / rw - ext4 a rw\n", `/proc/self/mountinfo:2: "x" is not a mount's id`},
		{strings.Split(lines, "\n")[0] + "\n22 1 x:0 / / rw - ext4 a rw\n", `/proc/self/mountinfo:2: "x:0" is not a device number`},
	} {
		if _, err := parse([]byte(test.in)); err == nil || err.Error() != test.want {
			t.Errorf("parse(%q) = %v; want %s", test.in, err, test.want)
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

// FuzzParse: whatever is in the table, each line of it is one mount or the whole is an error.
func FuzzParse(f *testing.F) {
	f.Add([]byte(lines))
	f.Add([]byte("22 1 253:0 / / rw - ext4"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parse(data)
		if err == nil && len(got) != len(strings.FieldsFunc(string(data), func(r rune) bool { return r == '\n' })) {
			t.Errorf("%d mounts of %q", len(got), data)
		}
		for _, m := range got {
			if len(m.Flags) == 0 {
				t.Errorf("%+v has no flags", m)
			}
		}
	})
}
