// Package node runs an image of ours in QEMU and waits until the node answers. The QEMU runner,
// the VM tests and the instruction counter are built on it; they differ in what they do then.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/qemu"
)

// Options say how a node is run. Only Image and Identity are needed.
type Options struct {
	Image    string // "" boots from a device that Extra brings
	Boot     Boot   // "" is UEFI
	Stick    bool   // the image is a USB stick
	Identity *Identity
	UserData string // a file; "" hands nothing in

	// Keep has the guest write to the image itself; otherwise its writes are thrown away.
	Keep bool
	// Log records the guest's writes to the image, as in qemu.Disk; Keep has to be set.
	Log          string
	Memory       int // MiB; 0 is 1024
	Disks        []qemu.Disk
	Port         int    // of the host for the node's API; 0, or one that is taken: any
	CommandLine  string // more kernel arguments; with Boot Kernel only
	HotplugPorts int
	USB          bool
	Backend      string // as in qemu.Machine
	NoReboot     bool
	Plugin       string // of TCG
	Extra        []string
	Console      io.Writer // gets a copy of the serial console, unless nil
}

// Node is a node in a VM.
type Node struct {
	*qemu.VM
	Context client.Context
	attempt time.Duration
}

// Start starts a node. It runs until it powers off, PowerDown or Kill.
func Start(ctx context.Context, h *qemu.Host, o Options) (*Node, error) {
	if o.Boot == "" {
		o.Boot = UEFI
	}
	if o.CommandLine != "" && o.Boot != Kernel {
		return nil, errors.New("kernel arguments are part of an image that its firmware boots")
	}
	m, err := machine(o.Image, o.Boot, o.Stick)
	if err != nil {
		return nil, err
	}
	if len(m.Disks) > 0 {
		m.Disks[0].Snapshot, m.Disks[0].Log = !o.Keep, o.Log
	}
	port, err := qemu.FreePort(o.Port)
	if err != nil {
		return nil, err
	}
	guest, err := strconv.Atoi(client.Port)
	if err != nil {
		return nil, err
	}
	if o.CommandLine != "" {
		m.CommandLine += " " + o.CommandLine
	}
	m.Memory, m.UserData, m.Plugin, m.NoReboot, m.Extra = o.Memory, o.UserData, o.Plugin, o.NoReboot, o.Extra
	m.Network, m.Forward = true, []qemu.Forward{{Host: port, Guest: guest}}
	m.HotplugPorts, m.USB, m.Backend = o.HotplugPorts, m.USB || o.USB, o.Backend
	m.Disks = append(m.Disks, o.Disks...)
	vm, err := qemu.Start(ctx, h, m, o.Console)
	if err != nil {
		return nil, err
	}
	endpoint := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	return &Node{VM: vm, Context: o.Identity.Context(endpoint), attempt: attempt * h.Slower()}, nil
}

// Dial returns a client with the admin's rights.
func (n *Node) Dial() (*client.Client, error) { return client.Dial(n.Context) }

// while returns a context that also ends with the VM; its cause is qemu.ErrEnded then.
func (n *Node) while(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-n.Done():
			cancel(qemu.ErrEnded)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// attempt is how long a connection is waited for, on hardware. QEMU's user-mode network accepts it
// before the guest listens, and may then say nothing for seconds. Under emulation a handshake itself may
// take a second, and one that is given up costs the guest another.
const attempt = time.Second

// between is the time from one attempt to the next. They overlap: one that was made before the node
// had its address is only tried again by QEMU a second later, in which a node does a lot.
const between = 100 * time.Millisecond

// WaitTLS waits for the first TLS answer on the node's port. The error is qemu.ErrEnded if the VM
// ends before, and that of the last attempt beside ctx's if ctx does.
func (n *Node) WaitTLS(ctx context.Context) error {
	ctx, cancel := n.while(ctx)
	var attempts sync.WaitGroup
	defer attempts.Wait()
	defer cancel()
	answers := make(chan error)
	var last error
	for next := time.NewTimer(0); ; {
		select {
		case <-next.C:
			attempts.Go(func() { n.handshake(ctx, answers) })
			next.Reset(between)
		case err := <-answers:
			if err == nil {
				return nil
			}
			last = err
		case <-ctx.Done():
			return fmt.Errorf("%s: no TLS answer: %w", n.Context.Endpoint, errors.Join(context.Cause(ctx), last))
		}
	}
}

// handshake makes one attempt and says what came of it, unless nobody listens any more.
func (n *Node) handshake(ctx context.Context, answers chan<- error) {
	try, done := context.WithTimeout(ctx, n.attempt)
	defer done()
	_, err := client.ServingCertificate(try, n.Context.Endpoint)
	select {
	case answers <- err:
	case <-ctx.Done():
	}
}

// WaitReady waits until an authenticated Get returns MachineStatuses with ready = true, and returns
// it. When ctx or the VM ends before, the error tells what the node was waiting for.
func (n *Node) WaitReady(ctx context.Context, c *client.Client) (*machinepb.MachineStatus, error) {
	ctx, cancel := n.while(ctx)
	defer cancel()
	kind, err := builtin.Set().Lookup("machine")
	if err != nil {
		return nil, err
	}
	var said, failed error // what the node said last, and what went wrong since
	for ctx.Err() == nil {
		var status *machinepb.MachineStatus
		if status, failed = machineStatus(ctx, c, kind); failed == nil {
			if status.GetReady() {
				return status, nil
			}
			said = fmt.Errorf("%s: %s", status.GetReason(), status.GetMessage())
			failed = untilReady(ctx, c, kind)
		}
		if failed != nil {
			pause(ctx, 100*time.Millisecond)
		}
	}
	return nil, fmt.Errorf("%s: not ready: %w", n.Context.Endpoint, errors.Join(context.Cause(ctx), said, failed))
}

func machineStatus(ctx context.Context, c *client.Client, kind *kinds.Kind) (*machinepb.MachineStatus, error) {
	r, err := c.Get(ctx, kind, "machine")
	if err != nil {
		return nil, err
	}
	return decode(r)
}

func decode(r *resourcepb.Resource) (*machinepb.MachineStatus, error) {
	status := &machinepb.MachineStatus{}
	return status, proto.Unmarshal(r.GetSpec().GetProtoSpec(), status)
}

// untilReady returns when the machine has said that it is ready.
func untilReady(ctx context.Context, c *client.Client, kind *kinds.Kind) error {
	return c.Watch(ctx, kind, "machine", nil, func(e *resourcepb.Event) error {
		status, err := decode(e.GetResource())
		if err == nil && status.GetReady() {
			err = client.ErrStop
		}
		return err
	})
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
