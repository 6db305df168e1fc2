package processevents

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/plugins/internal/doorbell/doorbelltest"
)

func TestWithoutNetlink(t *testing.T) {
	r := plugintest.Start(t, declared)
	start(t, r, &doorbell.Bell[note]{Sources: doorbelltest.Refused(sources(doorbell.Often))})
	doorbelltest.Fallen(t, r, name, doorbell.Poll, "tracepoint", "netlink")
}

func TestKillsAreCounted(t *testing.T) {
	groups := t.TempDir()
	set := func(group string, kills int) {
		t.Helper()
		dir := filepath.Join(groups, group)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "memory.events"), fmt.Appendf(nil, "low 0\noom 9\noom_kill %d\noom_group_kill 0\n", kills), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set("cosi", 1)
	set("cosi/plugins", 1)
	set("cosi/plugins/mount", 1)
	notes := listen(t, func() (doorbell.Listener[note], error) { return poll(groups, time.Millisecond) })
	set("cosi/plugins/mount", 2)
	n := <-notes
	if n.what != oomKilled || n.cgroup != "/cosi/plugins/mount" || n.code.signal() != unix.SIGKILL || n.at > doorbell.Now() {
		t.Errorf("note %+v; want a kill in mount", n)
	}
}

// Each kill is one of the innermost group that is left.
func TestKillsSince(t *testing.T) {
	before := map[string]int{"/cosi": 5, "/cosi/plugins": 4, "/cosi/plugins/a": 2, "/cosi/plugins/b": 1, "/cosi/plugins/gone": 1}
	now := map[string]int{"/cosi": 10, "/cosi/plugins": 8, "/cosi/plugins/a": 3, "/cosi/plugins/b": 0, "/cosi/plugins/new": 1}
	got := since(before, now)
	maps.DeleteFunc(got, func(_ string, kills int) bool { return kills <= 0 })
	want := map[string]int{"/cosi": 1, "/cosi/plugins": 2, "/cosi/plugins/a": 1, "/cosi/plugins/new": 1}
	if !maps.Equal(got, want) {
		t.Errorf("since = %v; want %v", got, want)
	}
}
