package kills

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/cosi-os/cosi/tools/client"
)

// Upgrades says how a node is upgraded.
type Upgrades struct {
	Program  string   // cosictl
	Versions []string // files that it pushes, in turn
	Patience time.Duration
}

// policy lets the node take the versions, which nobody has signed.
const policy = `---
metadata: {type: UpgradePolicies.machine.cosi.dev, id: node}
spec: {allow_unsigned: true}
`

// Upgrades upgrades one node as often as rounds says. Before each upgrade clients write for up to 5 s; after it, all that was acknowledged must be
// there, and watchers must go on from their bookmarks.
func (m *Machine) Upgrades(ctx context.Context, u Upgrades, seed uint64, first, rounds int) Report {
	c := m.Config()
	c.Seed, c.First, c.Rounds = seed, first, rounds
	r := newRun(c)
	if err := m.allowUpgrades(); err != nil {
		return r.failed(err)
	}
	victim, err := m.start()
	if err != nil {
		return r.failed(err)
	}
	n := victim.(*running)
	defer n.Kill()
	for round := first; round < first+rounds && ctx.Err() == nil; round++ {
		began := time.Now()
		err := r.upgrade(ctx, n, u, round)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			return r.failed(fmt.Errorf("round %d: %w; the console's last lines:\n%s", round, err, n.Console.Tail(60)))
		default:
			r.report.Done++
			fmt.Fprintf(m.Log, "upgrade %d took %v\n", round+1, time.Since(began).Round(time.Second))
		}
	}
	return r.counted()
}

func (m *Machine) allowUpgrades() error {
	f, err := os.OpenFile(m.userData, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(policy)
	return errors.Join(err, f.Close())
}

// upgrade is a round.
func (r *run) upgrade(ctx context.Context, n *running, u Upgrades, round int) error {
	n.serves = false // until the node has answered in this round
	if err := r.writeFor(ctx, n, rand.New(rand.NewPCG(r.Seed, uint64(round)))); err != nil {
		return err
	}
	if err := u.push(ctx, n, u.Versions[round%len(u.Versions)]); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, r.Patience)
	defer cancel()
	n.serves = false
	c, err := n.Dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return r.compare(ctx, c.State)
}

// writeFor lets the writers write for a while.
func (r *run) writeFor(ctx context.Context, n *running, random *rand.Rand) error {
	dialling, done := context.WithTimeout(ctx, r.Patience)
	defer done()
	c, err := n.Dial(dialling)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wrong := make([]error, len(r.writers))
	var writing sync.WaitGroup
	for i, w := range r.writers {
		own := rand.New(rand.NewPCG(random.Uint64(), 0))
		writing.Go(func() { wrong[i] = w.write(ctx, c.State, own) })
	}
	time.Sleep(time.Duration(random.Int64N(int64(r.Load))))
	cancel()
	writing.Wait()
	return errors.Join(wrong...)
}

// push upgrades the node with cosictl, which returns when the node says that the new version is good.
func (u Upgrades) push(ctx context.Context, n *running, version string) error {
	config := filepath.Join(n.machine.Dir, "config.yaml")
	contexts := &client.Config{Current: "node", Contexts: map[string]*client.Context{"node": &n.Context}}
	if err := contexts.Save(config); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, u.Patience)
	defer cancel()
	if out, err := exec.CommandContext(ctx, u.Program, "--config", config, "upgrade", version).CombinedOutput(); err != nil {
		return fmt.Errorf("cosictl upgrade: %w\n%s", err, out)
	}
	return nil
}
