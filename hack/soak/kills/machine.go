package kills

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/descriptors"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/qemu"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// Machine is a node in a VM, with its system disk in a directory. Killing it is pulling the plug, for all but what the
// host's page cache keeps: writes that the guest never flushed may survive. Record and Recording.Cut take those away too.
type Machine struct {
	Host  *qemu.Host
	Image string // raw, as make image has it
	Dir   string
	Log   io.Writer
	Boot  node.Boot // "" is UEFI

	identity *node.Identity
	userData string
	record   string // file that the writes to the disk are recorded in, if any
}

// diskSize leaves room for a state partition of half a GiB.
const diskSize = 2 << 30

// NewMachine makes keys and a fresh disk in dir.
func NewMachine(h *qemu.Host, image, dir string, log io.Writer) (*Machine, error) {
	m := &Machine{Host: h, Image: image, Dir: dir, Log: log, userData: filepath.Join(dir, "user-data.yaml")}
	var err error
	if m.identity, err = node.LoadIdentity(dir, "cosi", time.Now()); err != nil {
		return nil, err
	}
	data, err := m.identity.UserData()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(m.userData, data, 0o600); err != nil {
		return nil, err
	}
	if _, err := os.Stat(m.disk()); errors.Is(err, os.ErrNotExist) {
		return m, m.freshDisk()
	}
	return m, nil
}

func (m *Machine) disk() string { return filepath.Join(m.Dir, "system.raw") }

func (m *Machine) freshDisk() error {
	if err := copyDisk(m.Image, m.disk()); err != nil {
		return err
	}
	return os.Truncate(m.disk(), diskSize)
}

func copyDisk(from, to string) error {
	if out, err := exec.Command("cp", "--sparse=always", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("cp: %w: %s", err, out)
	}
	return nil
}

// types are kinds that the first client of the node defines.
var types = []string{"Kills0.soak.cosi.dev", "Kills1.soak.cosi.dev"}

// Config returns rounds for it: load for up to 5 s, the first boot and one in five later ones cut off.
func (m *Machine) Config() Config {
	return Config{
		Start: m.start, Namespace: "config", Types: types, Load: 5 * time.Second, Log: m.Log,
		Unready: 25 * time.Second, OftenUnready: 5, FirstUnready: true, Patience: time.Minute * m.Host.Slower(),
	}
}

func (m *Machine) start() (Victim, error) {
	n, err := node.Start(context.Background(), m.Host, node.Options{Image: m.disk(), Boot: m.Boot, Keep: true, Log: m.record, Identity: m.identity, UserData: m.userData})
	if err != nil {
		return nil, err
	}
	return &running{Node: n, machine: m}, nil
}

// running is the VM.
type running struct {
	*node.Node
	machine *Machine
	serves  bool
}

// Dial waits until the node serves, keeps what it is told, and knows the kinds.
func (r *running) Dial(ctx context.Context) (*client.Client, error) {
	if r.serves {
		return r.Node.Dial()
	}
	if err := r.WaitTLS(ctx); err != nil {
		return nil, fmt.Errorf("%w; the console's last lines:\n%s", err, r.Console.Tail(40))
	}
	c, err := r.Node.Dial()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(durable(ctx, c), define(ctx, c)); err != nil {
		c.Close()
		return nil, fmt.Errorf("%w; the console's last lines:\n%s", err, r.Console.Tail(40))
	}
	r.serves = true
	return c, nil
}

// patiently waits for the connection as long as the call may take: on a busy machine a handshake is given up, and the next one succeeds.
var patiently = grpc.WaitForReady(true)

// durable fails when the node keeps its state in memory.
func durable(ctx context.Context, c *client.Client) error {
	answer, err := c.State.Get(ctx, &resourcepb.GetRequest{Namespace: "status", Type: "StateStatuses.machine.cosi.dev", Id: "state"}, patiently)
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	s := &machinepb.StateStatus{}
	if err := proto.Unmarshal(answer.GetResource().GetSpec().GetProtoSpec(), s); err != nil {
		return err
	}
	if !s.GetDurable() {
		return fmt.Errorf("the node keeps nothing: %v", s)
	}
	return nil
}

// define makes the kinds, whose messages have a string as their field 1.
func define(ctx context.Context, c *client.Client) error {
	for i, typ := range types {
		message := (&metapb.NamespaceSpec{}).ProtoReflect().Descriptor()
		k, err := kinds.New(&metapb.ResourceDefinitionSpec{ResourceType: typ, DisplayType: fmt.Sprintf("Kill%d", i), DefaultNamespace: "config"}, message)
		if err != nil {
			return err
		}
		definition, err := descriptors.Definition(k)
		if err != nil {
			return err
		}
		content, err := proto.Marshal(definition)
		if err != nil {
			return err
		}
		_, err = c.State.Create(ctx, &resourcepb.CreateRequest{Resource: &resourcepb.Resource{
			Metadata: &resourcepb.Metadata{Namespace: "meta", Type: "ResourceDefinitions.meta.cosi.dev", Id: k.ID(), Phase: "running"},
			Spec:     &resourcepb.Spec{ProtoSpec: content},
		}}, patiently)
		if err != nil && status.Code(err) != codes.AlreadyExists {
			return fmt.Errorf("define %s: %w", typ, err)
		}
	}
	return nil
}

// handover is what the kernel's EFI stub says before it starts.
var handover = regexp.MustCompile(`EFI stub: `)

// FirstBoots cuts the first boot of a fresh disk at a random moment after the firmware is done, as often as rounds says, and expects the next boot
// to serve and to keep what it is told.
func (m *Machine) FirstBoots(ctx context.Context, seed uint64, first, rounds int) Report {
	var report Report
	for n := first; n < first+rounds && ctx.Err() == nil; n++ {
		if err := m.firstBoot(ctx, rand.New(rand.NewPCG(seed, uint64(n)))); err != nil && ctx.Err() == nil {
			failure := fmt.Sprintf("seed %d, round %d: %v", seed, n, err)
			fmt.Fprintln(m.Log, failure)
			report.Failures = append(report.Failures, failure)
			break
		} else if err == nil {
			report.Done++
		}
	}
	return report
}

func (m *Machine) firstBoot(ctx context.Context, random *rand.Rand) error {
	if err := m.freshDisk(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, m.Config().Patience)
	defer cancel()
	victim, err := m.start()
	if err != nil {
		return err
	}
	defer victim.Kill()
	begun := time.Now()
	if _, err := victim.(*running).Console.Wait(ctx, 0, handover); err != nil {
		return fmt.Errorf("the kernel does not start: %w", err)
	}
	// The rest of a boot takes about as long as the firmware did.
	moment := time.Duration(random.Int64N(int64(time.Since(begun) * 5 / 4)))
	time.Sleep(moment)
	victim.Kill()

	again, err := m.start()
	if err != nil {
		return err
	}
	defer again.Kill()
	c, err := again.Dial(ctx)
	if err != nil {
		return fmt.Errorf("cut off %v after the kernel began: %w", moment, err)
	}
	return c.Close()
}
