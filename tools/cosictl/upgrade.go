package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"regexp"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/upgrade"
	"github.com/cosi-os/cosi/tools/client"
)

// piece is how much of a file is pushed at once.
const piece = 512 << 10

type upgradeCommand struct {
	*app
	id, digest, version, when string
	noReboot                  bool
	timeout                   time.Duration
}

func newUpgrade(a *app) *cobra.Command {
	u := &upgradeCommand{app: a}
	cmd := &cobra.Command{
		Use:   "upgrade FILE|URL",
		Short: "Have a node run another version of itself",
		Long: `Have a node run another version of itself, and wait until that is good.

FILE is what "cosi-image build" makes of the output "upgrade"; it is pushed to the node, and the command goes on where it stopped when it is
called again. From a URL (https or http, or oci://HOST/REPOSITORY for a blob of a registry) the node fetches it itself; its SHA-256 is needed then.

The node writes the new version into the slot that it does not run from, and reboots. If the new version is not healthy in time
("cosictl explain boothealth"), the version before comes back by itself, and the command says why.`,
		Example: `  cosictl upgrade build/cosi-base-amd64.upgrade
  cosictl upgrade https://images.example/cosi-base-amd64.upgrade --digest 9f86d0…
  cosictl upgrade oci://registry.example/cosi/base --digest 9f86d0…
  cosictl upgrade build/cosi-base-amd64.upgrade --when 2026-12-01T03:00:00Z
  cosictl get bootentries                  # what the node can be booted from
  cosictl rollback                         # back to the version before`,
		Args: arguments(1, 1),
		RunE: a.withClient(u.run),
	}
	u.flags(cmd)
	cmd.Flags().StringVar(&u.digest, "digest", "", "`SHA-256` of what the URL brings, in hex")
	return cmd
}

func newRollback(a *app) *cobra.Command {
	u := &upgradeCommand{app: a}
	cmd := &cobra.Command{
		Use:   "rollback",
		Short: "Have a node run the version before again",
		Long: `Have a node run the version that is in its other slot, and wait until that is good.

It is on trial, like a new version: if it is not healthy in time, the version that runs now comes back. What was written since the upgrade stays.`,
		Example: `  cosictl rollback
  cosictl rollback --version 0.1.0         # only if it is that one`,
		Args: arguments(0, 0),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			return u.ask(ctx, c, &machinepb.Upgrade{Previous: true}, nil)
		}),
	}
	u.flags(cmd)
	return cmd
}

func (u *upgradeCommand) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&u.id, "id", "cosictl", "`id` of the Upgrade that is written")
	cmd.Flags().StringVar(&u.version, "version", "", "the `version` that it must be")
	cmd.Flags().StringVar(&u.when, "when", "", "`time` to reboot at, as in 2026-12-01T03:00:00Z; do not wait for it")
	cmd.Flags().BoolVar(&u.noReboot, "no-reboot", false, "put it in place, for the next reboot, and do not wait for that")
	cmd.Flags().DurationVar(&u.timeout, "timeout", 30*time.Minute, "how long to wait")
	for _, name := range []string{"id", "version", "when", "digest", "timeout"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions) // fails only for an unknown flag
	}
}

var digestPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (u *upgradeCommand) run(ctx context.Context, c *client.Client, args []string) error {
	if location, err := url.Parse(args[0]); err == nil && slices.Contains([]string{"http", "https", "oci"}, location.Scheme) {
		if !digestPattern.MatchString(u.digest) {
			return usagef("--digest: want the SHA-256 of what the URL brings, 64 hexadecimal digits: sha256sum prints it")
		}
		return u.ask(ctx, c, &machinepb.Upgrade{Url: args[0], Digest: u.digest}, nil)
	}
	if u.digest != "" {
		return usagef("--digest is for a URL; of a file it is known")
	}
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := upgrade.Open(f); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	return u.ask(ctx, c, &machinepb.Upgrade{Pushed: true, Digest: hex.EncodeToString(h.Sum(nil))}, f)
}

// ask writes the Upgrade, pushes file if there is one, and follows what becomes of it.
func (u *upgradeCommand) ask(ctx context.Context, c *client.Client, wanted *machinepb.Upgrade, file *os.File) error {
	wanted.Version, wanted.NoReboot = u.version, u.noReboot
	if u.when != "" && u.noReboot {
		return usagef("--when says when to reboot, and --no-reboot not to: want one of them")
	}
	if u.when != "" {
		at, err := time.Parse(time.RFC3339, u.when)
		if err != nil {
			return usagef("--when %s: want a time, as in 2026-12-01T03:00:00Z", u.when)
		}
		wanted.At = timestamppb.New(at)
	}
	ctx, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	version, err := u.write(ctx, c, wanted)
	if err != nil {
		return err
	}
	p, err := u.pusher(ctx, c, wanted, file)
	if err != nil {
		return err
	}
	err = u.follow(ctx, c, version, p)
	if ctx.Err() == context.DeadlineExceeded {
		return timeoutError{fmt.Errorf("upgrade/%s has come no further within %v: cosictl describe upgrade/%s", u.id, u.timeout, u.id)}
	}
	return err
}

// write writes the Upgrade, and returns its version. One that is the same and has no outcome yet goes on; one that has is written again, which has
// the node try again.
func (u *upgradeCommand) write(ctx context.Context, c *client.Client, wanted *machinepb.Upgrade) (string, error) {
	k, err := c.Kind(ctx, "Upgrades.machine.cosi.dev")
	if err != nil {
		return "", err
	}
	spec, err := proto.Marshal(wanted)
	if err != nil {
		return "", err
	}
	r := &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: k.Namespace(), Type: k.Type(), Id: u.id, Version: "1", Phase: "running"},
		Spec:     &resourcepb.Spec{ProtoSpec: spec},
	}
	outcome, written, err := c.Apply(ctx, k, r)
	if err != nil || outcome != client.Unchanged {
		return written.GetMetadata().GetVersion(), err
	}
	statuses, err := c.Kind(ctx, k.Definition.GetObservedType())
	if err != nil {
		return "", err
	}
	is, err := u.status(ctx, c, statuses)
	if err != nil || !is.GetDone() || is.GetObservedVersion() != written.GetMetadata().GetVersion() {
		return written.GetMetadata().GetVersion(), err
	}
	response, err := c.State.Update(ctx, &resourcepb.UpdateRequest{NewResource: written})
	return response.GetResource().GetMetadata().GetVersion(), client.Explain(err)
}

// status reads how far the Upgrade has come; there may be none yet.
func (u *upgradeCommand) status(ctx context.Context, c *client.Client, k *kinds.Kind) (*machinepb.UpgradeStatus, error) {
	is := &machinepb.UpgradeStatus{}
	r, err := c.Get(ctx, k, u.id)
	if client.Code(err) == codes.NotFound {
		return is, nil
	}
	if err == nil {
		err = proto.Unmarshal(r.GetSpec().GetProtoSpec(), is)
	}
	return is, err
}

// follow shows what becomes of the Upgrade as it was written, until there is nothing more to wait for.
func (u *upgradeCommand) follow(ctx context.Context, c *client.Client, version string, p *pusher) error {
	k, err := c.Kind(ctx, "UpgradeStatuses.machine.cosi.dev")
	if err != nil {
		return err
	}
	shown, rebooting := "", false
	show := func(text string) {
		if text != shown {
			fmt.Fprintln(u.out, text)
			shown = text
		}
	}
	lost := func(reason error, _ bool) {
		if !rebooting {
			fmt.Fprintf(u.err, "cosictl: %v; going on when the node answers\n", reason)
		}
	}
	return c.Follow(ctx, k, u.id, &resourcepb.WatchOptions{}, lost, func(e *resourcepb.Event) error {
		is := &machinepb.UpgradeStatus{}
		if err := proto.Unmarshal(e.GetResource().GetSpec().GetProtoSpec(), is); err != nil {
			return err
		}
		if e.GetEventType() == resourcepb.EventType_DESTROYED || is.GetObservedVersion() != version {
			return nil // not yet
		}
		rebooting = is.GetReason() == "Rebooting"
		show(progress(is))
		switch {
		case is.GetDone() && is.GetReady():
			return errors.Join(p.end(ctx), client.ErrStop)
		case is.GetDone():
			return errors.Join(p.end(ctx), fmt.Errorf("upgrade/%s: %s: %s", u.id, is.GetReason(), is.GetMessage()))
		case is.GetReason() == "Staged" && (u.noReboot || u.when != ""):
			return errors.Join(p.end(ctx), client.ErrStop)
		case is.GetReason() == "Receiving":
			return p.push(ctx, int64(is.GetReceived()))
		}
		return p.end(ctx)
	})
}

// progress is a status in a line, in steps of ten percent.
func progress(is *machinepb.UpgradeStatus) string {
	text := is.GetReason()
	if is.GetVersion() != "" {
		text += " version " + is.GetVersion()
	}
	if is.GetReason() == "Receiving" && is.GetSize() > 0 {
		text += fmt.Sprintf(", %d %% of %d MB", is.GetReceived()*10/is.GetSize()*10, (is.GetSize()+500_000)/1_000_000)
	}
	if is.GetMessage() != "" {
		text += ": " + is.GetMessage()
	}
	return text
}

// pusher pushes a file as chunks, one after the other. Without a file it does nothing.
type pusher struct {
	client *client.Client
	kind   *kinds.Kind
	file   *os.File
	size   int64
	id     string
	digest string
	there  []string // chunks on the node
	next   int64    // what was pushed ends here
}

func (u *upgradeCommand) pusher(ctx context.Context, c *client.Client, wanted *machinepb.Upgrade, file *os.File) (*pusher, error) {
	p := &pusher{client: c, file: file, id: u.id, digest: wanted.GetDigest(), next: -1}
	if file == nil {
		return p, nil
	}
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	p.size = info.Size()
	if p.kind, err = c.Kind(ctx, "UpgradeChunks.machine.cosi.dev"); err != nil {
		return nil, err
	}
	left, err := c.List(ctx, p.kind) // by one that was interrupted
	for _, r := range left {
		chunk := &machinepb.UpgradeChunk{}
		if err := proto.Unmarshal(r.GetSpec().GetProtoSpec(), chunk); err != nil {
			return nil, err
		}
		if chunk.GetUpgrade() == p.id {
			p.there = append(p.there, r.GetMetadata().GetId())
		}
	}
	return p, err
}

// push pushes the chunk that is wanted next, and removes those before.
func (p *pusher) push(ctx context.Context, offset int64) error {
	if p.file == nil || offset == p.next-piece || offset >= p.size {
		return nil // it is there already
	}
	if err := p.end(ctx); err != nil {
		return err
	}
	data := make([]byte, min(piece, p.size-offset))
	if _, err := p.file.ReadAt(data, offset); err != nil {
		return fmt.Errorf("%s: %w", p.file.Name(), err)
	}
	spec, err := proto.Marshal(&machinepb.UpgradeChunk{Upgrade: p.id, Digest: p.digest, Offset: uint64(offset), Size: uint64(p.size), Data: data})
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%s-%d", p.id, offset)
	_, _, err = p.client.Apply(ctx, p.kind, &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: p.kind.Namespace(), Type: p.kind.Type(), Id: name, Version: "1", Phase: "running"},
		Spec:     &resourcepb.Spec{ProtoSpec: spec},
	})
	if err != nil {
		return err
	}
	p.there, p.next = append(p.there, name), offset+piece
	return nil
}

// end removes the chunks that are there. One that is gone, as after a reboot, is no error.
func (p *pusher) end(ctx context.Context) error {
	for _, name := range p.there {
		_, err := p.client.State.Destroy(ctx, &resourcepb.DestroyRequest{Namespace: p.kind.Namespace(), Type: p.kind.Type(), Id: name})
		if err != nil && client.Code(err) != codes.NotFound && !client.Lost(err) {
			return client.Explain(err)
		}
	}
	p.there = nil
	return nil
}
