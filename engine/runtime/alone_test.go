package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

// alone starts a runtime alone on a socket in dir, with its data there, and returns a client.
func alone(t *testing.T, dir string) (*exec.Cmd, resourcepb.StateClient) {
	t.Helper()
	path := filepath.Join(dir, "x.sock")
	cmd := command(t, "--listen", "unix://"+path, "--data", filepath.Join(dir, "data"))
	start(t, cmd)
	return cmd, resourcepb.NewStateClient(dialUnix(t, path))
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cosi") // t.TempDir is too long a name for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestARuntimeThatWasKilledHasEverythingAcknowledged(t *testing.T) {
	dir := shortDir(t)
	cmd, client := alone(t, dir)
	r := &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: "default", Type: "Anything.example.org", Id: "a", Phase: "running"},
		Spec:     &resourcepb.Spec{ProtoSpec: []byte("content")},
	}
	created, err := client.Create(t.Context(), &resourcepb.CreateRequest{Resource: r}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	cmd, client = alone(t, dir)
	got, err := client.Get(t.Context(), &resourcepb.GetRequest{Namespace: "default", Type: "Anything.example.org", Id: "a"}, grpc.WaitForReady(true))
	if err != nil || !proto.Equal(got.GetResource(), created.GetResource()) {
		t.Errorf("after kill -9: %v, %v; want %v", got, err, created.GetResource())
	}
	endsCleanly(t, cmd)
}

// TestAKindOfPeopleOutlivesARuntimeAlone: as it does on a node.
func TestAKindOfPeopleOutlivesARuntimeAlone(t *testing.T) {
	dir := shortDir(t)
	cmd, client := alone(t, dir)
	eventually(t, "it answers", func() bool {
		_, err := client.Get(t.Context(), &resourcepb.GetRequest{Namespace: "default", Type: "Anything.example.org", Id: "a"})
		return status.Code(err) == codes.NotFound
	})
	create(t, client, "", "meta", definitions, "tokens.example.org", token(t))
	writeToken(t, client, "a", "open")
	endsCleanly(t, cmd)
	cmd, client = alone(t, dir)
	r := &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: "config", Type: tokens, Id: "b", Phase: "running"}, Spec: &resourcepb.Spec{YamlSpec: "kez: open"},
	}
	_, err := client.Create(t.Context(), &resourcepb.CreateRequest{Resource: r}, grpc.WaitForReady(true))
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "spec.kez: unknown field (did you mean key?)") {
		t.Errorf("a field that the kind does not have: %v", err)
	}
	writeToken(t, client, "b", "open")
	endsCleanly(t, cmd)
}

// TestARuntimeSaysHowOftenItWaitedForTheDisk: one writer waits once for each write.
func TestARuntimeSaysHowOftenItWaitedForTheDisk(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, "x.sock")
	cmd := command(t, "--listen", "unix://"+path, "--data", filepath.Join(dir, "data"))
	cmd.Stderr = nil
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, cmd)
	client := resourcepb.NewStateClient(dialUnix(t, path))
	for _, id := range []string{"a", "b", "c"} {
		r := &resourcepb.Resource{Metadata: &resourcepb.Metadata{Namespace: "default", Type: "Anything.example.org", Id: id, Phase: "running"}}
		if _, err := client.Create(t.Context(), &resourcepb.CreateRequest{Resource: r}, grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Process.Signal(syscall.SIGUSR1)
	line, err := bufio.NewReader(said).ReadString('\n')
	var n int
	var p50 string
	if fmt.Sscanf(line, "fdatasyncs %d %s", &n, &p50); n != 3 || err != nil {
		t.Errorf("it says %q, %v; want 3 fdatasyncs", line, err)
	}
	if took, err := time.ParseDuration(p50); err != nil || took <= 0 {
		t.Errorf("it says that they took %q: %v", p50, err)
	}
	endsCleanly(t, cmd)
}

func TestARuntimeDoesNotStartOnDamageAndSaysWhere(t *testing.T) {
	dir := shortDir(t)
	cmd, client := alone(t, dir)
	for _, id := range []string{"a", "b", "c"} {
		r := &resourcepb.Resource{
			Metadata: &resourcepb.Metadata{Namespace: "default", Type: "Anything.example.org", Id: id, Phase: "running"},
			Spec:     &resourcepb.Spec{ProtoSpec: []byte("content of " + id)},
		}
		if _, err := client.Create(t.Context(), &resourcepb.CreateRequest{Resource: r}, grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}
	}
	endsCleanly(t, cmd)

	segment := filepath.Join(dir, "data", "00000000000000000001.log")
	data, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	data[bytes.Index(data, []byte("content of b"))] ^= 1
	if err := os.WriteFile(segment, data, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd = command(t, "--listen", "unix://"+filepath.Join(dir, "x.sock"), "--data", filepath.Join(dir, "data"))
	cmd.Stderr = nil
	said, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(said), "00000000000000000001.log: damaged at byte ") {
		t.Errorf("%v, said %q; want it to end and to name the segment and the byte", err, said)
	}
	if after, err := os.ReadFile(segment); err != nil || !bytes.Equal(after, data) {
		t.Errorf("the damaged file has been touched (%v)", err)
	}
}
