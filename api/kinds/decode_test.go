package kinds_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/builtin"
)

func kind(t testing.TB, name string) *kinds.Kind {
	t.Helper()
	k, err := builtin.Set().Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestDecodeGivesTheBytesOfTheGeneratedMessage(t *testing.T) {
	want, err := proto.MarshalOptions{Deterministic: true}.Marshal(&storagepb.MountPoint{
		Source: "/dev/vdb", Target: "/var/data", Fstype: "ext4", Flags: []string{"ro", "nodev"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range []string{
		"source: /dev/vdb\ntarget: /var/data\nfstype: ext4\nflags: [ro, nodev]\n",
		"flags:\n- ro\n- nodev\nfstype: \"ext4\"\ntarget: '/var/data'\nsource: /dev/vdb\ndata: null\n",
		`{"source": "/dev/vdb", "target": "/var/data", "fstype": "ext4", "flags": ["ro", "nodev"]}`,
	} {
		got, problems := kind(t, "mount").Decode([]byte(document))
		if len(problems) > 0 || string(got) != string(want) {
			t.Errorf("Decode(%q) = %x, %v; want %x", document, got, problems, want)
		}
	}
}

func TestDecodeAcceptsLowerCamelNames(t *testing.T) {
	got, problems := kind(t, "dhcp").Decode([]byte("link: {firstWithCarrier: true}\nignoreRoutes: true\n"))
	message := &networkpb.DHCPClient{}
	if err := proto.Unmarshal(got, message); err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	if !message.GetIgnoreRoutes() || !message.GetLink().GetFirstWithCarrier() {
		t.Errorf("got %v", message)
	}
}

func TestDecodeReportsEveryProblemWithItsPlace(t *testing.T) {
	for _, test := range []struct {
		kind, document string
		want           []string
	}{
		{"mount", "source: /dev/vdb\ntraget: /var/data\n", []string{"line 2: spec.traget: unknown field (did you mean target?)"}},
		{"mount", "size: 3\nflags:\n- ro\n- 5\n- [a]\n- null\nfstype: {}\n", []string{
			"line 1: spec.size: unknown field (there are source, target, fstype, flags, data)",
			`line 4: spec.flags[1]: must be a string: write "5" in quotes`,
			"line 5: spec.flags[2]: must be a string, not a list",
			"line 6: spec.flags[3]: is empty",
			"line 7: spec.fstype: must be a string, not a mapping",
		}},
		{"mount", "flags: ro\n", []string{`line 1: spec.flags: must be a list, not "ro"`}},
		{"mount", "source: a\nsource: b\n", []string{"line 2: spec.source: is set twice (first on line 1)"}},
		{"mount", "- a\n", []string{"line 1: spec: must be a mapping of fields, not a list"}},
		{"mount", "just words\n", []string{`line 1: spec: must be a mapping of fields, not "just words"`}},
		{"mount", "source: true\n", []string{`line 1: spec.source: must be a string: write "true" in quotes`}},
		{"mount", "source: a\n---\nsource: b\n", []string{"line 2: a second document begins here"}},
		{"mount", "<<: {source: a}\n", []string{"line 1: spec: merge keys (<<) are not supported"}},
		{"mount", "? [a, b]\n: c\n", []string{"line 1: spec: has a key that is not a name"}},
		{"link", "link:\n  name: eth0\n  mac: 52:54:00:12:34:56\n", []string{
			"line 3: spec.link.mac: excludes name (line 2): only one of name, mac, first_with_carrier, all_physical may be set",
		}},
		{"link", "mtu: -1\nvlan: {id: x}\n", []string{"line 1: spec.mtu: -1 is out of range", `line 2: spec.vlan.id: must be an integer, not "x"`}},
		{"link", "mtu: 4294967296\nvlan: {id: 1.5}\n", []string{"line 1: spec.mtu: 4294967296 is out of range", `line 2: spec.vlan.id: must be an integer, not "1.5"`}},
		{"link", "mtu: 0750\n", []string{"line 1: spec.mtu: 0750 begins with 0: write 0o… for octal, or no zero for decimal"}},
		{"link", "link: {all_physical: yes}\n", []string{`line 1: spec.link.all_physical: must be true or false, not "yes"`}},
		{"shutdown", "action: REBOT\n", []string{`line 1: spec.action: "REBOT" is not a value (did you mean REBOOT?)`}},
		{"shutdown", "action: sleep\n", []string{`line 1: spec.action: must be one of REBOOT, POWER_OFF, not "sleep"`}},
		{"log", "time: yesterday\nfields: [a]\n", []string{
			`line 1: spec.time: must be a time like 2026-01-31T15:04:05Z, not "yesterday"`, "line 2: spec.fields: must be a mapping, not a list",
		}},
		{"log", "fields: {a: 1, a: 2, b: .nan}\n", []string{`line 1: spec.fields["a"]: is set twice`, `line 1: spec.fields["b"]: must be a finite number`}},
		{"rd", "descriptors: '*'\n", []string{`line 1: spec.descriptors: must be base64, not "*"`}},
	} {
		spec, problems := kind(t, test.kind).Decode([]byte(test.document))
		var got []string
		for _, p := range problems {
			got = append(got, p.String())
		}
		if spec != nil {
			t.Errorf("Decode(%q) gave bytes", test.document)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("Decode(%q) (-want +got)\n%s", test.document, diff)
		}
	}
}

func TestSyntaxErrorsHaveTheirLine(t *testing.T) {
	for document, line := range map[string]int{
		"source: a\ntarget: [b\n":             3,
		"source: a\n\tb: c\n":                 2,
		"source: \"a\nfstype: x\n":            3,
		"source: *nowhere\n":                  1,
		"a: b: c\n":                           1,
		"source: a\n  target: b\nfstype: c\n": 2,
	} {
		_, problems := kind(t, "mount").Decode([]byte(document))
		if len(problems) != 1 || problems[0].Line != line {
			t.Errorf("Decode(%q) = %v; want one problem on line %d", document, problems, line)
		}
	}
}

func TestAliasesWorkAndAreBounded(t *testing.T) {
	spec, problems := kind(t, "mount").Decode([]byte("source: &a x\ntarget: *a\n"))
	if len(problems) > 0 || len(spec) != 6 {
		t.Errorf("got %x, %v", spec, problems)
	}
	var bomb strings.Builder
	bomb.WriteString("fields:\n  a0: &a0 [x]\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&bomb, "  a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 9), ","))
	}
	if _, problems := kind(t, "log").Decode([]byte(bomb.String())); len(problems) != 1 || !strings.Contains(problems[0].Message, "too large") {
		t.Errorf("bomb: %d problems", len(problems))
	}
	deep := "fields: {a: " + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "}"
	if _, problems := kind(t, "log").Decode([]byte(deep)); len(problems) != 1 {
		t.Errorf("deep: %v", problems)
	}
}

func TestNumbersAsProtojsonReadsThem(t *testing.T) {
	for document, want := range map[string]string{
		"mtu: 1500": "mtu: 1500\n", "mtu: '1500'": "mtu: 1500\n", "mtu: 1.5e3": "mtu: 1500\n", "mtu: 0x5dc": "mtu: 1500\n", "mtu: 0o17": "mtu: 15\n", "mtu: 0": "{}\n",
	} {
		spec, problems := kind(t, "link").Decode([]byte(document))
		got, err := kind(t, "link").Encode(spec)
		if got != want || err != nil || len(problems) > 0 {
			t.Errorf("Decode(%q) → %q, %v, %v; want %q", document, got, problems, err, want)
		}
	}
}

func TestProblemsOfASensitiveKindQuoteNothing(t *testing.T) {
	kind := kind(t, "certs")
	for _, text := range []string{"client_cas: xyzzy", "xyzzy", "serving_key: !!int xyzzy", "revoked: [!!int 0xyzzy]", "revoked: {a: xyzzy}",
		"xyzzy: 1", "serving_keyxyzzy: 1", "serving_key: *xyzzy", "serving_key: &xyzzy [*xyzzy]", "client_cas: [{xyzzy: 1}]", "xyzzy: 1\nxyzzy: 1",
	} {
		_, problems := kind.Decode([]byte(text))
		if len(problems) == 0 {
			t.Errorf("%s: no problem", text)
		}
		for _, p := range problems {
			if strings.Contains(p.String(), "xyzzy") {
				t.Errorf("%s: %v", text, p)
			}
		}
	}
}
