package vmtest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	testpb "github.com/cosi-os/cosi/api/cosi/test/v1alpha1"
	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/hack/vmtest"
)

// attempts is what the plugin "probe", which has no rights, must have tried at least.
var attempts = []string{
	"execve", "ptrace", "signal", "signal-others", "finit-module", "delete-module", "plugin-socket", "device-kmsg", "device-mem", "file-outside",
	"root-read-only", "mount", "remount-root", "unmount", "reboot", "raw-socket", "packet-socket", "bpf", "namespace", "keyring", "clock",
	"read-undeclared-kind", "write-undeclared-kind", "write-as-another", "write-as-person", "destroy-anothers-resource",
	"change-content-of-input", "change-labels-of-input", "finalizer-of-another",
}

// checkSandbox: all that a plugin tried without the right to was refused.
func checkSandbox(t *testing.T, n *vmtest.Node) {
	kind, seen := n.Kind(t, "probes"), map[string]bool{}
	for patience := n.Patience(t, moment); len(seen) < len(attempts); time.Sleep(200 * time.Millisecond) {
		results, err := n.Client.List(patience, kind)
		if err != nil {
			t.Fatalf("%d results, then: %v", len(seen), err)
		}
		for _, r := range results {
			result := &testpb.ProbeResult{}
			decode(t, r, result)
			id := r.GetMetadata().GetId()
			absent := id == "device-mem" && ownKernel("test") && strings.HasSuffix(result.GetError(), "no such file or directory")
			if !seen[id] && !result.GetRefused() && !absent {
				t.Errorf("%s was not refused: %s: %q", id, result.GetAttempted(), result.GetError())
			}
			seen[id] = true
		}
	}
	for _, name := range attempts {
		if !seen[name] {
			t.Errorf("%s was not tried", name)
		}
	}
}

// checkConfinement: each plugin runs as a user of its own with the rights that it declares, and no more; what is in force was read from
// the kernel.
func checkConfinement(t *testing.T, n *vmtest.Node) {
	plugins, err := n.Client.List(n.Patience(t, moment), n.Kind(t, "plugins"))
	if err != nil {
		t.Fatal(err)
	}
	users := map[uint32]string{}
	for _, r := range plugins {
		name, status := r.GetMetadata().GetId(), &servicepb.PluginStatus{}
		// One filter of the launcher, one that the SDK puts on.
		n.Until(t, "plugins", name, status, func(*resourcepb.Metadata) bool { return status.GetConfinement().GetSeccompFilters() >= 2 })
		c, declared := status.GetConfinement(), declarationOf(t, name)
		if other := users[c.GetUid()]; other != "" || c.GetUid() <= runtimeUser || c.GetGid() != c.GetUid() {
			t.Errorf("%s runs as user %d, group %d; that is %q too", name, c.GetUid(), c.GetGid(), other)
		}
		users[c.GetUid()] = name
		if !sameNames(c.GetCapabilities(), declared.Capabilities) || !sameNames(c.GetBounding(), declared.Capabilities) {
			t.Errorf("%s has the capabilities %v, at most %v; it declares %v", name, c.GetCapabilities(), c.GetBounding(), declared.Capabilities)
		}
		if !c.GetDeviceFilter() {
			t.Errorf("%s: no device filter", name)
		}
		if !c.GetNoNewPrivs() || c.GetLandlock() == declared.NoLandlock {
			t.Errorf("%s: no_new_privs %v, Landlock %v", name, c.GetNoNewPrivs(), c.GetLandlock())
		}
		if len(declared.Devices) == 0 && len(c.GetGroups()) > 0 {
			t.Errorf("%s is in the groups %v and declares no device", name, c.GetGroups())
		}
	}
	for _, name := range []string{"marker", "mount", "network", "power", "probe", "userdata"} {
		if !slices.ContainsFunc(plugins, func(r *resourcepb.Resource) bool { return r.GetMetadata().GetId() == name }) {
			t.Errorf("%s is not there", name)
		}
	}
}

// checkDevices: a plugin may open the devices that it declares and no other, even with the capability to open any file.
func checkDevices(t *testing.T, n *vmtest.Node) {
	if capabilities := declarationOf(t, "gauge").Capabilities; !slices.Contains(capabilities, "CAP_DAC_OVERRIDE") {
		t.Fatalf("gauge has the capabilities %v: the modes of the nodes keep it out", capabilities)
	}
	for path, refused := range map[string]string{
		"/dev/null": "", "/etc/hosts": "", "/dev/vda": "operation not permitted", "/dev/vcs": "operation not permitted",
	} {
		n.Apply(t, gaugeRequest("open", "open: "+path))
		status := &testpb.GaugeRequestStatus{}
		n.Until(t, "gaugerequeststatuses", "open", status, func(m *resourcepb.Metadata) bool { return m != nil })
		if status.GetReady() != (refused == "") || !strings.HasSuffix(status.GetMessage(), refused) {
			t.Errorf("open %s: %q; want %q", path, status.GetMessage(), refused)
		}
		n.Delete(t, "gaugerequests", "open")
		n.Until(t, "gaugerequeststatuses", "open", status, func(m *resourcepb.Metadata) bool { return m == nil })
	}
}

// runtimeUser is the runtime's uid; those of plugins come after it.
const runtimeUser = 900

// declarationOf reads what a plugin says about itself in this repository.
func declarationOf(t *testing.T, name string) *declaration.Declaration {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "plugins", name, "plugin.json"))
	if err != nil {
		t.Fatal(err)
	}
	d := &declaration.Declaration{}
	if err := json.Unmarshal(text, d); err != nil {
		t.Fatal(err)
	}
	return d
}

func sameNames(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

var (
	// told is what the plugin "probe" prints about sockets that wait for packets.
	told     = regexp.MustCompile(`sockets: ([^\r\n]*)`)
	loopback = regexp.MustCompile(`^(tcp|udp)6? (127\.\d+\.\d+\.\d+|\[::1\]):\d+ uid \d+$`)
	api      = regexp.MustCompile(`^tcp6? (\[::\]|0\.0\.0\.0):50000 uid \d+$`)
)

// clients are sockets that wait for answers from outside, by the plugin whose they are; %d is its uid.
var clients = map[string]string{
	"network": `^packet protocol (0000|0800) uid %d$`, // DHCP, while it asks; 0000 until it is bound: nothing comes in before
}

// checkSockets: nothing but the API listens, and the sockets of clients are known by name.
func checkSockets(t *testing.T, n *vmtest.Node) {
	n.Expect(t, 0, `sockets: [^\r\n]*:50000 uid `)
	var allowed []*regexp.Regexp
	for name, pattern := range clients {
		status := &servicepb.PluginStatus{}
		n.Get(t, "plugins", name, status)
		allowed = append(allowed, regexp.MustCompile(fmt.Sprintf(pattern, status.GetConfinement().GetUid())))
	}
	all := told.FindAllStringSubmatch(n.Console.Tail(1<<20), -1)
	open := false
	for _, line := range all {
		for socket := range strings.SplitSeq(line[1], ", ") {
			known := socket == "" || loopback.MatchString(socket) ||
				slices.ContainsFunc(allowed, func(re *regexp.Regexp) bool { return re.MatchString(socket) })
			switch {
			case api.MatchString(socket):
				open = true
			case !known:
				t.Errorf("a socket that nobody should have: %s", socket)
			}
		}
	}
	if !open {
		t.Errorf("the API's socket is not among %q", all)
	}
}

func decode(t *testing.T, r *resourcepb.Resource, into proto.Message) {
	t.Helper()
	if err := proto.Unmarshal(r.GetSpec().GetProtoSpec(), into); err != nil {
		t.Fatal(err)
	}
}
