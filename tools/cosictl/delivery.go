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
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/upgrade"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

// delivery is what upgrade, rollback and install have in common: a resource asks the node for a version, the file that this takes is pushed, and the
// resource's status is followed.
type delivery struct {
	*app
	kind   string        // of the resource
	status func() status // an empty one
	// enough reports whether a status is not waited beyond, though it is no outcome.
	enough func(status) bool

	id, version string
	noReboot    bool
	timeout     time.Duration

	digest string // of the file, or of what is at the URL
	url    string // one of the two, or neither
	file   *os.File

	answered atomic.Bool // the plugin has said something of what was written
	refused  bool        // that it refuses it
}

// patience is how long nobody has to have answered before that is said.
const patience = 10 * time.Second

// status is an UpgradeStatus or an InstallationStatus.
type status interface {
	proto.Message
	GetObservedVersion() string
	GetReady() bool
	GetReason() string
	GetMessage() string
	GetVersion() string
	GetReceived() uint64
	GetSize() uint64
	GetDone() bool
}

func (d *delivery) flags(cmd *cobra.Command, resource string) {
	cmd.Flags().StringVar(&d.id, "id", "cosictl", "`id` of the "+resource+" that is written")
	cmd.Flags().StringVar(&d.version, "version", "", "the `version` that it must be")
	cmd.Flags().DurationVar(&d.timeout, "timeout", 30*time.Minute, "how long to wait")
	noFiles(cmd, "id", "version", "timeout")
}

// noFiles are flags whose values are no files.
func noFiles(cmd *cobra.Command, flags ...string) {
	for _, name := range flags {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions) // fails only for an unknown flag
	}
}

func (d *delivery) digestFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&d.digest, "digest", "", "`SHA-256` of what the URL brings, in hex")
	noFiles(cmd, "digest")
}

var digestPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// open finds out what FILE|URL is. Who calls it closes the file.
func (d *delivery) open(source string) error {
	schemes := []string{"https", "http", "oci"}
	if scheme, _, is := strings.Cut(source, "://"); is && !slices.Contains(schemes, scheme) {
		return commandline.Usagef("%s: a node fetches nothing by %s (%s)", source, scheme, strings.Join(schemes, ", "))
	}
	if location, err := url.Parse(source); err == nil && slices.Contains(schemes, location.Scheme) {
		if !digestPattern.MatchString(d.digest) {
			return commandline.Usagef("--digest: want the SHA-256 of what the URL brings, 64 hexadecimal digits: sha256sum prints it")
		}
		if location.Scheme == "oci" && location.User != nil {
			return commandline.Usagef("%s: a name and password do not belong in the URL: write RegistryCredentials %q", location.Redacted(), strings.ToLower(location.Host))
		}
		d.url = source
		return nil
	}
	if d.digest != "" {
		return commandline.Usagef("--digest is for a URL; of a file it is known")
	}
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	d.file = f
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	// A node writes what arrives over the version that it could go back to. What is broken is seen here.
	if err := upgrade.Check(f); err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	d.digest = hex.EncodeToString(h.Sum(nil))
	return nil
}

func (d *delivery) close() {
	if d.file != nil {
		d.file.Close()
	}
}

// ask writes what is wanted, pushes the file if there is one, and follows what becomes of it.
func (d *delivery) ask(ctx context.Context, c *client.Client, wanted proto.Message) error {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	k, err := c.Kind(ctx, d.kind)
	if err != nil {
		return err
	}
	statuses, err := c.Kind(ctx, k.Definition.GetObservedType())
	if err != nil {
		return err
	}
	version, err := d.write(ctx, c, k, statuses, wanted)
	if err != nil {
		return err
	}
	p, err := d.pusher(ctx, c)
	if err != nil {
		return err
	}
	name := k.Singular() + "/" + d.id
	defer time.AfterFunc(patience, func() {
		if !d.answered.Load() {
			fmt.Fprintf(d.err, "cosictl: %s is written, and nothing on the node has answered yet: cosictl get plugins\n", name)
		}
	}).Stop()
	err = d.follow(ctx, c, statuses, name, version, p)
	if ctx.Err() == context.DeadlineExceeded {
		if !d.answered.Load() {
			return timeoutError{fmt.Errorf("%s was answered by nobody within %v: it takes the plugin upgrade (cosictl get plugins)", name, d.timeout)}
		}
		return timeoutError{fmt.Errorf("%s has come no further within %v: cosictl describe %s", name, d.timeout, name)}
	}
	return err
}

// write writes what is wanted, and returns its version. What is the same and has no outcome yet goes on; what has one is written again, which has
// the node try again.
func (d *delivery) write(ctx context.Context, c *client.Client, k, statuses *kinds.Kind, wanted proto.Message) (string, error) {
	spec, err := proto.Marshal(wanted)
	if err != nil {
		return "", err
	}
	r := &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: k.Namespace(), Type: k.Type(), Id: d.id, Version: "1", Phase: "running"},
		Spec:     &resourcepb.Spec{ProtoSpec: spec},
	}
	outcome, written, err := c.Apply(ctx, k, r)
	if err != nil || outcome != client.Unchanged {
		return written.GetMetadata().GetVersion(), err
	}
	is, err := d.now(ctx, c, statuses)
	if err != nil || !is.GetDone() || is.GetObservedVersion() != written.GetMetadata().GetVersion() {
		return written.GetMetadata().GetVersion(), err
	}
	response, err := c.State.Update(ctx, &resourcepb.UpdateRequest{NewResource: written})
	return response.GetResource().GetMetadata().GetVersion(), client.Explain(err)
}

// now reads how far it has come; there may be no status yet.
func (d *delivery) now(ctx context.Context, c *client.Client, k *kinds.Kind) (status, error) {
	is := d.status()
	r, err := c.Get(ctx, k, d.id)
	if client.Code(err) == codes.NotFound {
		return is, nil
	}
	if err == nil {
		err = proto.Unmarshal(r.GetSpec().GetProtoSpec(), is)
	}
	return is, err
}

// follow shows what becomes of the version that was written, until there is nothing more to wait for.
func (d *delivery) follow(ctx context.Context, c *client.Client, k *kinds.Kind, name, version string, p *pusher) error {
	shown, rebooting := "", false
	show := func(text string) {
		if text != shown {
			fmt.Fprintln(d.out, text)
			shown = text
		}
	}
	lost := func(reason error, _ bool) {
		if !rebooting {
			fmt.Fprintf(d.err, "cosictl: %v; going on when the node answers\n", reason)
		}
	}
	return c.Follow(ctx, k, d.id, &resourcepb.WatchOptions{}, lost, func(e *resourcepb.Event) error {
		is := d.status()
		if err := proto.Unmarshal(e.GetResource().GetSpec().GetProtoSpec(), is); err != nil {
			return err
		}
		if e.GetEventType() == resourcepb.EventType_DESTROYED || is.GetObservedVersion() != version {
			return nil // not yet
		}
		d.answered.Store(true)
		rebooting = is.GetReason() == "Rebooting"
		show(progress(is))
		switch {
		case is.GetDone() && is.GetReady() || !is.GetDone() && d.enough(is):
			return errors.Join(p.end(ctx), client.ErrStop)
		case is.GetDone():
			d.refused = is.GetReason() == "Refused"
			return errors.Join(p.end(ctx), fmt.Errorf("%s: %s: %s", name, is.GetReason(), is.GetMessage()))
		case is.GetReason() == "Receiving":
			return p.push(ctx, int64(is.GetReceived()))
		}
		return p.end(ctx)
	})
}

// progress is a status in a line, in steps of ten percent.
func progress(is status) string {
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
