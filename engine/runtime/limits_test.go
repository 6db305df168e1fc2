package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

// beyond fails the test unless err says in words that there is too much of something.
func beyond(t *testing.T, what string, err error, want string) {
	t.Helper()
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v; want RESOURCE_EXHAUSTED that says %q", what, err, want)
	}
}

func anything(id string, size int) *resourcepb.CreateRequest {
	return &resourcepb.CreateRequest{Resource: &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: "default", Type: "Anything.example.org", Id: id, Phase: "running"},
		Spec:     &resourcepb.Spec{ProtoSpec: make([]byte, size)},
	}}
}

// watches opens a watch; its first message says whether it stands.
func watches(ctx context.Context, c resourcepb.StateClient, namespace, typ string) error {
	stream, err := c.Watch(ctx, &resourcepb.WatchRequest{Namespace: namespace, Type: typ})
	if err == nil {
		_, err = stream.Recv()
	}
	return err
}

func TestLimitsOfTheCommandLine(t *testing.T) {
	path := filepath.Join(shortDir(t), "x.sock")
	args := []string{"--listen", "unix://" + path}
	for _, limit := range []string{"message_bytes=200000", "resource_bytes=100000", "resources_of_kind=20", "watches=3", "calls=4"} {
		args = append(args, "--limit", limit)
	}
	cmd := command(t, args...)
	start(t, cmd)
	c := resourcepb.NewStateClient(dialUnix(t, path))
	for i := range 20 {
		if _, err := c.Create(t.Context(), anything(fmt.Sprintf("%02d", i), 99_000), grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := c.Create(t.Context(), anything("a", 1))
	beyond(t, "a resource too many", err, "there are 20 resources of default/Anything.example.org, and 20 are allowed")
	_, err = c.Create(t.Context(), anything("a", 150_000))
	beyond(t, "a large resource", err, "a resource may have 100000")
	_, err = c.Create(t.Context(), anything("a", 250_000))
	beyond(t, "a large message", err, "larger than max")

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for i := range 3 {
		if err := watches(ctx, c, "default", "Anything.example.org"); err != nil {
			t.Errorf("watch %d: %v", i, err)
		}
	}
	beyond(t, "a watch too many", watches(ctx, c, "default", "Anything.example.org"), "4 watches at once, and a client may have 3")

	// A List that nobody reads is a call in progress: two megabytes are more than a stream takes in advance.
	var lists []grpc.ServerStreamingClient[resourcepb.ListResponse]
	for range 4 {
		list, err := c.List(ctx, &resourcepb.ListRequest{Namespace: "default", Type: "Anything.example.org"})
		if err == nil {
			_, err = list.Recv()
		}
		if err != nil {
			t.Fatal(err)
		}
		lists = append(lists, list)
	}
	get := func() error {
		_, err := c.Get(ctx, &resourcepb.GetRequest{Namespace: "default", Type: "Anything.example.org", Id: "00"})
		return err
	}
	beyond(t, "a call beside Lists that are still to be read", get(), "5 calls at once, and a client may make 4")
	for n, list := range lists {
		var err error
		rest := 0
		for ; err == nil; rest++ {
			_, err = list.Recv()
		}
		if !errors.Is(err, io.EOF) || rest != 20 {
			t.Errorf("list %d: %d more, %v; want all", n, rest-1, err)
		}
	}
	eventually(t, "calls are answered again", func() bool { return get() == nil })
	endsCleanly(t, cmd)
}

// TestLimitsOfANodeAreThoseOfItsResource: all watches of a client on one connection, whose 257th once waited for ever.
func TestLimitsOfANodeAreThoseOfItsResource(t *testing.T) {
	disk, ca := kept(t), newAuthority(t)
	m := bootWith(t, disk)
	admin := m.admin()
	create(t, admin, "", "config", certificates, "node", &machinepb.Certificates{ClientCas: []string{ca.pem}})
	create(t, admin, "", "config", "Limits.machine.cosi.dev", "node", &machinepb.Limits{Watches: 3500, MessageBytes: 1 << 17})
	said := &machinepb.LimitsStatus{}
	eventually(t, "the status says what waits for the next start", func() bool {
		return read(t.Context(), admin, "status", "LimitsStatuses.machine.cosi.dev", "node", said) == nil && said.GetReason() == "RestartPending"
	})
	for _, want := range []string{"message_bytes counts when", "one connection has 3100 streams at most"} {
		if !strings.Contains(said.GetMessage(), want) {
			t.Errorf("LimitsStatus says %q; want %q", said.GetMessage(), want)
		}
	}
	m.kill()

	m = bootWith(t, disk)
	c := m.connect(ca.client("reader", time.Now().Add(time.Hour)))
	eventually(t, "the API answers", func() bool {
		return read(t.Context(), c, "status", machineStatuses, "machine", &machinepb.MachineStatus{}) == nil
	})
	_, err := c.Create(t.Context(), anything("a", 1<<17))
	beyond(t, "a large message", err, "larger than max")
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	for i := range 3500 {
		if err := watches(ctx, c, "status", machineStatuses); err != nil {
			t.Fatalf("watch %d: %v", i, err)
		}
	}
	beyond(t, "a watch too many", watches(ctx, c, "status", machineStatuses), "3501 watches at once, and a client may have 3500")
	if err := read(ctx, c, "status", machineStatuses, "machine", &machinepb.MachineStatus{}); err != nil {
		t.Errorf("a call beside them: %v", err)
	}
}
