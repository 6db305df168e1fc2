package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	testpb "github.com/cosi-os/cosi/api/cosi/test/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/sdk"
)

const envNobody = "COSI_TEST_NOBODY"

func TestMain(m *testing.M) {
	if os.Getenv(envForeignTest) != "" {
		sayWhereFrom()
		return
	}
	if os.Getenv(envNobody) == "" {
		os.Exit(m.Run())
	}
	results := map[string]*testpb.ProbeResult{}
	for _, a := range systemAttempts() {
		if a.name != "execve" { // it would succeed: the filter is Main's
			results[a.name] = a.result()
		}
	}
	_ = json.NewEncoder(os.Stdout).Encode(results)
}

func TestEverythingBeyondTheDeclarationIsRefused(t *testing.T) {
	r := plugintest.Start(t, declared)
	t.Setenv(sdk.EnvEndpoint, r.Endpoint)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = sdk.Run(ctx, plugin(nil, ender{})) }()
	defer func() { cancel(); <-done }()
	r.WaitReady()
	attempts := apiAttempts(ctx, &sdk.State{})
	if len(attempts) < 8 {
		t.Fatalf("%d attempts", len(attempts))
	}
	for _, a := range attempts {
		result := &testpb.ProbeResult{}
		switch m := r.Get(a.name, result); {
		case m == nil:
			t.Errorf("%s: no result", a.name)
		case !result.GetRefused():
			t.Errorf("%s: %s was not refused: %q", a.name, a.words, result.GetError())
		case m.GetOwner() != "probe":
			t.Errorf("%s: owner %q", a.name, m.GetOwner())
		}
	}
}

// TestUserWithoutRights runs the attempts as nobody: what no user without privileges may do is refused without any sandbox. What
// the sandbox adds is seen in a virtual machine.
func TestUserWithoutRights(t *testing.T) {
	var out bytes.Buffer
	cmd := exec.Command("/proc/self/exe")
	cmd.Env, cmd.Stdout, cmd.Dir = append(os.Environ(), envNobody+"=yes"), &out, "/"
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	var results map[string]*testpb.ProbeResult
	if err := json.Unmarshal(out.Bytes(), &results); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"ptrace", "signal", "signal-others", "file-outside", "root-read-only", "mount", "remount-root",
		"unmount", "reboot", "raw-socket", "packet-socket", "namespace", "clock",
	} {
		if r := results[name]; r == nil || !r.GetRefused() {
			t.Errorf("%s = %v, want refused", name, r)
		}
	}
	if r := results["plugin-socket"]; r.GetRefused() || r.GetError() == "" {
		t.Errorf("plugin-socket = %v: a socket that is not there is no refusal", r)
	}
}

func TestRefused(t *testing.T) {
	for _, test := range []struct {
		err  error
		want bool
	}{
		{unix.EPERM, true}, {unix.EACCES, true}, {unix.EROFS, true}, {&os.PathError{Err: unix.EACCES}, true},
		{status.Error(codes.PermissionDenied, ""), true},
		{unix.ENOENT, false}, {unix.EINVAL, false}, {unix.ENOSYS, false}, {errors.New("no"), false}, {status.Error(codes.NotFound, ""), false},
	} {
		if got := refused(test.err); got != test.want {
			t.Errorf("refused(%v) = %v; want %v", test.err, got, test.want)
		}
	}
}
