package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/upgrade"
	"github.com/cosi-os/cosi/tools/client"
)

// upgradeFile writes an upgrade of a few chunks, and returns its path and content.
func upgradeFile(t *testing.T, p *person) (path string, data []byte) {
	t.Helper()
	var b bytes.Buffer
	m := upgrade.Manifest{Image: "x", Version: "2.0.0", Arch: "amd64", Root: upgrade.Root{Hash: strings.Repeat("ab", 32), Data: 4096}}
	if err := upgrade.Write(&b, m, nil, bytes.NewReader(bytes.Repeat([]byte("root"), 400_000)), strings.NewReader("kernel"), nil); err != nil {
		t.Fatal(err)
	}
	return p.file("x.upgrade", b.String()), b.Bytes()
}

// pluginUpgrade plays the plugin: it takes in what is pushed up to a limit, and then says last.
type pluginUpgrade struct {
	t        *testing.T
	client   *client.Client
	kinds    map[string]*kinds.Kind
	received []byte
}

func newPluginUpgrade(t *testing.T, endpoint string) *pluginUpgrade {
	t.Helper()
	c, err := client.Dial(client.Context{Endpoint: endpoint})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	p := &pluginUpgrade{t: t, client: c, kinds: map[string]*kinds.Kind{}}
	for _, name := range []string{"Upgrades", "UpgradeStatuses", "Installations", "InstallationStatuses", "UpgradeChunks"} {
		if p.kinds[name], err = c.Kind(t.Context(), name+".machine.cosi.dev"); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p *pluginUpgrade) say(is status) error {
	content, err := proto.Marshal(is)
	if err != nil {
		return err
	}
	k := p.kinds[string(is.ProtoReflect().Descriptor().Name())+"es"]
	_, _, err = p.client.Apply(p.t.Context(), k, &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: k.Namespace(), Type: k.Type(), Id: "cosictl", Version: "1", Phase: "running"},
		Spec:     &resourcepb.Spec{ProtoSpec: content},
	})
	return err
}

// upgrading is what an Upgrade's first version says while it is received.
func upgrading(received, size uint64) status {
	return &machinepb.UpgradeStatus{ObservedVersion: "1", Reason: "Receiving", Received: received, Size: size}
}

// take takes chunks until limit bytes are there.
func (p *pluginUpgrade) take(ctx context.Context, receiving func(received, size uint64) status, limit int) error {
	for len(p.received) < limit {
		if err := p.say(receiving(uint64(len(p.received)), uint64(limit))); err != nil {
			return err
		}
		err := p.client.Watch(ctx, p.kinds["UpgradeChunks"], fmt.Sprintf("cosictl-%d", len(p.received)), nil, func(e *resourcepb.Event) error {
			chunk := &machinepb.UpgradeChunk{}
			if e.GetEventType() == resourcepb.EventType_DESTROYED {
				return nil
			}
			if err := proto.Unmarshal(e.GetResource().GetSpec().GetProtoSpec(), chunk); err != nil {
				return err
			}
			if int(chunk.GetOffset()) != len(p.received) {
				return fmt.Errorf("chunk at %d of %d", chunk.GetOffset(), chunk.GetSize())
			}
			p.received = append(p.received, chunk.GetData()...)
			return client.ErrStop
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *pluginUpgrade) chunks() (n int) {
	p.t.Helper()
	all, err := p.client.List(p.t.Context(), p.kinds["UpgradeChunks"])
	if err != nil {
		p.t.Fatal(err)
	}
	return len(all)
}

// A file is pushed chunk by chunk; a command that was interrupted goes on where it stopped, and leaves nothing behind.
func TestUpgradePushesAFile(t *testing.T) {
	p := newPerson(t, "unix://"+startRuntime(t))
	path, data := upgradeFile(t, p)
	node := newPluginUpgrade(t, p.endpoint)

	ctx, interrupt := context.WithCancel(t.Context())
	ended := make(chan int)
	p.out, p.err = &buffer{}, &buffer{}
	go func() { ended <- p.runFor(ctx, "upgrade", path) }()
	if err := node.take(t.Context(), upgrading, piece+1); err != nil {
		t.Fatal(err)
	}
	interrupt()
	if code := <-ended; code == exitOK {
		t.Errorf("interrupted, it ends with %d", code)
	}
	r, err := node.client.Get(t.Context(), node.kinds["Upgrades"], "cosictl")
	if err != nil {
		t.Fatal(err)
	}
	wanted := &machinepb.Upgrade{}
	if err := proto.Unmarshal(r.GetSpec().GetProtoSpec(), wanted); err != nil || !wanted.GetPushed() || wanted.GetDigest() != fmt.Sprintf("%x", sha256.Sum256(data)) {
		t.Fatalf("the Upgrade: %v, %v", wanted, err)
	}

	failed := make(chan error, 1)
	go func() {
		err := node.take(t.Context(), upgrading, len(data))
		for _, is := range []*machinepb.UpgradeStatus{{Reason: "Rebooting"}, {Reason: "Trying", Message: "PluginsStarting"}, {Reason: "Succeeded", Ready: true, Done: true}} {
			is.ObservedVersion, is.Version = "1", "2.0.0"
			err = errors.Join(err, node.say(is))
			time.Sleep(50 * time.Millisecond)
		}
		failed <- err
	}()
	text := p.want(exitOK, "upgrade", path)
	if err := <-failed; err != nil {
		t.Error(err)
	}
	if !slices.Equal(node.received, data) {
		t.Errorf("%d bytes have arrived, which are not those of the file, %d", len(node.received), len(data))
	}
	for _, want := range []string{"Receiving, 60 % of 2 MB\n", "Rebooting version 2.0.0\n", "Trying version 2.0.0: PluginsStarting\n", "Succeeded version 2.0.0\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("it said\n%s; want %q", text, want)
		}
	}
	if n := node.chunks(); n != 0 {
		t.Errorf("%d chunks are left", n)
	}

	// Asked for again, it is written again: the node tries it once more.
	go func() {
		failed <- node.client.Watch(t.Context(), node.kinds["Upgrades"], "cosictl", nil, func(e *resourcepb.Event) error {
			if e.GetResource().GetMetadata().GetVersion() != "2" {
				return nil
			}
			return errors.Join(node.say(&machinepb.UpgradeStatus{ObservedVersion: "2", Reason: "RolledBack", Message: "booted 3 times", Done: true}), client.ErrStop)
		})
	}()
	if text := p.want(exitError, "upgrade", path); !strings.Contains(text, "cosictl: upgrade/cosictl: RolledBack: booted 3 times\n") {
		t.Errorf("it said\n%s", text)
	}
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

func TestRollbackAndURL(t *testing.T) {
	p := newPerson(t, "unix://"+startRuntime(t))
	node := newPluginUpgrade(t, p.endpoint)
	digest := strings.Repeat("ab", 32)
	for i, test := range []struct {
		args []string
		want *machinepb.Upgrade
		is   *machinepb.UpgradeStatus
		says string
	}{
		{[]string{"rollback", "--version", "0.9"}, &machinepb.Upgrade{Previous: true, Version: "0.9"}, &machinepb.UpgradeStatus{Reason: "Succeeded", Ready: true, Done: true}, "Succeeded\n"},
		{[]string{"upgrade", "https://x/y", "--digest", digest, "--no-reboot"}, &machinepb.Upgrade{Url: "https://x/y", Digest: digest, NoReboot: true},
			&machinepb.UpgradeStatus{Reason: "Staged", Message: "it is booted next"}, "Staged: it is booted next\n"},
		{[]string{"upgrade", "oci://x/y", "--digest", digest, "--no-reboot"}, &machinepb.Upgrade{Url: "oci://x/y", Digest: digest, NoReboot: true},
			&machinepb.UpgradeStatus{Reason: "Staged", Message: "it is booted next"}, "Staged: it is booted next\n"},
	} {
		if err := node.say(test.is); err != nil {
			t.Fatal(err)
		}
		test.is.ObservedVersion = fmt.Sprint(i + 1)
		if err := node.say(test.is); err != nil {
			t.Fatal(err)
		}
		if text := p.want(exitOK, test.args...); text != test.says {
			t.Errorf("%q said %q; want %q", test.args, text, test.says)
		}
		r, err := node.client.Get(t.Context(), node.kinds["Upgrades"], "cosictl")
		if err != nil {
			t.Fatal(err)
		}
		got := &machinepb.Upgrade{}
		if err := proto.Unmarshal(r.GetSpec().GetProtoSpec(), got); err != nil || !proto.Equal(got, test.want) {
			t.Errorf("%q wrote %v; want %v", test.args, got, test.want)
		}
	}
}

func TestWhatNoUpgradeIs(t *testing.T) {
	p := newPerson(t, "unix://"+startRuntime(t))
	path, data := upgradeFile(t, p)
	for want, args := range map[string][]string{
		"a node fetches nothing by ftp (https": {"upgrade", "ftp://x/y"},
		"--digest: want the SHA-256":           {"upgrade", "https://x/y"},
		"--digest is for a URL":                {"upgrade", path, "--digest", strings.Repeat("ab", 32)},
		"--when tomorrow: want a time, as in":  {"upgrade", path, "--when", "tomorrow"},
		"oci://u:xxxxx@R:5000/x: a name and password do not belong in the URL: write RegistryCredentials \"r:5000\"": {
			"upgrade", "oci://u:xyzzy@R:5000/x", "--digest", strings.Repeat("ab", 32),
		},
		"--when says when to reboot": {"rollback", "--when", "2026-12-01T03:00:00Z", "--no-reboot"},
	} {
		if text := p.want(exitUsage, args...); !strings.Contains(text, want) {
			t.Errorf("%q said %q; want %q", args, text, want)
		}
	}
	if text := p.want(exitTimeout, "rollback", "--timeout", "3s"); !strings.Contains(text, "was answered by nobody within 3s: it takes the plugin upgrade") {
		t.Errorf("where no plugin is: %q", text)
	}
	for want, args := range map[string][]string{
		"no such file":               {"upgrade", p.home + "/nothing"},
		"not the file of an upgrade": {"upgrade", p.file("text", strings.Repeat("x", 2048))},
		"root: unexpected EOF":       {"upgrade", p.file("half", string(data[:len(data)/2]))},
		"root: its SHA-256 is":       {"upgrade", p.file("flipped", strings.Replace(string(data), "rootroot", "rootrood", 1))},
	} {
		if text := p.want(exitError, args...); !strings.Contains(text, want) {
			t.Errorf("%q said %q; want %q", args, text, want)
		}
	}
}

// A node that reboots is waited for.
func TestUpgradeGoesOnAfterAReboot(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	stop := startAt(t, socket)
	p := newPerson(t, "unix://"+socket)
	node := newPluginUpgrade(t, p.endpoint)
	if err := node.say(&machinepb.UpgradeStatus{ObservedVersion: "1", Reason: "Rebooting"}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan int)
	p.out, p.err = &buffer{}, &buffer{}
	go func() { ended <- p.runFor(t.Context(), "rollback") }()
	p.eventually(func() bool { return strings.Contains(p.out.String(), "Rebooting\n") })
	stop()
	t.Cleanup(startAt(t, socket))
	p.eventually(func() bool {
		return node.say(&machinepb.UpgradeStatus{ObservedVersion: "1", Reason: "Succeeded", Ready: true, Done: true}) == nil
	})
	if code := <-ended; code != exitOK {
		t.Errorf("it ends with %d\n%s%s", code, p.out, p.err)
	}
}
