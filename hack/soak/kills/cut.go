package kills

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cosi-os/cosi/hack/blklog"
)

// Point is a moment at which the power is lost: after N entries of the record. Of what was not flushed then some is left if Some, else nothing.
type Point struct {
	N    int
	Some bool
}

func (p Point) String() string {
	if p.Some {
		return fmt.Sprintf("after entry %d, and some of what was not flushed is left", p.N)
	}
	return fmt.Sprintf("after entry %d, a flush", p.N)
}

// Points returns every flush of the clients' time, and a random moment before each.
func (r *Recording) Points(seed uint64) (all []Point) {
	random, from := rand.New(rand.NewPCG(seed, 0)), r.begun
	for _, flush := range r.log.Flushes(r.begun) {
		if gap := flush - 1 - from; gap > 0 {
			all = append(all, Point{from + 1 + random.IntN(gap), true})
		}
		all = append(all, Point{flush, false})
		from = flush
	}
	return all
}

// Turn returns the points of all while one client was alone.
func (r *Recording) Turn(all []Point) []Point {
	n, _ := slices.BinarySearchFunc(all, r.turned, func(p Point, n int) int { return p.N - n })
	return all[:n]
}

// Sample returns n of all, in order.
func Sample(all []Point, n int, seed uint64) []Point {
	some := slices.Clone(all)
	rand.New(rand.NewPCG(seed, 1)).Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
	some = some[:min(n, len(some))]
	slices.SortFunc(some, func(a, b Point) int { return a.N - b.N })
	return some
}

// Cuts records a node, cuts the record at as many points as rounds says, after another recording if it has fewer, and boots the node from a few of
// them. So many as first says have been cut before: what is recorded then is another load.
func (m *Machine) Cuts(ctx context.Context, program string, seed uint64, first, rounds int) (report Report) {
	for report.Done < rounds && len(report.Failures) == 0 && ctx.Err() == nil {
		one, err := m.cutRecord(ctx, program, seed+uint64(first+report.Done), rounds-report.Done)
		report.Done, report.Writes, report.Failures = report.Done+one.Done, report.Writes+one.Writes, one.Failures
		if err != nil && ctx.Err() == nil {
			report.Failures = append(report.Failures, err.Error())
		}
	}
	return report
}

// cutRecord makes one record and cuts it at no more than most points.
func (m *Machine) cutRecord(ctx context.Context, program string, seed uint64, most int) (Report, error) {
	r, err := m.Record(ctx, seed, recordedLoad)
	if err != nil {
		return Report{}, fmt.Errorf("seed %d: %w", seed, err)
	}
	defer r.Close()
	points := Sample(r.Points(seed), most, seed)
	fmt.Fprintf(m.Log, "%d writes are acknowledged; the disk is cut at %d points\n", r.acked, len(points))
	begun := time.Now()
	report := r.Cut(ctx, program, seed, points)
	fmt.Fprintf(m.Log, "%d points in %v; now %d of them are booted\n", report.Done, time.Since(begun).Round(time.Second), boots)
	for _, p := range Sample(points[:report.Done], boots, seed) {
		if err := r.Boot(ctx, seed, p); err != nil {
			return report, err
		}
	}
	return report, nil
}

const (
	recordedLoad = 20 * time.Second
	boots        = 3 // of a record
)

// Cut makes the state partition again as it was at each point, in order, recovers it with a runtime, and compares. It ends at the first that is
// wrong, whose partition it leaves in the machine's directory.
func (r *Recording) Cut(ctx context.Context, program string, seed uint64, points []Point) (report Report) {
	report.Writes = r.acked
	c := &cutter{Recording: r, program: program}
	defer c.end()
	if err := c.begin(); err != nil {
		report.Failures = append(report.Failures, err.Error())
		return report
	}
	for _, p := range points {
		err := c.check(ctx, seed, p)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			failure := fmt.Sprintf("seed %d, power lost %v of %d: %v", seed, p, len(r.log.Entries), errors.Join(err, c.write(seed, p, filepath.Join(r.machine.Dir, "cut.ext4"))))
			fmt.Fprintln(r.machine.Log, failure)
			report.Failures = append(report.Failures, failure)
			break
		}
		report.Done++
	}
	return report
}

// cutter makes one partition after another.
type cutter struct {
	*Recording
	program string
	dir     string
	durable *os.File // the partition as it was after the first flushed entries
	flushed int
}

// begin lays down what was on the disk before the node first ran. It works in memory where there is such a file system: most of the time would
// be syncs of what is thrown away.
func (c *cutter) begin() (err error) {
	parent := "/dev/shm"
	if _, err := os.Stat(parent); err != nil {
		parent = ""
	}
	if c.dir, err = os.MkdirTemp(parent, "cut"); err != nil {
		return err
	}
	image, err := os.Open(c.machine.Image)
	if err != nil {
		return err
	}
	defer image.Close()
	if c.durable, err = os.Create(filepath.Join(c.dir, "durable.ext4")); err != nil {
		return err
	}
	size := c.part.End - c.part.Start
	if _, err := io.Copy(c.durable, io.NewSectionReader(image, c.part.Start, size)); err != nil {
		return err
	}
	return c.durable.Truncate(size)
}

func (c *cutter) end() {
	if c.durable != nil {
		c.durable.Close()
	}
	os.RemoveAll(c.dir)
}

// write makes the partition in a file.
func (c *cutter) write(seed uint64, p Point, path string) error {
	flushed := c.log.Flushed(p.N)
	window := blklog.Window{To: c.durable, Start: c.part.Start, Size: c.part.End - c.part.Start}
	if err := c.log.Write(window, c.log.Pieces(c.flushed, flushed)); err != nil {
		return err
	}
	c.flushed = flushed
	if err := copyDisk(c.durable.Name(), path); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	window.To = file
	return errors.Join(c.log.Write(window, c.left(seed, p)), file.Close())
}

// check makes the partition, recovers it and compares.
func (c *cutter) check(ctx context.Context, seed uint64, p Point) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	partition := filepath.Join(c.dir, "cut.ext4")
	if err := c.write(seed, p, partition); err != nil {
		return err
	}
	data := filepath.Join(c.dir, "data")
	if err := os.RemoveAll(data); err != nil {
		return err
	}
	if err := readState(ctx, partition, data); err != nil {
		return err
	}
	var said strings.Builder
	if err := c.compare(ctx, p, Runtime{Program: c.program, Dir: c.dir, Log: &said}.start); err != nil {
		return fmt.Errorf("%w\n%s", err, said.String())
	}
	return nil
}

// compare starts what serves the state, and holds it against what had been acknowledged.
func (r *Recording) compare(ctx context.Context, p Point, start func() (Victim, error)) error {
	victim, err := start()
	if err != nil {
		return err
	}
	defer victim.Kill()
	c, err := victim.Dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	var then run
	for _, w := range r.writers {
		then.writers = append(then.writers, w.at(uint64(p.N)))
	}
	return then.compare(ctx, c.State)
}

// Boot makes the whole disk again as it was at a point, boots the node from it, and compares.
func (r *Recording) Boot(ctx context.Context, seed uint64, p Point) error {
	m := r.machine
	err := r.disk(seed, p, m.disk())
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, m.Config().Patience)
		defer cancel()
		err = r.compare(ctx, p, m.start)
	}
	if err != nil {
		return fmt.Errorf("seed %d, power lost %v of %d, and the node booted: %w", seed, p, len(r.log.Entries), err)
	}
	return nil
}
