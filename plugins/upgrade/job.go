package upgrade

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/cosi-os/cosi/api/upgrade"
)

// stalled is how long a server may say nothing.
const stalled = time.Minute

// job is an upgrade that is being installed: one goroutine that reads a source to its end.
type job struct {
	id      string
	version string // of the Upgrade or Installation
	url     string // of what has the digest; empty: it is fed, or
	digest  string
	medium  func() (*medium, error)
	work    work
	judges  string // of an Installation: its version, and the disks when it began
	// Of a registry's blob.
	credentials credentials
	attempt     attempt
	// cancelled is done when nobody wants it any more.
	cancelled context.Context
	cancel    context.CancelFunc
	chunks    chan []byte // closed behind the last

	mu       sync.Mutex // guards the fields below
	progress progress
}

// work installs what open brings. It says what that is, as soon as it knows.
type work func(open func() (io.ReadCloser, error), opened func(upgrade.Manifest)) error

// progress is how far a job has come.
type progress struct {
	received, size int64
	manifest       *upgrade.Manifest
	// Of an installation: the disk, and what it holds.
	device string
	holds  contents
	done   bool
	err    error
}

func newJob(id, version, url, digest string, w work) *job {
	j := &job{id: id, version: version, url: url, digest: digest, work: w, chunks: make(chan []byte, 1)}
	j.cancelled, j.cancel = context.WithCancel(context.Background())
	return j
}

// accept takes in the chunk at an offset of a file of size bytes, if that comes next and there is room for it. It is called by one goroutine.
func (j *job) accept(offset, size int64, data []byte) {
	p := j.look()
	if p.done || offset != p.received || p.size != 0 && p.size != size || p.received+int64(len(data)) > size {
		return
	}
	select {
	case j.chunks <- data:
	default:
		return
	}
	j.note(func(p *progress) { p.received, p.size = p.received+int64(len(data)), size })
	if offset+int64(len(data)) == size {
		close(j.chunks)
	}
}

func (j *job) look() progress {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.progress
}

func (j *job) note(f func(*progress)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f(&j.progress)
}

// run does the work and calls wake when there is news.
func (j *job) run(ctx context.Context, wake func()) {
	err := j.work(func() (io.ReadCloser, error) { return j.open(ctx, wake) }, func(is upgrade.Manifest) {
		j.note(func(p *progress) { p.manifest = &is })
		wake()
	})
	j.note(func(p *progress) { p.done, p.err = true, err })
	wake()
}

// open opens the source.
func (j *job) open(ctx context.Context, wake func()) (io.ReadCloser, error) {
	if j.medium != nil {
		m, err := j.medium()
		if err != nil {
			return nil, err
		}
		j.note(func(p *progress) { p.size = m.Size })
		return struct {
			io.Reader
			io.Closer
		}{&metered{Reader: m, job: j, wake: wake}, m.Closer}, nil
	}
	if j.url == "" {
		return io.NopCloser(&fed{ctx: ctx, chunks: j.chunks, wake: wake}), nil
	}
	f, err := newFetcher(caFile, j.credentials)
	if err != nil {
		return nil, err
	}
	response, err := f.fetch(ctx, j.url, j.digest)
	if err == nil && response.StatusCode != http.StatusOK {
		response.Body.Close()
		err = fmt.Errorf("%s: %s", shown(j.url), response.Status)
	}
	if err != nil {
		f.close()
		return nil, err
	}
	j.note(func(p *progress) { p.size = max(response.ContentLength, 0) })
	silent := time.AfterFunc(stalled, func() { response.Body.Close() })
	silent.Stop()
	return &download{metered{Reader: response.Body, job: j, wake: wake}, response.Body, f, silent}, nil
}

// metered counts what is read for a job, and wakes every second.
type metered struct {
	io.Reader
	job   *job
	wake  func()
	woken time.Time
}

func (c *metered) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.job.note(func(p *progress) { p.received += int64(n) })
	if now := time.Now(); now.Sub(c.woken) > time.Second {
		c.woken = now
		c.wake()
	}
	return n, err
}

// download is a response whose server may not fall silent.
type download struct {
	metered
	body    io.Closer
	fetcher *fetcher
	silent  *time.Timer
}

func (d *download) Read(b []byte) (int, error) {
	d.silent.Reset(stalled)
	defer d.silent.Stop()
	return d.metered.Read(b)
}

func (d *download) Close() error {
	d.silent.Stop()
	err := d.body.Close()
	d.fetcher.close()
	return err
}

// fed reads what is pushed.
type fed struct {
	ctx    context.Context
	chunks <-chan []byte
	rest   []byte
	wake   func()
}

func (f *fed) Read(p []byte) (int, error) {
	if len(f.rest) == 0 {
		select {
		case chunk, more := <-f.chunks:
			if !more {
				return 0, io.EOF
			}
			f.rest = chunk
			f.wake() // there is room for another
		case <-f.ctx.Done():
			return 0, f.ctx.Err()
		}
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}
