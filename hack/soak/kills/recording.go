package kills

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/hack/blklog"
)

// Recording is what a node wrote to its disk while clients wrote to it, from a fresh disk on until its plug was pulled.
type Recording struct {
	record
	machine *Machine
	file    *os.File // the log's
	writers []*writer
	part    gpt.Partition // with the state
	begun   int           // number of entries when the clients began
	turned  int           // and when the one that was alone had filled a segment of the log, and begun another
	acked   int
}

// What fills the first segment of the log, into which the node itself has written some 230 KiB. A content takes twice its size, a resource has two
// forms of it. Large ones take the segment to 2.4 MB, and medium ones on to 3.2 MB: somewhere between, after 2.5 MiB, another one begins. Its
// first record lies in one block with its header then.
const (
	largeContent, largeWrites   = 32 << 10, 32
	mediumContent, mediumWrites = 1000, 330
	// crowdContent is that of the one among the crowd that has snapshots made.
	crowdContent = 128 << 10
)

// Record boots a fresh disk and writes to the node: first one client alone, over the end of a segment, then several for as long as load
// says. Then it pulls the plug.
func (m *Machine) Record(ctx context.Context, seed uint64, load time.Duration) (*Recording, error) {
	return m.recordLife(func(r *Recording) error { return r.live(ctx, rand.New(rand.NewPCG(seed, 0)), load) })
}

// recordLife records what a node on a fresh disk writes during its life.
func (m *Machine) recordLife(live func(*Recording) error) (*Recording, error) {
	if err := m.freshDisk(); err != nil {
		return nil, err
	}
	m.record = filepath.Join(m.Dir, "disk.log")
	defer func() { m.record = "" }()
	file, err := os.Create(m.record)
	if err != nil {
		return nil, err
	}
	r := &Recording{machine: m, file: file}
	err = live(r)
	if err == nil {
		err = r.read()
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Close gives up what is needed to cut.
func (r *Recording) Close() error { return r.file.Close() }

// read reads the log when it is complete.
func (r *Recording) read() error {
	var err error
	if r.record, err = readRecord(r.machine.Image, diskSize, r.file); err == nil {
		r.part, err = statePartition(r.machine.disk())
	}
	return err
}

// live is the node's life.
func (r *Recording) live(ctx context.Context, random *rand.Rand, load time.Duration) error {
	victim, err := r.machine.start()
	if err != nil {
		return err
	}
	defer victim.Kill()
	booting, done := context.WithTimeout(ctx, r.machine.Config().Patience)
	defer done()
	c, err := victim.Dial(booting)
	if err != nil {
		return err
	}
	defer c.Close()
	if r.begun, err = r.count(); err != nil {
		return err
	}
	for _, typ := range types {
		for w := range writersOfType + 1 {
			r.writers = append(r.writers, newWriter("config", typ, w))
			r.writers[len(r.writers)-1].ledger = &ledger{log: r.file}
		}
	}
	alone, turner := r.writers[writersOfType], r.writers[len(r.writers)-1]
	if err := alone.turn(ctx, c.State, random); err != nil {
		return err
	}
	if r.turned, err = r.count(); err != nil {
		return err
	}
	alone.size, turner.size = 0, crowdContent
	crowd := run{Config: r.machine.Config(), writers: r.writers}
	if err := crowd.load(ctx, victim, random, load); err != nil {
		return err
	}
	for _, w := range r.writers {
		r.acked += w.acknowledged
	}
	return nil
}

// turn fills the segment and goes on in another. A record that needs no block of its own is one that an fsync of the file alone brings to the
// disk: the file's name, when nobody has synced the directory, has to wait.
func (w *writer) turn(ctx context.Context, c state, random *rand.Rand) error {
	for i := range largeWrites + mediumWrites {
		if w.size = largeContent; i >= largeWrites {
			w.size = mediumContent
		}
		try := w.next(random)
		for i < largeWrites && try.version == "" {
			try = w.next(random)
		}
		if gone, err := w.writeOne(ctx, c, try); gone || err != nil {
			return fmt.Errorf("write %d, alone: the node is gone: %v, %w", i, gone, err)
		}
	}
	return nil
}

func (r *Recording) count() (int, error) {
	n, err := blklog.Count(r.file)
	return int(n), err
}

// statePartition finds it on a disk.
func statePartition(disk string) (gpt.Partition, error) {
	file, err := os.Open(disk)
	if err != nil {
		return gpt.Partition{}, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return gpt.Partition{}, err
	}
	table, err := gpt.Read(file, info.Size())
	if err != nil {
		return gpt.Partition{}, fmt.Errorf("%s: %w", disk, err)
	}
	for _, p := range table.Partitions {
		if p.Type == gpt.State {
			return p, nil
		}
	}
	return gpt.Partition{}, fmt.Errorf("%s: no state partition", disk)
}
